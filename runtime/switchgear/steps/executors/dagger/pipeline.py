"""From a spec to calls of the SDK: image, surroundings, and the one execution that runs the step's script.

Nothing here runs by itself: `Container` is lazy, and the executor awaits what it needs. No plaintext of a secret is
ever part of a query: the session's CLI reads it from a file that only this run knows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from switchgear.steps import fetching, images
from switchgear.steps.executors.dagger import script
from switchgear.steps.executors.dagger.script import RUN, is_volatile
from switchgear.steps.executors.dagger.service import argv
from switchgear.steps.sources import Git

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import dagger

    from switchgear.steps.guard import Guards
    from switchgear.steps.images import Image
    from switchgear.steps.sources import Mount
    from switchgear.steps.spec import Service, StepSpec
    from switchgear.steps.workspace import Workspace

_SHARING = {"shared": "SHARED", "private": "PRIVATE", "locked": "LOCKED"}


class Prepared(NamedTuple):
    """What of a spec the host has ready, before an engine is asked."""

    places: tuple[str, ...]
    """Where the host has the source of each mount, in their order."""
    secrets: tuple[tuple[str, str], ...]
    """Variables and the references under which the session's CLI finds their texts."""


async def prepare(
    spec: StepSpec, workspace: Workspace, known: Mapping[str, str], guards: Guards | None
) -> list[Prepared]:
    """Put sources and secrets of a step and its services where the session finds them, in the order of `spec.specs`.

    All of it has the step's time limit. `known`: the CLI's environment; `guards`: what breakers of git hosts are among.
    Raises StepFailed, BreakerOpen, NotFound and ProtocolError for an artifact.
    """
    until = fetching.due(spec)
    names = ("step", *(f"service-{one.name}" for one in spec.services))
    return [
        Prepared(
            tuple(
                [
                    await _placed(mount, f"{whose}-mount-{number}", workspace, guards, until)
                    for number, mount in enumerate(one.mounts)
                ]
            ),
            _secrets(one, workspace, known, whose),
        )
        for whose, one in zip(names, spec.specs, strict=True)
    ]


async def _placed(
    mount: Mount, name: str, workspace: Workspace, guards: Guards | None, until: float | None
) -> str:
    """Where the host has the source; a host of commits is asked under its breaker."""
    place = partial(fetching.place, mount, name, workspace, until)
    host = fetching.git_host(mount.source) if isinstance(mount.source, Git) else ""
    if guards is None or not host:
        return await place()
    return await guards.around([f"git:{host}"], place)


def _secrets(
    spec: StepSpec, workspace: Workspace, known: Mapping[str, str], whose: str
) -> tuple[tuple[str, str], ...]:
    secrets: list[tuple[str, str]] = []
    for number, secret in enumerate(spec.secrets):
        text = workspace.secret(secret)
        kind, _, name = secret.ref.partition("://")
        if kind == "env" and known.get(name) == text:
            secrets.append((secret.name, secret.ref))
            continue
        # The CLI does not have this text in its environment: a file of this run's own cannot be stale.
        file = workspace.directory / f"{whose}-secret-{number}"
        _write_private(file, text)
        secrets.append((secret.name, f"file://{file}"))
    return tuple(secrets)


def image_key(image: Image) -> tuple[str, ...] | None:
    """Under what a session remembers an image; None: read it again each time, since its files may have changed."""
    if image.kind == "registry":
        return ("registry", image.text)
    if image.kind == "oci":
        state = os.stat(image.text)  # noqa: PTH116 - spec holds text
        return ("oci", image.text, str(state.st_mtime_ns), str(state.st_size))
    return None


def base(client: dagger.Client, image: Image) -> dagger.Container:
    """The image. Files of the host are read again each time: a session would remember what it once saw."""
    if image.kind == "registry":
        return client.container().from_(image.text)
    if image.kind == "oci":
        return client.container().import_(client.host().file(image.text, no_cache=True))
    return client.container().with_rootfs(client.host().directory(image.text, no_cache=True))


def surround(
    client: dagger.Client, container: dagger.Container, spec: StepSpec, prepared: Prepared
) -> dagger.Container:
    """The container with directory, variables, secrets, mounts and caches."""
    import dagger

    if spec.directory is not None:
        container = container.with_workdir(spec.directory)
    for name, value in spec.environment:
        volatile = spec.reusable and is_volatile(name)
        add = container.with_volatile_variable if volatile else container.with_env_variable
        container = add(name, value)
    for name, ref in prepared.secrets:
        container = container.with_secret_variable(name, client.secret(ref))
    for mount, place in zip(spec.mounts, prepared.places, strict=True):
        if os.path.isdir(place):  # noqa: PTH112 - spec holds text
            source = client.host().directory(place, no_cache=True)
            container = container.with_mounted_directory(
                mount.path, source, read_only=mount.read_only
            )
        else:
            file = client.host().file(place, no_cache=True)
            container = container.with_mounted_file(mount.path, file)
    for cache in spec.caches:
        container = container.with_mounted_cache(
            cache.path,
            client.cache_volume(f"switchgear-{cache.name}"),
            sharing=dagger.CacheSharingMode[_SHARING[cache.sharing]],
        )
    return container


def execution(container: dagger.Container, spec: StepSpec, run: str) -> dagger.Container:
    """The container after the step. `run` differs each time: what ran is never taken for what an engine remembers."""
    # Without it the engine would answer a step that it has run before from its cache.
    add = container.with_volatile_variable if spec.reusable else container.with_env_variable
    command = ["sh", "-c", script.script(spec), script.mark(spec)]
    return add(RUN, run).with_exec(command, stdin=spec.input or "")


def service(container: dagger.Container, service: Service, run: str) -> dagger.Service:
    """The container as a service of this run alone: an engine would let equal ones share one process."""
    container = container.with_env_variable(RUN, run)
    for port in service.ports:
        container = container.with_exposed_port(port)
    if not service.spec.commands:
        return container.as_service(use_entrypoint=True)
    return container.as_service(args=argv(service))


async def export(
    container: dagger.Container,
    spec: StepSpec,
    kinds: Sequence[script.Kind],
    folder: Path,
    workspace: Workspace,
) -> dict[str, Path]:
    """Write the declared outputs below the folder. Raises StepFailed for one that is missing."""
    folder.mkdir()  # noqa: ASYNC240 - at once
    written: dict[str, Path] = {}
    for (name, path), kind in zip(spec.declared_outputs, kinds, strict=True):
        if kind == "missing":
            raise workspace.missing(name, path)
        target = folder / name
        if kind == "directory":
            # Without `wipe` files of an earlier export would stay.
            await container.directory(path).export(str(target), wipe=True)
        else:
            await container.file(path).export(str(target))
        written[name] = target
    return written


def resolved(spec: StepSpec, aliases: Mapping[str, str]) -> Image:
    """The image that a spec means here. Raises UsageError."""
    assert spec.image is not None
    return images.resolve(spec.image, aliases)


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text, "utf-8")
