"""A service as a process behind a link of its own: started, kept running, and harmed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from pathlib import Path

from switchgear.crashpoint import VARIABLE
from switchgear.server.embedded import TIED_TO_PARENT
from tests.faults.tools.clocks import FakeClock
from tests.faults.tools.proxy import FaultProxy

ROOT = Path(__file__).parents[3]
PAUSE = 0.3
"""Seconds before a service that could not start is started again."""
SOON = 30.0
"""Seconds for a process that was killed to be gone."""


class Service:
    """One service. Whenever its process ends it is started again, until `stop`."""

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        log: Path,
        link: FaultProxy,
        *,
        environment: dict[str, str],
        clock: FakeClock | None = None,
        crash_at: str = "",
    ) -> None:
        """`command` is what Python is to run; its first process dies at the crash point named."""
        self.name = name
        self.link = link
        self.clock = clock
        self.log = log
        self.starts = 0
        self.crash_points: list[str] = []
        """Those at which it died."""
        self.ends: list[int] = []
        """Exit codes of processes that nobody killed."""
        self._command = command
        self._environment = environment
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._killed = False
        self._away = 0.0
        self._crash_at = crash_at

    @property
    def pid(self) -> int:
        """Of its process; 0 while it has none."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else 0

    def start(self) -> None:
        """Keep it running from now on."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def says(self, text: str, seconds: float) -> None:
        """Wait until this stands in its log. Raises AssertionError with what does."""
        try:
            async with asyncio.timeout(seconds):
                while text not in self.output():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            said = self.output()[-2000:]
            raise AssertionError(f"{self.name} does not say {text!r}:\n{said}") from None

    def output(self) -> str:
        """All that its processes have written."""
        if not self.log.exists():
            return ""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self, *, away: float = 0.0, crash_at: str = "") -> bool:
        """SIGKILL; its next process comes after `away` seconds, and dies at the crash point named.

        False where there is nothing to kill.
        """
        if not self.pid:
            return False
        self._killed, self._away, self._crash_at = True, away, crash_at
        self._tell(signal.SIGKILL)
        return True

    def freeze(self) -> bool:
        """SIGSTOP."""
        return self._tell(signal.SIGSTOP)

    def thaw(self) -> bool:
        """SIGCONT."""
        return self._tell(signal.SIGCONT)

    def memory(self) -> int:
        """Bytes that its process occupies; 0 while it has none."""
        return resident(self.pid)

    async def stop(self) -> None:
        """End its process for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._tell(signal.SIGKILL)
        if self._process is not None:
            await asyncio.wait_for(self._process.wait(), SOON)
            self._forget(self._process.pid)

    def _tell(self, number: signal.Signals) -> bool:
        if not self.pid or self._process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True

    async def _keep(self) -> None:
        while True:
            crash_at, self._crash_at, self._killed, self._away = self._crash_at, "", False, 0.0
            process = self._process = await self._spawn(crash_at)
            code = await process.wait()
            self._forget(process.pid)
            if not self._killed:
                if crash_at and code == -signal.SIGKILL:
                    self.crash_points.append(crash_at.partition(":")[0])
                else:
                    self.ends.append(code)
                    await asyncio.sleep(PAUSE)
            await asyncio.sleep(self._away)

    async def _spawn(self, crash_at: str) -> Process:
        self.starts += 1
        environment = {**os.environ, **self._environment}
        if self.clock is not None:
            environment |= self.clock.environment()
        if crash_at:
            environment[VARIABLE] = crash_at
        tied: list[str] = []
        if sys.platform == "linux":  # they must not outlive whoever runs the schedule
            tied = [sys.executable, "-I", "-S", "-c", TIED_TO_PARENT, str(os.getpid())]
        with self.log.open("ab") as file:
            return await create_subprocess_exec(
                *tied, sys.executable, *self._command, cwd=ROOT, env=environment,
                stdin=DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip

    def _forget(self, pid: int) -> None:
        if self.clock is not None:
            self.clock.forget(pid)


def resident(pid: int) -> int:
    """Bytes of memory that a process occupies; 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")
