"""One seed: a whole mesh in virtual time, random programs, random faults, and what the checkers say."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

import msgspec

from switchgear import crashpoint
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.worker import Worker
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, subjects
from switchgear.coordinator.service import Coordinator
from switchgear.errors import Conflict, Overloaded, SwitchgearError, TaskFailed, Unavailable
from switchgear.lifecycle.history import fold
from switchgear.tasks.requests import request_cancel, send_signal
from switchgear.tasks.scopes import scope_of
from switchgear.testing import virtual_time
from switchgear.testing.memory import LoopClock
from tests.programs import interpreter
from tests.programs.invariants import Ledger, violations
from tests.programs.program import ANSWER, CAPABILITIES, SIGNAL, Maker, Program, Signal, own_parts
from tests.programs.record import Execution, Recording, Seen, Submission
from tests.simulation.chaos import ChaosBroker, ChaosBus, Skewed, Troubles, entries_of, process

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = "alice"
TASKS = (2, 6)
"""Root tasks of a seed; their children make about ten of them."""
FAULTS = (5, 20)
LEASE = timedelta(seconds=10)
WHILE = 20.0
"""Virtual seconds in which faults happen."""
PATIENCE = 3 * 3600.0
"""Virtual seconds within which everything must have ended after the last fault."""
CRASH_POINTS = (
    "agent.before-checkpoint",
    "agent.after-checkpoint",
    "agent.before-completed",
    "agent.after-completed",
    "agent.before-ack",
    "agent.after-take-over",
    "agent.before-waiting",
    "agent.after-waiting",
    "agent.after-attempt-failed",
    "agent.after-child-submitted",
    "coordinator.before-append",
    "coordinator.after-append",
    "coordinator.before-effects",
    "coordinator.before-ack",
)


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
    trace: str = ""
    """Digest of the whole ledger: the same seed gives the same one."""


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
        )
        self.members: list[Member] = []
        self.crash_at: dict[str, int] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.clock_faults = False

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
        self.broker.ledger.max_bytes = None
        for member in self.members:
            member.bus.link.heal()
            member.clock.offset = timedelta()

    # clients

    async def _client(self, program: Program, number: int) -> None:
        draw = self.random
        bus = self.bus("client")
        mesh = Mesh(bus, OWNER, clock=self.clock)
        await mesh.start()
        await asyncio.sleep(draw.uniform(0, 5))
        deadline = timedelta(seconds=draw.uniform(1, 60)) if draw.random() < 0.15 else None
        capability = draw.choice(CAPABILITIES)
        key = f"{self.seed}/{number}"
        handle = await _insisting(
            lambda: mesh.submit(capability, program, key=key, deadline=deadline)
        )
        cancelled = draw.random() < 0.15
        until = None if deadline is None else (self.clock.now() + deadline).timestamp()
        self.recording.submissions.append(
            Submission(handle.id, capability, OWNER, program, until, cancelled)
        )
        if cancelled:
            await asyncio.sleep(draw.uniform(0, 10))
            scope = subjects.scope(capability, OWNER, handle.id)
            reason = "no longer wanted"
            await _insisting(lambda: request_cancel(bus, self.clock, scope, reason))
        try:
            value = await handle.result(int)
            self.recording.seen.append(Seen(handle.id, "completed", value))
        except TaskFailed as error:
            self.recording.seen.append(Seen(handle.id, error.state))
        except Overloaded:
            self.recording.seen.append(Seen(handle.id, "rejected"))
        await mesh.close()

    async def _signaller(self) -> None:
        """Sends each task as many signals as its program waits for, early or late."""
        bus = self.bus("signaller")
        sent: Counter[str] = Counter()
        while True:
            for stored in entries_of(self.broker.ledger):
                if not stored.subject.endswith(".submitted"):
                    continue
                scope = scope_of(stored.subject)
                entry = msgspec.json.decode(stored.data, type=entries.Submitted)
                program = msgspec.json.decode(entry.input, type=Program)
                wanted = sum(isinstance(op, Signal) for op in own_parts(program))
                while sent[scope] < wanted:
                    sent[scope] += 1
                    await asyncio.sleep(self.random.uniform(0, 2))
                    payload = codec.encode(ANSWER)
                    try:
                        await send_signal(bus, self.clock, scope, SIGNAL, payload, sender=OWNER)
                    except Conflict:
                        continue  # it has ended
                    except SwitchgearError:
                        sent[scope] -= 1
            await asyncio.sleep(5)

    # the run

    async def run(self) -> Result:
        """Everything, from the first process to the verdict."""
        time = virtual_time.of_running_loop()
        time.enter()
        interpreter.testify(self)
        crashpoint.hook = self._reached
        try:
            return await self._run()
        finally:
            crashpoint.hook = None
            time.leave()

    async def _run(self) -> Result:
        for _ in range(self.random.choice([1, 2, 2])):
            await self.coordinator()
        for capability in CAPABILITIES:
            for _ in range(self.random.choice([1, 2])):
                await self.agent(capability)
        maker = Maker(self.random, slow=20.0)
        programs = [maker.program() for _ in range(self.random.randint(*TASKS))]
        loop = asyncio.get_running_loop()
        clients = [loop.create_task(self._client(one, n)) for n, one in enumerate(programs)]
        signaller = loop.create_task(self._signaller())
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
        for one in (*clients, signaller, *self._tasks):
            one.cancel()
        for member in list(self.members):
            await self._buried(member)
        found = Ledger.read(entries_of(self.broker.ledger))
        told = violations(found, self.recording, clock_faults=self.clock_faults)
        everything = entries_of(self.broker.ledger)
        return Result(
            self.seed,
            stuck + told,
            Counter(self.recording.faults),
            len(found.histories),
            len(everything),
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


async def _insisting(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask again while there is no room."""
    while True:
        try:
            return await ask()
        except (Overloaded, Unavailable) as full:
            await asyncio.sleep(full.retry_after or 1)


def _pick(world: World, *, coordinators: bool) -> Member | None:
    fitting = [one for one in world.members if isinstance(one.service, Coordinator) == coordinators]
    return world.random.choice(fitting) if fitting else None


def _crash_agent(world: World) -> bool:
    member = _pick(world, coordinators=False)
    if member is not None:
        world.crash(member)
    return member is not None


def _crash_coordinator(world: World) -> bool:
    member = _pick(world, coordinators=True)
    if member is not None:
        world.crash(member)
    return member is not None


def _crash_point(world: World) -> bool:
    world.crash_at[world.random.choice(CRASH_POINTS)] = world.random.choice([1, 1, 2, 3])
    return False  # counted when it is reached


def _any(world: World) -> Member | None:
    return world.random.choice(world.members) if world.members else None


def _cut_off(world: World) -> bool:
    """A process neither hears nor is heard, for less or longer than a lease; or it is frozen."""
    member = _any(world)
    if member is None:
        return False
    member.bus.link.hold()
    seconds = world.random.choice([0.5, 5.0, 15.0])
    asyncio.get_running_loop().call_later(seconds, member.bus.link.heal)
    return True


def _slow(world: World) -> bool:
    member = _any(world)
    if member is not None:
        member.bus.link.slow(world.random.choice([0.05, 1.0, 5.0]))
    return member is not None


def _jump(world: World) -> bool:
    member = _any(world)
    if member is None:
        return False
    world.clock_faults = True
    member.clock.offset = timedelta(seconds=world.random.choice([-3600, -5, 5, 3600]))
    return True


def _restart(world: World) -> bool:
    world.broker.restart()
    for member in world.members:
        member.bus.reconnect()
    return True


def _full(world: World) -> bool:
    """The ledger takes nothing for a while."""
    world.broker.ledger.max_bytes = world.broker.ledger.bytes

    def room() -> None:
        world.broker.ledger.max_bytes = None

    asyncio.get_running_loop().call_later(world.random.uniform(0.5, 5), room)
    return True


def _set(what: str, *values: float) -> Callable[[World], bool]:
    def arm(world: World) -> bool:
        setattr(world.troubles, what, world.random.choice(values))
        return what == "lost_live"  # the others count when they happen

    return arm


FAULT_KINDS: dict[str, Callable[[World], bool]] = {
    "agent crashes": _crash_agent,
    "coordinator crashes": _crash_coordinator,
    "crash point": _crash_point,
    "crash point again": _crash_point,
    "cut off": _cut_off,
    "slow": _slow,
    "clock jumps": _jump,
    "server restarts": _restart,
    "ledger full": _full,
    "redelivered": lambda world: world.broker.redeliver(),
    "timer early": lambda world: world.broker.fire_early(),
    "lane lost": lambda world: world.broker.forget_lane(),
    "answers lost": _set("lost_answers", 1, 2),
    "in flight": _set("in_flight", 1, 2, 3),
    "acks lost": _set("lost_acks", 1, 2),
    "stale reads": _set("stale_reads", 1, 2),
    "live messages lost": _set("lost_live", 0.1, 0.5, 1.0),
}


def simulate(seed: int) -> Result:
    """Run one seed on an event loop of its own."""
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=_deaf) as runner:
        return runner.run(World(seed).run())


def _nothing(timeout: float | None = None) -> list[Any]:
    del timeout
    return []


def _deaf() -> asyncio.AbstractEventLoop:
    """An event loop that never asks the system whether a socket has something: there are none here."""
    selector = selectors.SelectSelector()
    selector.select = _nothing
    return asyncio.SelectorEventLoop(selector)
