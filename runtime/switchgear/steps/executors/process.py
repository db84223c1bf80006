"""Runs a step as a local process: clean environment, bounded output, nothing left behind.

Below the runner, which turns the outcome into a result or an error. Built on the event loop's own
subprocess transport: it reads both pipes as they fill (a full pipe never blocks the child) and can
be closed when an escaped child holds a pipe.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from msgspec import Struct

from switchgear.errors import StepFailed
from switchgear.steps import processes, result
from switchgear.steps.executor import Health, OnLine, Unsupported
from switchgear.steps.tail import Tail

if TYPE_CHECKING:
    from switchgear.steps.settings import StepSettings
    from switchgear.steps.spec import StepSpec
    from switchgear.steps.workspace import Workspace

INHERITED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "TZ", "VIRTUAL_ENV"})
"""Variables that a step inherits, beside LC_*: enough to find programs and write text, and no
credential among them."""

PRLIMIT = "prlimit"
"""The program of util-linux that starts another with limits."""

_DRAIN = 1.0
"""Seconds to wait for the rest of the output after the process has ended and its children were
killed."""


class Cannot(Exception):
    """The step cannot start as written: `what` is missing, `fix` names the cure."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class Outcome(Struct, frozen=True, kw_only=True):
    """How the process ended, whatever was expected of it."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: int
    duration: timedelta
    timed_out: bool


class _Pipes(asyncio.SubprocessProtocol):
    """Feeds both tails and tells the end of the process and of its pipes."""

    def __init__(self, limit: int, on_line: OnLine | None) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.tails = {
            1: Tail(limit, None if on_line is None else lambda line: on_line("stdout", line)),
            2: Tail(limit, None if on_line is None else lambda line: on_line("stderr", line)),
        }

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.tails[fd].feed(data)

    def process_exited(self) -> None:
        _done(self.exited)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - named by asyncio
        _done(self.closed)


async def execute(spec: StepSpec, *, on_line: OnLine | None = None) -> Outcome:
    """Run it to its end, or kill its tree at the time limit and on cancel. Raises `Cannot`."""
    mark = secrets.token_hex(8)
    environment = clean_environment(os.environ) | dict(spec.environment) | processes.marked(mark)
    argv = _argv(spec, environment)
    prlimit = None if spec.memory_limit is None else shutil.which(PRLIMIT)
    if prlimit is not None:
        # Set before the program starts, so that no child of it can be born without the limit.
        argv = [prlimit, f"--as={spec.memory_limit}", "--", *argv]
    loop = asyncio.get_running_loop()
    since, started = processes.clock_ticks(), loop.time()
    try:
        transport, pipes = await loop.subprocess_exec(
            lambda: _Pipes(spec.output_limit, on_line),
            *argv,
            stdin=subprocess.DEVNULL if spec.input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=spec.directory,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise Cannot(
            f"{spec.commands[0][0]} cannot be started: {error.strerror}",
            "check its rights and format",
        ) from error
    limit = None if spec.time_limit is None else spec.time_limit.total_seconds()
    timed_out = False
    try:
        if prlimit is None:
            _limit_memory(transport.get_pid(), spec.memory_limit)
        _write_input(transport, spec.input)
        async with asyncio.timeout(limit):
            await asyncio.shield(pipes.exited)
    except TimeoutError:
        timed_out = True
    finally:
        duration = loop.time() - started
        await _end(transport, pipes, mark, since)
    for tail in pipes.tails.values():
        tail.close()
    code = transport.get_returncode()
    return Outcome(
        exit_code=-9 if code is None else code,
        stdout=pipes.tails[1].text(),
        stderr=pipes.tails[2].text(),
        truncated=sum(tail.cut for tail in pipes.tails.values()),
        duration=timedelta(seconds=duration),
        timed_out=timed_out,
    )


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a step inherits of the agent's own environment."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith("LC_")
    }


async def _end(
    transport: asyncio.SubprocessTransport, pipes: _Pipes, mark: str, since: int
) -> None:
    """Kill what still runs, take the rest of the output, close the pipes."""
    pid = transport.get_pid()
    if not pipes.exited.done():
        # SIGKILL at once: a step must bear a sudden end anyway, and a cancel should not linger.
        processes.kill_group(pid)
    try:
        processes.kill_marked(pid, mark, since=since)
        # Reaped before close(), which else polls the child away under the loop's child watcher.
        await asyncio.shield(pipes.exited)
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                await asyncio.shield(pipes.closed)
    finally:
        transport.close()
        # The pipes close in callbacks: without this turn, a loop that ends now warns about them.
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                await asyncio.shield(pipes.closed)


def _argv(spec: StepSpec, environment: Mapping[str, str]) -> list[str]:
    """The command with its program found; raises `Cannot` for a missing program or directory."""
    if spec.directory is not None and not os.path.isdir(spec.directory):  # noqa: PTH112 - spec holds text
        raise Cannot(
            f"the working directory {spec.directory} does not exist",
            "create it, or change .workdir()",
        )
    name = spec.commands[0][0]
    here = spec.directory or "."
    found = (
        shutil.which(os.path.join(here, name))  # noqa: PTH118 - an absolute name replaces `here`
        if os.sep in name
        else shutil.which(name, path=environment.get("PATH", os.defpath))
    )
    if found is None:
        raise Cannot(
            f"the program {name} was not found",
            f"install {name}, or give its full path in command()",
        )
    return [os.path.abspath(found), *spec.commands[0][1:]]  # noqa: PTH100 - keeps symlinks of environments


def _limit_memory(pid: int, limit: int | None) -> None:
    """Set the limit from outside, where prlimit(1) is missing; a child born at once misses it."""
    set_limit = cast(
        "Callable[[int, int, tuple[int, int]], object] | None", getattr(resource, "prlimit", None)
    )
    if limit is not None and set_limit is not None:
        with suppress(ProcessLookupError, PermissionError):
            set_limit(pid, resource.RLIMIT_AS, (limit, limit))


def _write_input(transport: asyncio.SubprocessTransport, text: str | None) -> None:
    pipe = cast("asyncio.WriteTransport | None", transport.get_pipe_transport(0))
    if pipe is not None and text is not None:
        pipe.write(text.encode())
        pipe.write_eof()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class ProcessExecutor:
    """Runs steps as processes of this host."""

    name = "process"

    def __init__(self, settings: StepSettings) -> None:
        self._settings = settings

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        """What of the spec this executor cannot do."""
        del spec
        return None

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        """Nothing beside this host."""
        del spec
        return ()

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> result.Outcome:
        """Run it. Raises StepFailed."""
        try:
            outcome = await execute(spec, on_line=on_line)
        except Cannot as cannot:
            raise StepFailed(
                f"step {workspace.key} cannot run",
                key=workspace.key,
                error_class="invalid",
                why=cannot.what,
                fix=cannot.fix,
            ) from cannot
        code = outcome.exit_code
        return result.Outcome(
            exit_code=128 - code if code < 0 else code,
            stdout=outcome.stdout,
            stderr=outcome.stderr,
            truncated=outcome.truncated,
            duration=outcome.duration,
            timed_out=outcome.timed_out,
            executor=self.name,
            isolation="none",
        )

    async def health(self) -> Health:
        """Whether it could run something now."""
        return Health(ok=True)

    async def close(self) -> None:
        """Nothing is held."""
