"""A whole mesh in one event loop: a broker in memory, coordinators, agents, in virtual time."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from switchgear.agent.run import Instrument, as_it_is
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.worker import Worker
from switchgear.coordinator.service import Coordinator
from switchgear.testing import virtual_time
from switchgear.testing.fakes import Runs
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchgear.agent.declare import Agent, Resource

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When every test begins."""


class Member(NamedTuple):
    """One instance of an agent."""

    worker: Worker
    bus: MemoryBus


class Replica(NamedTuple):
    """One replica of the coordinator."""

    coordinator: Coordinator
    bus: MemoryBus


class Site:
    """The processes of a mesh, each with a connection of its own. Enter it, then let them join."""

    def __init__(self, *, seed: int = 0) -> None:
        """`seed` decides whatever a real mesh leaves to chance."""
        self.clock = LoopClock(START)
        self.broker = MemoryBroker(clock=self.clock, seed=seed)
        self.runs = Runs()
        self.replicas: list[Replica] = []
        self.members: list[Member] = []
        self._numbers = count(1)
        self._buses: list[MemoryBus] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Let time be virtual. Raises UsageError on an event loop that cannot be patched."""
        time = virtual_time.of_running_loop()
        time.enter()
        self._stack.callback(time.leave)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop all that joined: what still runs is handed back."""
        try:
            for member in self.members:
                await member.worker.stop()
            for replica in self.replicas:
                await replica.coordinator.stop()
            for bus in self._buses:
                await bus.close()
        finally:
            await self._stack.aclose()

    def bus(self, name: str) -> MemoryBus:
        """A new connection, which ends with the site."""
        opened = MemoryBus(self.broker, name)
        self._buses.append(opened)
        return opened

    async def coordinate(self, kind: type[Coordinator] = Coordinator) -> Replica:
        """Start a replica of the coordinator."""
        bus = self.bus(f"coordinator-{next(self._numbers)}")
        replica = Replica(kind(bus, self.clock), bus)
        self.replicas.append(replica)
        await replica.coordinator.start()
        # A broker in memory was never away: who is not announced is not there.
        replica.coordinator.registry.table.settling_until = None
        return replica

    async def join(
        self,
        agent: Agent,
        *,
        settings: WorkerSettings | None = None,
        replaced: dict[Resource[Any], Any] | None = None,
        instrument: Instrument = as_it_is,
        arrange: Callable[[MemoryBus], None] = lambda _: None,
    ) -> Member:
        """Start an instance; returns when it is announced and its lanes exist.

        `instrument` goes around what its handlers run under keys; `arrange` changes its connection first.
        """
        bus = self.bus(f"{agent.name[:48]}-{next(self._numbers)}")
        arrange(bus)
        worker = Worker(
            agent,
            bus,
            clock=self.clock,
            settings=settings or WorkerSettings(),
            run_command=self.runs,
            instrument=instrument,
            replaced=replaced,
        )
        member = Member(worker, bus)
        self.members.append(member)
        await worker.start()
        return member

    async def crash(self, process: Member | Replica) -> None:
        """Let a process die as by SIGKILL: nothing of it reaches the mesh any more."""
        self.broker.crash(process.bus)
        if isinstance(process, Member):
            self.members.remove(process)
            await process.worker.stop()
        else:
            self.replicas.remove(process)
            await process.coordinator.stop()
