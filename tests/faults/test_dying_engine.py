"""An engine is killed under load: its instance stops calling it, and no task pays for that."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest
import pytest_asyncio

from switchgear import Capability, TaskHandle
from switchgear.client.mesh import Mesh
from switchgear.contract import entries
from switchgear.contract.announcement import Announcement, BreakerState
from switchgear.lifecycle.history import History
from tests.faults.processes import ROOT, Child, Children, Gate
from tests.faults.programs.agent import Text
from tests.faults.programs.engine_agent import CONCURRENCY, IN_A_ROW, OPEN_FOR
from tests.integration.spine.stage import SOON, Stage, history_of, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.faults]

BUILD = Capability("build", Text, Text)
TASKS = 40
HELD = 2
"""Tasks that are in the middle of their handler, before their container, when the engine dies."""
RECOVERED = 3
"""Tasks that its instance completes after the engine is back: a probe, and others."""
OPEN_AT_A_TIME = 10
"""More than the slots of both instances: there is always a task that waits to be pulled."""


@dataclass
class Engine:
    """A fake engine's process, which may be started anew at its port."""

    folder: Path
    port: str
    child: Child

    @property
    def runner(self) -> str:
        """Its address, as a CLI takes it."""
        return f"tcp://127.0.0.1:{self.port}"

    async def dies_at_work(self) -> None:
        """Kill it while an execution is under way, of which it has sent no answer and never will."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.child.tell(signal.SIGSTOP)
                await asyncio.to_thread(os.waitid, os.P_PID, self.child.pid, os.WSTOPPED)
                if not self.child.output().endswith(("running 0\n", f"{self.port}\n")):
                    break
                self.child.tell(signal.SIGCONT)
                await asyncio.sleep(0.02)
        self.child.tell(signal.SIGKILL)
        assert await self.child.ended() == -signal.SIGKILL


class Builders(Children):
    """Agents with an engine each."""

    async def engine(self, folder: Path, port: str = "0") -> Engine:
        """An engine that listens."""
        child = await self._start("-m", "tests.dagger.serve", str(folder), port)
        await child.says("\n")
        port = child.output().split()[-1]
        return Engine(folder, port, child)

    async def builder(self, url: str, cli: Path, engine: Engine) -> Child:
        """An agent that uses this engine."""
        arguments = (url, str(cli), engine.runner)
        return await self._start("-m", "tests.faults.programs.engine_agent", *arguments)


@dataclass
class Load:
    """Submits task after task, so that as many are open at any time; keeps all that it submitted."""

    mesh: Mesh
    handles: list[TaskHandle[Text]] = field(default_factory=list[TaskHandle[Text]])
    results: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Text of each completed task, and the process that completed it."""
    _waits: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _feeding: asyncio.Task[None] | None = None
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPEN_AT_A_TIME))

    async def submit(self, text: str) -> None:
        """One more, as soon as few enough are open."""
        async with asyncio.timeout(PATIENCE):
            await self._room.acquire()
        handle = await self.mesh.submit(BUILD, Text(text))
        self.handles.append(handle)
        self._waits.append(asyncio.create_task(self._ended(handle)))

    def feed(self, count: int) -> None:
        """Begin to submit so many more."""

        async def feed() -> None:
            for _ in range(count):
                await self.submit(f"t{len(self.handles)}")

        self._feeding = asyncio.create_task(feed())

    def feed_until_done_by(self, pid: int, count: int) -> None:
        """Begin to submit more, until this process has completed so many more."""
        enough = self.done_by(pid) + count

        async def feed() -> None:
            async with asyncio.timeout(PATIENCE):
                while self.done_by(pid) < enough:
                    await self.submit(f"t{len(self.handles)}")

        self._feeding = asyncio.create_task(feed())

    async def reaches(self, pid: int, count: int) -> None:
        """Wait until this process has completed so many."""

        async def enough() -> bool:
            return self.done_by(pid) >= count

        await until(enough)

    def done_by(self, pid: int) -> int:
        """How many this process has completed."""
        return sum(one == pid for _, one in self.results)

    async def all_end(self) -> None:
        """Wait until all are submitted, and have completed."""
        assert self._feeding is not None
        await self._feeding
        await asyncio.gather(*self._waits)

    async def histories(self) -> list[History]:
        """What the ledger holds of each."""
        return await asyncio.gather(*(history_of(self.mesh, one) for one in self.handles))

    async def __aenter__(self) -> Self:
        """Nothing is submitted yet."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Wait for no more."""
        tasks = [*self._waits, *filter(None, [self._feeding])]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ended(self, handle: TaskHandle[Text]) -> None:
        try:
            text, _, pid = (await handle.result(timeout=SOON)).text.partition(" built by ")
            self.results.append((text, int(pid)))
        finally:
            self._room.release()


@pytest_asyncio.fixture
async def builders(stage: Stage, tmp_path: Path) -> AsyncIterator[Builders]:
    """Processes that end with the test."""
    made = Builders(stage.url, tmp_path)
    yield made
    await made.end()


@pytest.fixture
def cli(tmp_path: Path) -> Path:
    """The fake CLI; skips where the fake engine has no containers, but never in CI."""
    if shutil.which("bwrap") is None:
        if os.environ.get("CI"):
            pytest.fail("bubblewrap is missing", pytrace=False)
        pytest.skip("bubblewrap is missing")
    program = tmp_path / "dagger"
    script = ROOT / "tests" / "dagger" / "fake_cli.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {script} "$@"\n', "utf-8")
    program.chmod(0o755)
    return program


async def instance_of(mesh: Mesh, pid: int) -> Announcement | None:
    """What the instance in this process announces."""
    return next((one for one in (await mesh.agents()).instances if one.process == pid), None)


async def announced(mesh: Mesh, pid: int) -> Announcement:
    """What the instance in this process announces, as soon as it does."""

    async def there() -> bool:
        return await instance_of(mesh, pid) is not None

    await until(there, every=0.05)
    found = await instance_of(mesh, pid)
    assert found is not None
    return found


async def engine_breaker(mesh: Mesh, pid: int) -> BreakerState:
    """The breaker of the engine, as that instance announces it."""
    found = await instance_of(mesh, pid)
    assert found is not None
    return next(one for one in found.breakers if one.dependency == "dagger")


async def in_state(mesh: Mesh, pid: int, state: str) -> BreakerState:
    """Wait until the instance announces the breaker of its engine in this state."""
    seen: list[BreakerState] = []

    async def there() -> bool:
        seen.append(await engine_breaker(mesh, pid))
        return seen[-1].state == state

    await until(there, every=0.05)
    return seen[-1]


def by(history: History, instance: str) -> list[entries.Entry]:
    """What this instance wrote in a task's history."""
    return [one.entry for one in history.valid if one.entry.writer == instance]


def began(entry: entries.AgentEntry) -> datetime:
    """When its attempt began, by its instance's clock."""
    assert entry.started is not None
    return entry.started


def failures(histories: list[History], instance: str) -> list[entries.AttemptFailed]:
    """The attempts that failed there."""
    return [
        entry
        for history in histories
        for entry in by(history, instance)
        if isinstance(entry, entries.AttemptFailed)
    ]


def ends(histories: list[History]) -> list[entries.Completed]:
    """The results."""
    return [one.end for one in histories if isinstance(one.end, entries.Completed)]


def refused(history: History, instance: str) -> bool:
    """Whether this instance handed it back."""
    return any(isinstance(entry, entries.Released) for entry in by(history, instance))


def assert_refusals_are_no_attempts(history: History, victim: str) -> None:
    """Whoever refused it said why, and the next one went on with the same attempt; only what failed counts."""
    agents = [one.entry for one in history.valid if isinstance(one.entry, entries.AgentEntry)]
    for before, after in zip(agents, [*agents[1:], None], strict=True):
        if isinstance(before, entries.Released):
            assert (before.why, before.dependency, before.writer) == ("breaker", "dagger", victim)
            assert isinstance(after, entries.TakenOver)
            assert (after.how, after.attempt) == ("released", before.attempt)
            assert after.status.failures == before.status.failures
    events = [one.subject.event for one in history.valid]
    failed = events.count("attempt-failed")
    assert events[-1] == "completed"
    assert events.count("dispatched") == 1 + failed
    assert (history.failures, history.crashes, history.voids) == (failed, 0, [])


def assert_failed_before_or_as_probe(
    histories: list[History], victim: str, opened: BreakerState
) -> int:
    """While it was open the instance began nothing that failed. Returns how many failed as probes.

    What failed before are those that were in the engine when the breaker opened, at most one a slot, the last of the
    row among them; and the others of the row.
    """
    failed = failures(histories, victim)
    before = [one for one in failed if began(one) <= opened.since]
    after = [one for one in failed if began(one) > opened.since]
    assert IN_A_ROW <= len(before) <= CONCURRENCY + IN_A_ROW - 1
    assert any(not one.error.outcome_known for one in before)
    assert all(began(one) >= opened.since + OPEN_FOR for one in after)
    assert {(one.error.error_class, one.error.dependency) for one in failed} == {
        ("transient", "dagger")
    }
    return len(after)


@dataclass
class Pair:
    """Two instances of one agent; the first loses its engine."""

    mesh: Mesh
    engine: Engine
    """Of the one that loses it."""
    ill: Announcement
    well: Announcement


async def pair(stage: Stage, builders: Builders, load: Load, gate: Gate, cli: Path) -> Pair:
    """Two instances at work, of which the ill one has a task at the gate."""
    folders = [cli.parent / f"engine-{n}" for n in range(2)]
    engines = [await builders.engine(one) for one in folders]
    agents = [await builders.builder(stage.url, cli, one) for one in engines]
    await builders.coordinator()
    instances = [await announced(load.mesh, one.pid) for one in agents]
    for n in range(HELD):
        await load.submit(f"held-{n}")
    await gate.holds(HELD)
    holder = gate.entered[0][0]
    ill = next(n for n in range(2) if agents[n].pid == holder)
    return Pair(load.mesh, engines[ill], instances[ill], instances[1 - ill])


async def test_engine_that_dies_under_load_costs_no_attempt_once_its_breaker_is_open(
    stage: Stage, builders: Builders, gate: Gate, cli: Path
) -> None:
    """Those attempts failed that were in the engine when the breaker opened; after that, probes alone may fail."""
    async with Load(await stage.client()) as load:
        both = await pair(stage, builders, load, gate, cli)
        pid, at_gate = both.ill.process, list(gate.entered)
        load.feed(TASKS - HELD)
        await load.reaches(pid, 2)
        await both.engine.dies_at_work()
        opened = await in_state(load.mesh, pid, "open")
        await gate.open()
        await load.all_end()
        assert_nobody_paid(await load.histories(), both, opened)
        held = {
            text: await history_of(load.mesh, load.handles[int(text[5:])]) for _, text in at_gate
        }
        assert all(refused(held[text], both.ill.instance) for one, text in at_gate if one == pid)

        await builders.engine(both.engine.folder, both.engine.port)
        load.feed_until_done_by(pid, RECOVERED)
        closed = await in_state(load.mesh, pid, "closed")
        await load.all_end()
        histories = await load.histories()
        probes = assert_failed_before_or_as_probe(histories, both.ill.instance, opened)
        assert probes == closed.opened - 1
        assert failures(histories, both.well.instance) == []
        for history in histories:
            assert_refusals_are_no_attempts(history, both.ill.instance)
        again = [one for one in ends(histories) if began(one) > opened.since]
        assert sum(one.writer == both.ill.instance for one in again) >= RECOVERED
        other = await engine_breaker(load.mesh, both.well.process)
        assert (other.state, other.opened) == ("closed", 0)


def assert_nobody_paid(histories: list[History], both: Pair, opened: BreakerState) -> None:
    """All completed, and what began after the breaker opened did so on the other instance."""
    assert opened.opened == 1
    assert len(ends(histories)) == TASKS
    assert_failed_before_or_as_probe(histories, both.ill.instance, opened)
    later = {one.writer for one in ends(histories) if began(one) > opened.since}
    assert later == {both.well.instance}
