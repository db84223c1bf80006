"""Coordinators in memory, in virtual time; agents and clients are played by the test, entry by entry."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from switchgear.bus.port import Delivery
from switchgear.contract import codec, entries, limits, subjects, values
from switchgear.contract.announcement import Announcement, BreakerState, Offer, Running
from switchgear.contract.stored import expect_headers, header_block
from switchgear.coordinator.service import Coordinator
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.lifecycle.history import History, fold
from switchgear.testing import virtual_time
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from switchgear.testing.site import START

OWNER = "alice"
CAPABILITY = "work"
NULL = msgspec.Raw(b"null")
DIGEST = "0" * 64
_HOLDERS = frozenset(
    {"checkpoint", "waiting", "released", "attempt-failed", "completed", "taken-over"}
)
FAILURE = values.Failure(error_class="transient", code="SG1510", message="it broke", retryable=True)


class Desk:
    """A broker, its coordinators, and one connection for all that the test plays."""

    def __init__(self, settings: CoordinatorSettings | None = None) -> None:
        self.clock = LoopClock(START)
        self.broker = MemoryBroker(clock=self.clock)
        self.coordinators: list[tuple[Coordinator, MemoryBus]] = []
        self.bus = MemoryBus(self.broker, "hands-1")
        self._settings = settings
        self._announcing: dict[str, asyncio.Task[None]] = {}
        self._ids = itertools.count(1)

    async def coordinate(self, bus: MemoryBus | None = None) -> Coordinator:
        """One more replica, for which nobody is absent for long."""
        bus = bus or MemoryBus(self.broker, f"coordinator-{next(self._ids)}")
        made = Coordinator(bus, self.clock, self._settings)
        await made.start()
        made.registry.table.settling_until = None
        self.coordinators.append((made, bus))
        return made

    async def stop(self) -> None:
        """Let all leave."""
        for instance in list(self._announcing):
            self.silence(instance)
        for made, bus in self.coordinators:
            await made.stop()
            await bus.close()
        await self.bus.close()

    # agents

    async def offer(
        self,
        instance: str = "agent-1",
        *,
        capability: str = CAPABILITY,
        pool: str = "p1",
        running: tuple[Running, ...] = (),
        breakers: tuple[BreakerState, ...] = (),
        **fields: Any,
    ) -> None:
        """Announce an instance with one capability, now and every ten seconds."""
        given: dict[str, Any] = {"concurrency": 10_000} | fields
        offered = Offer(
            name=capability,
            version="1.0.0",
            pool=pool,
            input_digest=DIGEST,
            output_digest=DIGEST,
            input_schema={},
            output_schema={},
            **given,
        )
        announcement = Announcement(
            v=1,
            agent="agent",
            instance=instance,
            version="1.0.0",
            started=START,
            time=self.clock.now(),
            offers=(offered,),
            running=running,
            breakers=breakers,
        )
        self.silence(instance)
        self._announcing[instance] = asyncio.create_task(self._announce(instance, announcement))
        await asyncio.sleep(0.01)

    def silence(self, instance: str = "agent-1") -> None:
        """Let it announce itself no more, as one that has died."""
        announcing = self._announcing.pop(instance, None)
        if announcing is not None:
            announcing.cancel()

    async def leave(self, instance: str = "agent-1") -> None:
        """End an announcement."""
        self.silence(instance)
        await self.bus.announcements.remove(subjects.announce("agent", instance))

    async def _announce(self, instance: str, announcement: Announcement) -> None:
        subject = subjects.announce("agent", instance)
        while True:
            put = self.bus.announcements.put
            await put(subject, codec.encode(announcement), ttl=limits.ANNOUNCE_TTL)
            await asyncio.sleep(limits.ANNOUNCE_EVERY.total_seconds())

    async def pull(self, pool: str = "p1", capability: str = CAPABILITY) -> list[Delivery]:
        """What the lane of normal priority has now."""
        lane = subjects.lane_consumer(capability, pool, "normal")
        return await self.bus.work.fetch(lane, 1000)

    # entries

    def scope(self, task: str, capability: str = CAPABILITY) -> str:
        """The scope of a task."""
        return subjects.scope(capability, OWNER, task)

    def history(self, task: str, capability: str = CAPABILITY) -> History:
        """As stored now."""
        scope = self.scope(task, capability)
        return fold(scope, self.broker.ledger.under(scope))

    def events(self, task: str) -> list[str]:
        """Those that count, in order."""
        return [valid.subject.event for valid in self.history(task).valid]

    def submit(self, task: str, **fields: Any) -> int:
        """A client submits; returns the sequence."""
        given: dict[str, Any] = {"input": NULL, "digest": DIGEST} | fields
        return self.say(task, "submitted", **given)

    def child(self, parent: str, task: str, **fields: Any) -> int:
        """An agent submits a child."""
        link = values.Parent(task=parent, capability=CAPABILITY, key="k")
        return self.submit(task, parent=link, root=parent, depth=1, **fields)

    def say(self, task: str, event: str, *, capability: str = CAPABILITY, **fields: Any) -> int:
        """Append as whoever may; an agent's entry names the present hold. Returns the sequence."""
        scope = self.scope(task, capability)
        kind = entries.ENTRIES[event.split(".", maxsplit=1)[0]]
        newest = self.broker.ledger.newest(scope)
        common: dict[str, Any] = {
            "v": 1,
            "id": f"hands-{next(self._ids)}",
            "task": task,
            "time": self.clock.now(),
            "writer": "agent-1",
            "status": values.Status(state="queued", submitted_at=START),
        }
        if event in _HOLDERS:
            common["hold"] = self.history(task, capability).hold
        last = newest.sequence if newest else 0
        body = codec.encode(kind(**(common | fields)))
        headers = header_block(expect_headers(last, scope))
        subject = subjects.task_event(scope, event)  # type: ignore[arg-type]  # tests name real events
        answer = self.broker.store(subject, headers, body)
        return getattr(answer, "sequence", 0)

    def suspend(self, task: str, *waits: values.Awaited, **fields: Any) -> int:
        """Its holder suspends it."""
        reason = {"children": "child"}.get(waits[0].kind, waits[0].kind) if waits else "timer"
        return self.say(task, "waiting", reason=reason, waits=waits, **fields)

    def complete(self, task: str) -> int:
        """Its holder completes it, and wakes nobody."""
        return self.say(task, "completed", output=NULL)

    async def wake(self, task: str, kind: str = "child") -> None:
        """Wake it, as whoever ends a child does."""
        await self.bus.timers.wake(subjects.due(self.scope(task), kind))

    def awaited(self, kind: Any, key: str = "k", **fields: Any) -> values.Awaited:
        """One thing that a handler waits for."""
        return values.Awaited(
            key=key, kind=kind, begun=self.clock.now(), capability=CAPABILITY, **fields
        )

    # time

    async def reach(self, task: str, event: str, count: int = 1) -> History:
        """Wait until the task has so many of this event. Fails after three hours of virtual time."""
        await self.until(lambda: self.events(task).count(event) >= count)
        return self.history(task)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is true. Fails after three hours of virtual time."""
        async with asyncio.timeout(3 * 3600):
            while not true():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def desk(
    *, coordinators: int = 1, settings: CoordinatorSettings | None = None
) -> AsyncGenerator[Desk]:
    """Enter a mesh of coordinators alone."""
    time = virtual_time.of_running_loop()
    time.enter()
    try:
        made = Desk(settings)
        for _ in range(coordinators):
            await made.coordinate()
        try:
            yield made
        finally:
            await made.stop()
    finally:
        time.leave()
