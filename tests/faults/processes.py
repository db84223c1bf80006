"""Real processes, started here and ended by their ids, and the gate at which their handlers wait."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from pathlib import Path
from typing import Any, Self

from nats.aio.msg import Msg

from tests.integration.spine.rawwriter import connected
from tests.patience import PATIENCE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AGENT = HERE / "programs" / "agent.py"
CRASHING = HERE / "programs" / "crashing.py"


class Child:
    """One process, its output in a file."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def says(self, text: str) -> None:
        """Wait until this stands in its output."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.output():
                assert self._process.returncode is None, self.output()
                await asyncio.sleep(0.01)

    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def end(self) -> None:
        """Kill it if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Children:
    """The processes of one test; all are gone at its end."""

    def __init__(self, url: str, logs: Path) -> None:
        self._url = url
        self._logs = logs
        self._all: list[Child] = []

    async def agent(self, name: str = "worker", kind: str = "plain", **seconds: float) -> Child:
        """An agent; `seconds` are times of its WorkerSettings."""
        options = [f"{option}={value}" for option, value in seconds.items()]
        return await self._start(str(AGENT), self._url, name, kind, *options)

    async def watched(self, name: str, **seconds: float) -> Child:
        """An agent as `switchgear agent run` starts it, with a process that watches it."""
        options = [f"{option}={value}" for option, value in seconds.items()]
        return await self._start(str(CRASHING), self._url, name, *options)

    async def coordinator(self) -> Child:
        """A coordinator, by the command that users start."""
        child = await self._start("-m", "switchgear.cli", "coordinator")
        await child.says("coordinator.ready")
        return child

    async def _start(self, *arguments: str) -> Child:
        log = self._logs / f"child-{len(self._all)}.log"
        environment = {
            **os.environ,
            "SWITCHGEAR_URL": self._url,
            "XDG_CONFIG_HOME": str(self._logs),
        }
        with log.open("wb") as file:
            process = await create_subprocess_exec(
                sys.executable, *arguments, cwd=ROOT, env=environment,
                stdin=DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        child = Child(process, log)
        self._all.append(child)
        return child

    async def end(self) -> None:
        """Kill those that still run."""
        await asyncio.gather(*(child.end() for child in self._all))


class Gate:
    """Hears who runs what, and lets them go on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: list[Msg] = []
        self._changed = asyncio.Event()
        self.entered: list[tuple[int, str]] = []
        """Process id and input of each execution."""
        self.is_open = False

    async def __aenter__(self) -> Self:
        """Listen."""
        self._client = await connected(self._url)
        subscriber: Any = self._client
        await subscriber.subscribe("test.gate", cb=self._heard)
        await self._client.flush()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Listen no more."""
        await self._client.close()

    async def _heard(self, message: Msg) -> None:
        pid, _, text = message.data.decode().partition(" ")
        self.entered.append((int(pid), text))
        self._changed.set()
        if self.is_open:
            await message.respond(b"")
        else:
            self._waiting.append(message)

    async def holds(self, count: int) -> None:
        """Wait until so many executions have begun in all."""
        async with asyncio.timeout(PATIENCE):
            while len(self.entered) < count:
                self._changed.clear()
                await self._changed.wait()

    async def open(self) -> None:
        """Let all go on, from now on."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            await message.respond(b"")
