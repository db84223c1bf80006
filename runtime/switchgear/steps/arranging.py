"""What a step of the process executor sees and runs: a sandbox, or the host as it is.

Reads the host's file system and starts nothing. Above: the process executor. Below: `sandbox`, `host`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from switchgear.steps import host
from switchgear.steps.sandbox import SCRATCH, TEMPORARY, Operation, Sandbox, Show, shown

if TYPE_CHECKING:
    from switchgear.steps.spec import StepSpec


class Cannot(Exception):
    """The step cannot start as written: `what` is missing, `fix` names the cure."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class Given(NamedTuple):
    """What the executor has prepared for a spec."""

    rootfs: str | None
    """The image's files; None: the host's programs."""
    mounts: Mapping[str, str]
    """Path inside -> where the host has it, of the spec's mounts."""
    caches: Mapping[str, str]
    """The same of its caches."""
    scratch: str
    """An empty directory for where the step starts."""
    temporary: str
    """An empty directory for its temporary files."""
    secrets: Mapping[str, str]
    """Variables and their texts."""
    environ: Mapping[str, str]
    """The agent's own environment."""
    shown: Sequence[str] = ()
    """Paths of the host that settings show to every step."""
    hosts: str = ""
    """A file that gives the names of services; empty: there are none."""
    entering: Sequence[str] = ()
    """What takes it into the network of its services."""


class Arranged(NamedTuple):
    """What is run, and where."""

    argvs: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    directory: str
    sandbox: Sandbox | None = None
    notes: tuple[str, ...] = ()


def in_sandbox(spec: StepSpec, given: Given) -> Arranged:
    """In a sandbox. Raises Cannot."""
    mounts = _mounts(spec, given)
    mounts += [Show(path, path) for path in _more(given, mounts)]
    mounts += [Show(_HOSTS, given.hosts)] if given.hosts else []
    directory, own = _directory(spec, given, mounts)
    places = [one.path for one in (*mounts, *own)]
    environment = _environment(spec, given)
    if given.rootfs is None:
        base = host.system(places, networked=spec.networked)
    else:
        base = _rootfs(given.rootfs, [*places, *_RESOLVING] if spec.networked else places)
        base += [
            Show(path, real)
            for path in _RESOLVING
            if spec.networked and os.path.exists(real := os.path.realpath(path))  # noqa: PTH110
        ]
    writable = [Show(TEMPORARY, given.temporary, writable=True)]
    upper: list[Operation] = [*mounts, *own]
    argvs: list[Sequence[str]] = []
    for command in spec.commands:
        argv = command
        if given.rootfs is None:
            argv = _found(spec, command, environment, directory, [*base, *upper])
            _refuse_shim(argv[0], [*base, *upper])
            upper += host.program_files(argv[0], [*base, *upper])
        argvs.append(argv)
    upper = _opened(sorted(upper, key=lambda one: one.path), places)
    operations = [*base, *writable, *upper]
    sandbox = Sandbox(
        operations=operations,
        environment=environment,
        directory=directory,
        networked=spec.networked,
        root=given.rootfs is not None,
        entering=given.entering,
    )
    own = {given.scratch, given.temporary}
    seen = [one for one in _shows(operations) if one.host not in own]
    notes = _unseen(spec, seen) if given.rootfs is None else ()
    return Arranged(argvs, environment, directory, sandbox, notes)


def on_host(spec: StepSpec, given: Given) -> Arranged:
    """Without a sandbox, as far as that goes. Raises Cannot."""
    lacking = needs_sandbox(spec)
    if lacking:
        raise Cannot(f"without a sandbox it cannot have {lacking}", "install bubblewrap")
    directory = given.scratch if spec.directory is None else os.path.abspath(spec.directory)  # noqa: PTH100
    if not os.path.isdir(directory):  # noqa: PTH112 - spec holds text
        raise _no_directory(directory)
    environment = {
        **host.clean_environment(given.environ),
        **dict(spec.environment),
        **given.secrets,
    }
    argvs = [_found(spec, command, environment, directory, ()) for command in spec.commands]
    notes = tuple(
        f"{one.path} was not kept from being written" for one in spec.mounts if one.read_only
    )
    if not spec.networked:
        notes += ("the network was not cut off",)
    return Arranged(argvs, environment, directory, notes=notes)


def needs_sandbox(spec: StepSpec) -> str:
    """What of the spec only a sandbox can give; empty for nothing."""
    if spec.image is not None:
        return "an image"
    if spec.services:
        return "a service"
    if spec.caches:
        return "a cache"
    moved = [one.path for one in spec.mounts if getattr(one.source, "path", None) != one.path]
    return f"a mount at {moved[0]}" if moved else ""


_HOSTS = "/etc/hosts"
_RESOLVING = ("/etc/resolv.conf", _HOSTS)
"""What an image's programs need of the host to resolve names."""
_READ_ONLY = ("/usr", "/etc", "/opt", "/nix", "/gnu", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_OURS = ("/proc", "/dev", "/sys", "/run")


def _mounts(spec: StepSpec, given: Given) -> list[Show]:
    writable = {one.path for one in spec.mounts if not one.read_only}
    mounts = [Show(path, real, path in writable) for path, real in given.mounts.items()]
    return mounts + [Show(path, real, writable=True) for path, real in given.caches.items()]


def _more(given: Given, mounts: Sequence[Show]) -> list[str]:
    """What settings show beside the spec's mounts."""
    taken = {one.path for one in mounts}
    return [path for path in given.shown if path not in taken and os.path.isdir(path)]  # noqa: PTH112


def _directory(spec: StepSpec, given: Given, mounts: Sequence[Show]) -> tuple[str, list[Show]]:
    """Where the step starts, and what is shown there if no mount is."""
    directory = SCRATCH if spec.directory is None else os.path.abspath(spec.directory)  # noqa: PTH100
    if any(_within(directory, one.path) for one in mounts):
        return directory, []
    if spec.directory is None:
        return directory, [Show(directory, given.scratch, writable=True)]
    if given.rootfs is not None:
        exists = os.path.isdir(given.rootfs + directory)  # noqa: PTH112 - as below
        return directory, [] if exists else [Show(directory, given.scratch, writable=True)]
    if not os.path.isdir(directory):  # noqa: PTH112 - spec holds text
        raise _no_directory(directory)
    if directory == "/" or any(_within(directory, one) for one in (*_READ_ONLY, *_OURS)):
        return directory, []
    if _within(directory, TEMPORARY) and directory == TEMPORARY:
        return directory, []
    return directory, [Show(directory, directory, writable=True)]


def _environment(spec: StepSpec, given: Given) -> dict[str, str]:
    on_host = given.rootfs is None
    kept = host.clean_environment(given.environ) if on_host else {"PATH": host.IMAGE_PATH}
    own = {"HOME": TEMPORARY, "TMPDIR": TEMPORARY}
    return {**kept, **own, **dict(spec.environment), **given.secrets}


def _rootfs(rootfs: str, places: Iterable[str]) -> list[Operation]:
    if not os.path.isdir(rootfs):  # noqa: PTH112 - spec holds text
        raise Cannot(
            f"the root filesystem {rootfs} does not exist", "create it, or change the image"
        )
    return shown(rootfs.rstrip("/"), "/", places)


def _opened(upper: Iterable[Operation], places: Iterable[str]) -> list[Operation]:
    """With room for each other, where one that may not be written holds another."""
    operations: list[Operation] = []
    for one in upper:
        if isinstance(one, Show) and not one.writable and os.path.isdir(one.host):  # noqa: PTH112
            operations += shown(one.host, one.path, places)
        else:
            operations.append(one)
    return operations


def _found(
    spec: StepSpec,
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: str,
    operations: Sequence[Operation],
) -> Sequence[str]:
    """The command with its program found on the host, unless it is something that only the sandbox has."""
    name = command[0]
    if os.sep in name:
        # An absolute name replaces the directory; links of virtual environments are kept.
        path = os.path.abspath(os.path.join(directory, name))  # noqa: PTH100, PTH118 - as above
        if any(_within(path, one.path) and one.path != one.host for one in _shows(operations)):
            return [path, *command[1:]]
        found = shutil.which(path)
    else:
        found = shutil.which(name, path=environment.get("PATH", os.defpath))
        if found is None and spec.mounts and operations:
            return command
    if found is None:
        raise Cannot(
            f"the program {name} was not found",
            f"install {name}, or give its full path in command()",
        )
    return [os.path.abspath(found), *command[1:]]  # noqa: PTH100 - keeps links


def _refuse_shim(program: str, operations: Iterable[Operation]) -> None:
    """A shim would end with exit code 127, and a word about a program that nobody named. Raises Cannot."""
    tree = host.manager_tree(program, operations)
    if tree:
        raise Cannot(
            f"{program} is a shim of a version manager, whose programs the sandbox does not show",
            f"name the program itself in command(), or set SWITCHGEAR_SANDBOX_PATHS={tree}",
        )


def _unseen(spec: StepSpec, covered: Sequence[Show]) -> tuple[str, ...]:
    """Notes on paths of the host among the arguments that the sandbox does not show."""
    named = {
        arg
        for command in spec.commands
        for arg in command[1:]
        if arg.startswith("/") and os.path.exists(arg)  # noqa: PTH110 - spec holds text
    }
    return tuple(
        f"{path} of the host is not shown inside: .mount() what the step needs"
        for path in sorted(named)
        if path != "/" and not any(_within(path, one) for one in _OURS)
        and not any(_within(path, one.path) or _within(one.path, path) for one in covered)
    )  # fmt: skip


def _shows(operations: Iterable[Operation]) -> list[Show]:
    return [one for one in operations if isinstance(one, Show)]


def _within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent.rstrip('/')}/")


def _no_directory(directory: str) -> Cannot:
    return Cannot(
        f"the working directory {directory} does not exist", "create it, or change .workdir()"
    )


def host_file(arranged: Arranged, path: str) -> Path:
    """Where the host finds an output of the step. Raises sandbox.Outside."""
    from switchgear.steps import sandbox

    inside = os.path.normpath(os.path.join(arranged.directory, path))  # noqa: PTH118 - text in, text out
    if arranged.sandbox is None:
        return Path(inside)
    return sandbox.host_path(arranged.sandbox.operations, inside)
