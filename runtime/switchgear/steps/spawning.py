"""Runs one program to its end: bounded output, and nothing left behind when the call is left, however it is.

Below the process executor. Built on the event loop's own subprocess transport: it reads both pipes as they fill (a
full pipe never blocks the child) and can be closed when an escaped child holds a pipe.
"""

from __future__ import annotations

import asyncio
import math
import resource
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from switchgear.steps import processes
from switchgear.steps.masking import Mask
from switchgear.steps.tail import Tail

if TYPE_CHECKING:
    from switchgear.steps.executor import OnLine
    from switchgear.steps.spec import StepSpec

PRLIMIT = "prlimit"
"""The program of util-linux that starts another with limits."""

_DRAIN = 1.0
"""Seconds to wait for the rest of the output after the process has ended and its children were
killed."""


class NotStarted(Exception):
    """The program could not be started; the text says why."""


class Rlimit(NamedTuple):
    """A limit that children inherit."""

    name: str
    """As prlimit(1) calls it: `as`, `cpu`, `fsize`, `nofile`."""
    soft: int
    hard: int


_RLIMITS = {
    "as": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "fsize": resource.RLIMIT_FSIZE,
    "nofile": resource.RLIMIT_NOFILE,
}


def rlimits(spec: StepSpec) -> list[Rlimit]:
    """The limits of a spec, of which each of its processes has its own."""
    limits: list[Rlimit] = []
    if spec.memory_limit is not None:
        limits.append(Rlimit("as", spec.memory_limit, spec.memory_limit))
    if spec.cpu_limit is not None:
        seconds = math.ceil(spec.cpu_limit.total_seconds())
        # The soft limit's own signal tells why; at the hard one the kernel only kills.
        limits.append(Rlimit("cpu", seconds, seconds + 1))
    if spec.file_limit is not None:
        limits.append(Rlimit("fsize", spec.file_limit, spec.file_limit))
    if spec.open_limit is not None:
        limits.append(Rlimit("nofile", spec.open_limit, spec.open_limit))
    return limits


class Program(NamedTuple):
    """What to start."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    stdin: str | None = None
    limits: Sequence[Rlimit] = ()
    fds: Sequence[int] = ()
    """Open files that it inherits under the same numbers."""
    hunted: bool = True
    """Whether what left its session is looked for after a good end too; not needed where a sandbox ends with it."""


class Streams:
    """The output of a step's programs: the last bytes of each stream, without the texts of secrets."""

    def __init__(self, limit: int, on_line: OnLine | None, masked: Iterable[str] = ()) -> None:
        masked = list(masked)
        self.masks = {1: Mask(masked), 2: Mask(masked)}
        self.tails = {
            1: Tail(limit, None if on_line is None else lambda line: on_line("stdout", line)),
            2: Tail(limit, None if on_line is None else lambda line: on_line("stderr", line)),
        }

    def feed(self, fd: int, data: bytes) -> None:
        """The next bytes of stream 1 or 2."""
        self.tails[fd].feed(self.masks[fd].feed(data))

    def close(self) -> None:
        """Nothing more comes."""
        for fd, tail in self.tails.items():
            tail.feed(self.masks[fd].close())
            tail.close()

    @property
    def stdout(self) -> str:
        """The end of the standard output."""
        return self.tails[1].text()

    @property
    def stderr(self) -> str:
        """The end of the error output."""
        return self.tails[2].text()

    @property
    def cut(self) -> int:
        """Bytes that were not kept."""
        return sum(tail.cut for tail in self.tails.values())


class _Pipes(asyncio.SubprocessProtocol):
    """Feeds the streams and tells the end of the process and of its pipes."""

    def __init__(self, streams: Streams) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._streams = streams

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._streams.feed(fd, data)

    def process_exited(self) -> None:
        _done(self.exited)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - named by asyncio
        _done(self.closed)


async def run(program: Program, streams: Streams) -> int:
    """Its exit code: 0 to 255, or minus the signal that killed it. Left early, its whole tree is killed.

    Raises NotStarted.
    """
    mark = secrets.token_hex(8)
    loop = asyncio.get_running_loop()
    since = processes.clock_ticks()
    try:
        transport, pipes = await loop.subprocess_exec(
            lambda: _Pipes(streams),
            *_limited(program),
            stdin=subprocess.DEVNULL if program.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=program.cwd,
            env={**program.env, **processes.marked(mark)},
            start_new_session=True,
            pass_fds=program.fds,
        )
    except (OSError, ValueError) as error:
        raise NotStarted(getattr(error, "strerror", None) or str(error)) from error
    try:
        _write_input(transport, program.stdin)
        await asyncio.shield(pipes.exited)
    finally:
        await _end(transport, pipes, mark, since, hunted=program.hunted)
    code = transport.get_returncode()
    return -9 if code is None else code


async def _end(
    transport: asyncio.SubprocessTransport, pipes: _Pipes, mark: str, since: int, *, hunted: bool
) -> None:
    """Kill what still runs, take the rest of the output, close the pipes."""
    pid = transport.get_pid()
    running = not pipes.exited.done()
    if running:
        # SIGKILL at once: a step must bear a sudden end anyway, and a cancel should not linger.
        processes.kill_group(pid)
    try:
        if running or hunted:
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


def _limited(program: Program) -> list[str]:
    """The command line that sets the limits before the program begins: no child of it can be born without them."""
    if not program.limits:
        return list(program.argv)
    prlimit = shutil.which(PRLIMIT)
    if prlimit is not None:
        options = [f"--{one.name}={one.soft}:{one.hard}" for one in program.limits]
        return [prlimit, *options, "--", *program.argv]
    given = [f"{_RLIMITS[one.name]}:{one.soft}:{one.hard}" for one in program.limits]
    return [sys.executable, "-I", "-S", "-c", _LIMITER, str(len(given)), *given, *program.argv]


_LIMITER = """
import os, resource, sys
count = int(sys.argv[1])
for one in sys.argv[2 : 2 + count]:
    kind, soft, hard = map(int, one.split(":"))
    try:
        resource.setrlimit(kind, (soft, hard))
    except (ValueError, OSError):
        pass
os.execvp(sys.argv[2 + count], sys.argv[2 + count :])
"""
"""Does what prlimit(1) does, slower; a limit that the system does not have is left out."""


def _write_input(transport: asyncio.SubprocessTransport, text: str | None) -> None:
    pipe = cast("asyncio.WriteTransport | None", transport.get_pipe_transport(0))
    if pipe is not None and text is not None:
        pipe.write(text.encode())
        pipe.write_eof()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
