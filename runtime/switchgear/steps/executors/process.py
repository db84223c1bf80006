"""Runs steps as processes of this host, each command in a sandbox of its own; without one only where settings allow.

Below the runner. What a step sees is arranged by `arranging`, what it mounts is fetched by `fetching`; `bubblewrap`
and `spawning` start it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from switchgear.errors import StepFailed
from switchgear.resilience.classes import RESOURCES
from switchgear.steps import (
    arranging,
    bubblewrap,
    caching,
    fetching,
    images,
    shortage,
    spawning,
)
from switchgear.steps.arranging import Cannot, Given
from switchgear.steps.executor import Health, Unsupported
from switchgear.steps.executors import process_services
from switchgear.steps.result import Limits, Outcome
from switchgear.steps.sandbox import Outside
from switchgear.steps.sources import Git
from switchgear.steps.workspace import forget_dead

if TYPE_CHECKING:
    from switchgear.contract.artifact import Artifact
    from switchgear.steps.arranging import Arranged
    from switchgear.steps.executor import OnLine
    from switchgear.steps.result import Isolation
    from switchgear.steps.settings import StepSettings
    from switchgear.steps.spec import StepSpec
    from switchgear.steps.workspace import Workspace

_MEMORY = "none" if sys.platform == "darwin" else "address-space"
_KILLED = 137
"""The exit code of what was killed."""
_PLAIN = "it ran without isolation"
_ASK_AGAIN = 30.0
"""Seconds after which a host that could make no sandbox is asked again."""


class _Ran(NamedTuple):
    code: int
    timed_out: bool
    starved: bool
    """Whether the kernel killed it for want of memory."""
    duration: timedelta


class ProcessExecutor:
    """Steps as local processes."""

    name = "process"

    def __init__(
        self,
        settings: StepSettings,
        *,
        environ: Mapping[str, str] | None = None,
        oom_kills: Callable[[], int] = shortage.oom_kills,
    ) -> None:
        """`environ`: what steps inherit the harmless part of; None: this process's.

        `oom_kills`: how often the kernel has killed for want of memory.
        """
        self._settings = settings
        self._oom_kills = oom_kills
        self._environ = os.environ if environ is None else environ
        self._probed: asyncio.Task[str] | None = None
        self._probed_at = 0.0

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        """Registry images and archives need an engine, and isolation what makes it."""
        lacking = process_services.lacking(spec) or next(
            filter(None, map(self._image, spec.specs)), None
        )
        if lacking is not None:
            return lacking
        if self._settings.isolation == "required" and bubblewrap.path() is None:
            return Unsupported(
                feature="isolation",
                why="bubblewrap is not installed",
                fix=f"{bubblewrap.INSTALL}, or set SWITCHGEAR_ISOLATION=preferred to run without",
            )
        plain = self._settings.isolation == "none" or bubblewrap.path() is None
        needed = arranging.needs_sandbox(spec) if plain else ""
        if needed:
            return Unsupported(
                feature=needed, why="it runs without a sandbox here", fix=bubblewrap.INSTALL
            )
        return None

    def _image(self, spec: StepSpec) -> Unsupported | None:
        if spec.image is None:
            return None
        image = images.resolve(spec.image, self._settings.aliases)
        if image.kind == "rootfs":
            return None
        return Unsupported(
            feature=f"the image {spec.image}",
            why="only an engine unpacks registry images and archives",
            fix="configure an engine for the dagger executor, or redirect the image to rootfs:PATH "
            "by SWITCHGEAR_IMAGE_ALIASES",
        )

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        """The hosts that commits come from, and what all processes of this one share."""
        return (*_git_hosts(spec), *RESOURCES)

    async def health(self) -> Health:
        """Whether it can isolate, where it must."""
        try:
            why = await self._no_sandbox()
        except (spawning.NotStarted, bubblewrap.NotRun) as error:
            return Health(ok=False, why=f"bwrap cannot be started: {error}")
        return Health(ok=not why or self._settings.isolation != "required", why=why)

    async def close(self) -> None:
        """Nothing is held."""

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        """Run it. Raises StepFailed, and what this host or the store of artifacts raises."""
        why_plain = await self._why_plain(workspace.key)
        if why_plain and on_line is not None and self._settings.isolation == "preferred":
            on_line("stderr", f"switchgear: {_PLAIN}: {why_plain}")
        secrets = {one.name: workspace.secret(one) for one in spec.secrets}
        streams = spawning.Streams(spec.output_limit, on_line, secrets.values())
        mounts = await fetching.places(spec, workspace, fetching.due(spec))
        async with (
            caching.opened(spec.caches, self._cache_root(), workspace) as caches,
            process_services.opened(spec, workspace, self._settings, self._environ) as beside,
        ):
            try:
                given = beside.joined(self._given(spec, workspace, mounts, caches, secrets))
                arrange = arranging.on_host if why_plain else arranging.in_sandbox
                arranged = arrange(spec, given)
                ran = await beside.during(self._run(spec, workspace, arranged, streams))
            except Cannot as cannot:
                raise _invalid(workspace.key, cannot.what, cannot.fix) from cannot
            expected = not ran.timed_out and ran.code in spec.exit_codes
            outputs = await self._outputs(spec, arranged, workspace) if expected else {}
            notes = (*arranged.notes, *(() if expected else await beside.ends()))
        isolation: Isolation = "none" if why_plain else "bubblewrap"
        if ran.starved:
            raise shortage.starved(workspace.key, ran.code, streams, isolation)
        return Outcome(
            exit_code=ran.code,
            stdout=streams.stdout,
            stderr=streams.stderr,
            truncated=streams.cut,
            duration=ran.duration,
            timed_out=ran.timed_out,
            outputs=outputs,
            executor=self.name,
            isolation=isolation,
            limits=Limits(
                memory="" if spec.memory_limit is None else _MEMORY,
                cpu="" if spec.cpu_limit is None else "cpu-time",
            ),
            notes=(f"{_PLAIN}: {why_plain}", *notes) if why_plain else notes,
        )

    # isolation

    async def _why_plain(self, key: str) -> str:
        """Why the step runs without a sandbox; empty where it has one. Raises StepFailed where it must have one."""
        if self._settings.isolation == "none":
            return "SWITCHGEAR_ISOLATION is none"
        why = await self._no_sandbox()
        if why and self._settings.isolation == "required":
            raise StepFailed(
                f"step {key} cannot be isolated",
                key=key,
                error_class="invalid",
                why=why,
                fix="let users of this host make user namespaces, or set SWITCHGEAR_ISOLATION=preferred to run without",
            )
        return why

    async def _no_sandbox(self) -> str:
        """Why this host makes no sandbox; asked once, and again after a while if there was a reason.

        Raises what the probe raises, and then asks again at once.
        """
        now = asyncio.get_running_loop().time()
        probed = self._probed
        if probed is not None and probed.done():
            broken = probed.cancelled() or probed.exception() is not None
            if broken or (probed.result() and now - self._probed_at > _ASK_AGAIN):
                probed = None
        if probed is None or probed.get_loop() is not asyncio.get_running_loop():
            await asyncio.to_thread(forget_dead)
            probed = self._probed = asyncio.create_task(bubblewrap.probe(), name="probe")
            self._probed_at = now
        return await asyncio.shield(probed)

    # preparing

    def _given(
        self,
        spec: StepSpec,
        workspace: Workspace,
        mounts: Mapping[str, str],
        caches: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> Given:
        rootfs = None
        if spec.image is not None:
            rootfs = images.resolve(spec.image, self._settings.aliases).text
        scratch, temporary = workspace.directory / "work", workspace.directory / "tmp"
        scratch.mkdir()
        temporary.mkdir()
        return Given(
            rootfs,
            mounts,
            caches,
            str(scratch),
            str(temporary),
            secrets,
            self._environ,
            self._settings.shown,
        )

    def _cache_root(self) -> Path:
        base = self._settings.caches or os.path.expanduser("~/.cache")  # noqa: PTH111 - text in, text out
        return Path(base) / "switchgear" / "steps"

    # running

    async def _run(
        self,
        spec: StepSpec,
        workspace: Workspace,
        arranged: Arranged,
        streams: spawning.Streams,
    ) -> _Ran:
        """Run the commands up to the first unexpected exit, or the time limit."""
        loop = asyncio.get_running_loop()
        limit = None if spec.time_limit is None else spec.time_limit.total_seconds()
        started, code, timed_out = loop.time(), _KILLED, False
        last = len(arranged.argvs) - 1
        oom_kills = self._oom_kills()
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                for number, argv in enumerate(arranged.argvs):
                    stdin = spec.input if number == last else None
                    code = await self._command(spec, workspace, arranged, argv, stdin, streams)
                    if code not in spec.exit_codes:
                        break
        except TimeoutError:
            if not timer.expired():
                raise
            code, timed_out = _KILLED, True
        streams.close()
        killed = code == _KILLED and not timed_out and code not in spec.exit_codes
        starved = killed and self._oom_kills() > oom_kills
        return _Ran(code, timed_out, starved, timedelta(seconds=loop.time() - started))

    async def _command(
        self,
        spec: StepSpec,
        workspace: Workspace,
        arranged: Arranged,
        argv: Sequence[str],
        stdin: str | None,
        streams: spawning.Streams,
    ) -> int:
        rlimits = spawning.rlimits(spec)
        before, workspace.in_doubt = workspace.in_doubt, True
        try:
            if arranged.sandbox is not None:
                job = bubblewrap.Job(arranged.sandbox, argv, stdin, rlimits)
                return await bubblewrap.run(job, streams)
            program = spawning.Program(
                argv, arranged.environment, arranged.directory, stdin, rlimits
            )
            code = await spawning.run(program, streams)
        except spawning.NotStarted as error:
            workspace.in_doubt = before
            raise Cannot(
                f"{argv[0]} cannot be started: {error}", "check its rights and format"
            ) from error
        except bubblewrap.NotRun as error:
            workspace.in_doubt = before
            raise Cannot(
                f"{argv[0]} cannot be started in its sandbox: {error}",
                "check the program, the mounts and the working directory",
            ) from error
        return 128 - code if code < 0 else code

    async def _outputs(
        self, spec: StepSpec, arranged: Arranged, workspace: Workspace
    ) -> dict[str, Artifact]:
        kept: dict[str, Artifact] = {}
        for name, path in spec.declared_outputs:
            try:
                file = arranging.host_file(arranged, path)
            except Outside as outside:
                raise _invalid(
                    workspace.key,
                    f"output {name} cannot be kept: {outside}",
                    "write it below the working directory, /tmp, or a mount that may be written",
                ) from outside
            if not os.path.lexists(file):  # noqa: ASYNC240 - one look
                raise workspace.missing(name, path)
            kept[name] = await workspace.keep(name, file)
        return kept


def _git_hosts(spec: StepSpec) -> list[str]:
    mounts = (mount for one in spec.specs for mount in one.mounts)
    hosts = {fetching.git_host(one.source) for one in mounts if isinstance(one.source, Git)}
    return [f"git:{host}" for host in sorted(hosts - {""})]


def _invalid(key: str, why: str, fix: str) -> StepFailed:
    return StepFailed(f"step {key} cannot run", key=key, error_class="invalid", why=why, fix=fix)
