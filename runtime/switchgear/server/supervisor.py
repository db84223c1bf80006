"""Keeps programs running as child processes: logged, restarted when they crash, never left behind.

Above: `cli` (`switchgear dev`, `switchgear demo`). Below: only `steps.processes`, which finds what a program
started in turn. A program that ends with exit code 0 meant to; one that cannot work as written (exit code 2) is
not tried again; any other end is a crash. On Linux the kernel ends the programs when this process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from switchgear.server.embedded import TIED_TO_PARENT
from switchgear.steps import processes

USAGE: Final = 2
"""Exit code of a program that would fail the same way again."""
HEALTHY: Final = timedelta(seconds=30)
"""A program that ran this long begins again with the shortest pause."""
MAX_LOG: Final = 16 * 1024 * 1024
"""Bytes after which a log is put aside as `.1` when its program starts anew."""
_LINE: Final = 8192
"""Bytes of one line that are shown; a log keeps everything."""
_DRAIN: Final = 0.5
"""Seconds to read on after a program ended, in case one of its children holds the pipe."""

State = Literal["starting", "running", "pausing", "ended", "refused"]
"""`ended`: by its own wish or ours; `refused`: it cannot work as written."""


class Program(NamedTuple):
    """What to run."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    """Added to our own."""


class Backoff(NamedTuple):
    """How long a crashed program pauses before it is started again."""

    first: timedelta = timedelta(milliseconds=500)
    factor: float = 2.0
    longest: timedelta = timedelta(seconds=30)

    def pause(self, crashes: int) -> timedelta:
        """The pause after so many crashes in a row, from 1."""
        seconds = self.first.total_seconds() * self.factor ** min(crashes - 1, 20)
        return min(timedelta(seconds=seconds), self.longest)


@dataclass(slots=True)
class Child:
    """A program and how it is doing."""

    program: Program
    mark: str
    """In the environment of every process that the program starts."""
    state: State = "starting"
    pid: int = 0
    """Of the current or last process."""
    restarts: int = 0
    exit_code: int | None = None
    """Of the last process; negative for a signal."""
    stopping: bool = False
    last_words: str = ""
    """Its last line of output."""
    task: asyncio.Task[None] | None = None


class _Output(asyncio.SubprocessProtocol):
    """Takes a process's output, and tells its end at once: streams of asyncio wait for whoever holds the pipe."""

    def __init__(self, log: IO[bytes], heard: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._log = log
        self._heard = heard
        self._rest = b""

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - named by asyncio
        self._log.write(data)
        self._log.flush()
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LINE:]
        for line in lines:
            self._tell(line)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - named by asyncio
        if not self.closed.done():
            self.closed.set_result(None)

    async def close(self, transport: asyncio.SubprocessTransport) -> None:
        """Take the rest of the output, for a moment only, and let go of the pipe."""
        await asyncio.wait((self.closed,), timeout=_DRAIN)
        transport.close()
        # The pipe closes in callbacks: without this turn, a loop that ends now warns about it.
        await asyncio.wait((self.closed,), timeout=_DRAIN)
        if self._rest:
            self._tell(self._rest)

    def _tell(self, line: bytes) -> None:
        self._heard(line[:_LINE].decode(errors="replace").rstrip())


class Supervisor:
    """The programs of one mesh. `start` each, then `stop` them."""

    def __init__(
        self,
        logs: Path,
        *,
        heard: Callable[[str, str], None],
        changed: Callable[[], None] = lambda: None,
        backoff: Backoff = Backoff(),  # noqa: B008  # immutable
    ) -> None:
        """`heard` gets each line with the program's name; `changed` is called when a child's state changes."""
        self.children: dict[str, Child] = {}
        self._logs = logs
        self._heard = heard
        self._changed = changed
        self._backoff = backoff
        self._since = processes.clock_ticks()
        self._hurry = asyncio.Event()

    def start(self, program: Program) -> None:
        """Run the program from now on. It is up when `state` is `running`."""
        child = Child(program, secrets.token_hex(8))
        self.children[program.name] = child
        child.task = asyncio.create_task(self._keep(child), name=f"keep-{program.name}")

    def log_path(self, name: str) -> Path:
        """Where a program's output is kept."""
        return self._logs / f"{name}.log"

    async def stop(self, names: Collection[str], patience: timedelta) -> None:
        """SIGTERM to these programs, and after `patience` (or `hurry`) SIGKILL to all that is left of them."""
        chosen = [child for name, child in self.children.items() if name in names]
        for child in chosen:
            child.stopping = True
            if child.state == "running":
                _signal(child.pid, signal.SIGTERM)
            elif child.state == "pausing" and child.task is not None:
                child.task.cancel()
        tasks = [child.task for child in chosen if child.task is not None]
        if tasks:
            hurry = asyncio.create_task(self._hurry.wait())
            ended = asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait(
                (hurry, ended),
                timeout=patience.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurry.cancel()
            for child in chosen:
                if child.state == "running":
                    _signal(child.pid, signal.SIGKILL)
            await ended
        for child in chosen:
            self._clean(child)

    def hurry(self) -> None:
        """Do not wait for anybody any more."""
        self._hurry.set()

    async def _keep(self, child: Child) -> None:
        """Run the program again and again, until it meant to end."""
        crashes = 0
        loop = asyncio.get_running_loop()
        try:
            while not child.stopping:
                started = loop.time()
                child.exit_code = code = await self._run(child)
                if child.stopping or code in (0, USAGE):
                    break
                lived = timedelta(seconds=loop.time() - started)
                crashes = 1 if lived > HEALTHY else crashes + 1
                pause = self._backoff.pause(crashes)
                seconds = f"{pause.total_seconds():g} s"
                self._heard("dev", f"{child.program.name} {ending(code)}; again in {seconds}")
                self._become(child, "pausing")
                await asyncio.sleep(pause.total_seconds())
                child.restarts += 1
        except asyncio.CancelledError:
            if not child.stopping:
                raise
        finally:
            refused = child.exit_code == USAGE and not child.stopping
            self._become(child, "refused" if refused else "ended")

    async def _run(self, child: Child) -> int:
        """One process of the program, from its start to its end; returns the exit code."""
        loop = asyncio.get_running_loop()
        with self._open_log(child.program.name) as log:
            transport, output = await loop.subprocess_exec(
                lambda: _Output(log, lambda line: self._line(child, line)),
                *_tied(child.program.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **child.program.environment, **processes.marked(child.mark)},
                # Ctrl-C in a terminal must reach us only: agents drain before their server goes.
                start_new_session=True,
            )
            child.pid = transport.get_pid()
            self._become(child, "running")
            try:
                if child.stopping:
                    _signal(child.pid, signal.SIGTERM)
                await asyncio.shield(output.exited)
            finally:
                if not output.exited.done():
                    _signal(child.pid, signal.SIGKILL)
                    await asyncio.shield(output.exited)
                self._clean(child)
                await output.close(transport)
        code = transport.get_returncode()
        return -signal.SIGKILL if code is None else code

    def _line(self, child: Child, text: str) -> None:
        child.last_words = text or child.last_words
        self._heard(child.program.name, text)

    def _open_log(self, name: str) -> IO[bytes]:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.log_path(name)
        if path.exists() and path.stat().st_size > MAX_LOG:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _clean(self, child: Child) -> None:
        """Kill what the program started and left."""
        if child.pid:
            processes.kill_marked(child.pid, child.mark, since=self._since)

    def _become(self, child: Child, state: State) -> None:
        if child.state != state:
            child.state = state
            self._changed()


def ending(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _tied(command: tuple[str, ...]) -> list[str]:
    """The command, ended by the kernel when this process dies; only Linux offers that."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", TIED_TO_PARENT, str(os.getpid()), *command]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
