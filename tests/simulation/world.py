"""One seed: a whole mesh in virtual time, random programs, random faults, and what the checkers say."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from time import process_time
from typing import Any

from switchgear import crashpoint, ids
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.worker import Worker
from switchgear.contract.stored import Stored
from switchgear.coordinator.service import Coordinator
from switchgear.errors import SwitchgearError
from switchgear.lifecycle.history import fold
from switchgear.tasks.scopes import scope_of
from switchgear.testing.memory import LoopClock
from tests.programs import executions, interpreter
from tests.programs.invariants import Ledger, violations
from tests.programs.program import CAPABILITIES, Maker
from tests.programs.record import Execution, Recording
from tests.simulation.chaos import ChaosBroker, ChaosBus, Skewed, Troubles, entries_of, process
from tests.simulation.clients import client, signaller
from tests.simulation.faults import FAULT_KINDS
from tests.simulation.known import remember
from tests.simulation.loop import VirtualLoop

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = (2, 5)
"""Root tasks of a seed; their children make about ten of them."""
BUDGET = 22
"""Parts of a root task's program and its children, at most."""
STEPS = 12
"""How many times as likely a step is as each other part."""
FAULTS = (5, 20)
CLOCKS = 0.01
"""Seconds by which clocks are wrong without a fault: they are read in turn, and nothing else passes between."""
LEASE = timedelta(seconds=10)
ROOM = 512 << 10
"""Bytes of the ledger: four times what a seed needs."""
WHILE = 20.0
"""Virtual seconds in which faults happen."""
PATIENCE = 3 * 3600.0
"""Virtual seconds within which everything must have ended after the last fault."""


@dataclass
class Member:
    """A simulated process."""

    name: str
    bus: ChaosBus
    clock: Skewed
    service: Worker | Coordinator
    stop: Callable[[], Coroutine[Any, Any, None]]
    capability: str = ""
    dead: bool = False


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    violations: list[str]
    faults: Counter[str]
    tasks: int = 0
    entries: int = 0
    injected: int = 0
    """Faults that were tried; those that found nothing to hit are not in `faults`."""
    seconds: float = 0.0
    """Of the processor."""
    trace: str = ""
    """Digest of what was appended when by whom: the same seed gives the same one."""


@dataclass
class World:
    """The mesh of one seed."""

    seed: int
    recording: Recording = field(default_factory=Recording)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311  # repeatable on purpose
        self.clock = LoopClock(START)
        self.troubles = Troubles(Random(self.seed + 1), self._count)  # noqa: S311
        self.broker = ChaosBroker(
            self.clock,
            Random(self.seed + 2),  # noqa: S311
            self.troubles,
            lane_ack_wait=LEASE,
            ledger_max_bytes=ROOM,
        )
        self.members: list[Member] = []
        self.crash_at: dict[str, int] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.clock_faults = False
        self.injected = 0

    def _count(self, kind: str) -> None:
        self.recording.fault(kind)

    # processes

    def bus(self, name: str) -> ChaosBus:
        """A connection of its own."""
        self._number += 1
        return ChaosBus(self.broker, f"{name}-{self._number}", self.random)

    async def coordinator(self) -> None:
        """Start a replica."""
        bus = self.bus("coordinator")
        clock = Skewed(self.clock)
        service = Coordinator(bus, clock)
        member = Member(bus.name, bus, clock, service, service.stop)
        await self._begin(member, service.start())

    async def agent(self, capability: str) -> None:
        """Start an instance."""
        bus = self.bus(capability)
        clock = Skewed(self.clock)
        settings = WorkerSettings(hold_time=timedelta(seconds=2), extend_every=LEASE / 3)
        worker = Worker(interpreter.agent(capability), bus, clock=clock, settings=settings)
        member = Member(bus.name, bus, clock, worker, worker.stop, capability)
        await self._begin(member, worker.start())

    async def _begin(self, member: Member, start: Coroutine[Any, Any, None]) -> None:
        self.members.append(member)
        task = asyncio.get_running_loop().create_task(start, context=member.bus.link.context)
        try:
            await task
        except SwitchgearError:
            if not member.dead:
                raise

    def crash(self, member: Member) -> None:
        """Kill a process: nothing of it reaches the mesh from this moment on."""
        if member.dead:
            return
        member.dead = True
        self.members.remove(member)
        self.broker.crash(member.bus)
        self._later(self._buried(member))
        again = self.random.uniform(0.1, 8.0)
        if isinstance(member.service, Coordinator):
            self._later(self._after(again, self.coordinator))
        else:
            self._later(self._after(again, lambda: self.agent(member.capability)))

    async def _buried(self, member: Member) -> None:
        """Its tasks end; no message of theirs arrives anywhere."""
        try:
            async with asyncio.timeout(60):
                await member.stop()
        except (SwitchgearError, TimeoutError):
            pass

    async def _after(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(seconds)
        await act()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # what is taken down

    def executes(self, what: str, ctx: Any, key: str) -> int:
        """A handler, a step or an undo begins (`interpreter.Witness`)."""
        self.counts[ctx.task.id, key] += 1
        self.recording.executions.append(
            Execution(
                what,  # type: ignore[arg-type]  # one of the witnessed kinds
                ctx.task.id,
                key,
                ctx.fence,
                self.clock.now().timestamp(),
                ctx.attempt,
                process.get(),
            )
        )
        return self.counts[ctx.task.id, key]

    async def dies(self) -> None:
        """The handler takes its process down (`interpreter.Witness`)."""
        member = next((one for one in self.members if one.name == process.get()), None)
        self._count("handler crashes")
        if member is not None:
            self.crash(member)
        await asyncio.get_running_loop().create_future()

    def _reached(self, name: str) -> None:
        """A crash point: the process that is there may die there."""
        left = self.crash_at.get(name)
        if left is None:
            return
        if left > 1:
            self.crash_at[name] = left - 1
            return
        member = next((one for one in self.members if one.name == process.get()), None)
        if member is not None:
            del self.crash_at[name]
            self._count(f"crash at {name}")
            self.crash(member)

    # faults

    async def _faults(self) -> None:
        draw = self.random
        kinds = list(FAULT_KINDS)
        moments = sorted(draw.uniform(0, WHILE) for _ in range(draw.randint(*FAULTS)))
        self.injected = len(moments)
        now = 0.0
        for moment in moments:
            await asyncio.sleep(moment - now)
            now = moment
            kind = draw.choice(kinds)
            if FAULT_KINDS[kind](self):
                self._count(kind)

    def _heal(self) -> None:
        """The last fault is over."""
        trouble = self.troubles
        trouble.lost_answers = trouble.in_flight = trouble.lost_acks = trouble.stale_reads = 0
        trouble.lost_live = 0.0
        self.crash_at.clear()
        for member in self.members:
            member.bus.link.heal()
            member.clock.offset = timedelta()

    # the run

    async def run(self) -> Result:
        """Everything, from the first process to the verdict."""
        interpreter.testify(self)
        crashpoint.hook = self._reached
        try:
            return await self._run()
        finally:
            crashpoint.hook = None

    async def _run(self) -> Result:
        for _ in range(self.random.choice([1, 2, 2])):
            await self.coordinator()
        for capability in CAPABILITIES:
            for _ in range(self.random.choice([1, 2])):
                await self.agent(capability)
        maker = Maker(self.random, slow=20.0, steps=STEPS)
        programs = [maker.program(BUDGET) for _ in range(self.random.randint(*TASKS))]
        loop = asyncio.get_running_loop()
        clients = [loop.create_task(client(self, one, n)) for n, one in enumerate(programs)]
        signals = loop.create_task(signaller(self))
        faults = loop.create_task(self._faults())
        await faults
        await asyncio.sleep(self.random.uniform(0, 2))
        self._heal()
        stuck: list[str] = []
        done, waiting = await asyncio.wait(clients, timeout=PATIENCE)
        if waiting:
            stuck.append(f"{len(waiting)} clients never heard how their tasks ended")
        stuck.extend(f"a client met {one.exception()!r}" for one in done if one.exception())
        await self._until_all_ended()
        stuck.extend(self._lanes_left())
        for one in (*clients, signals, *self._tasks):
            one.cancel()
        for member in list(self.members):
            await self._buried(member)
        everything = entries_of(self.broker.ledger)
        found = Ledger.read(everything)
        told = violations(found, self.recording, clock_faults=self.clock_faults)
        return Result(
            self.seed,
            stuck + told,
            Counter(self.recording.faults),
            tasks=len(found.histories),
            entries=len(everything),
            injected=self.injected,
            trace=_trace(everything),
        )

    async def _until_all_ended(self) -> None:
        """Children may outlive who waited for their parents' end by a little, and deliveries their tasks by a lease."""
        for _ in range(400):
            scopes = {scope_of(one.subject) for one in entries_of(self.broker.ledger)}
            histories = (fold(scope, self.broker.ledger.under(scope)) for scope in scopes)
            if all(history.ended is not None for history in histories) and not self._lanes_left():
                break
            await asyncio.sleep(10)

    def _lanes_left(self) -> list[str]:
        """What is still to be delivered although everything has ended."""
        found: list[str] = []
        for name in self.broker.consumer_names():
            consumer = self.broker.consumer(self.broker.ledger, name)
            if consumer is not None and (consumer.backlog.pending or consumer.backlog.unsettled):
                found.append(f"{name} still has {consumer.backlog}")
        return found


def _trace(everything: list[Stored]) -> str:
    told = [f"{one.subject} {one.time_ns}" for one in everything]
    return ids.digest("\n".join(told).encode())


@cache
def _prepare() -> None:
    """What a process does once, before its first seed."""
    logging.disable(logging.CRITICAL)
    executions.CLOCKS = CLOCKS
    remember()


def simulate(seed: int) -> Result:
    """Run one seed on an event loop of its own."""
    _prepare()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        began = process_time()
        result = runner.run(World(seed).run())
        result.seconds = process_time() - began
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        result.violations.extend(f"broken: {one}" for one in loop.broken)
        return result
