"""Instances without handlers: what they pull takes a while, and is acked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from switchgear.bus.port import Bus, Delivery
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement, Offer
from switchgear.errors import NotFound, Unavailable
from switchgear.testing.site import START

DIGEST = "0" * 64


class Puller:
    """Pulls the lanes of one capability with so many slots, the highest priority first."""

    def __init__(self, bus: Bus, capability: str, slots: int, takes: float) -> None:
        self.done: list[str] = []
        """Owners, as their tasks ended."""
        self.ended: dict[str, float] = {}
        """By task, in seconds of the loop's clock."""
        self.deepest = 0
        """Most tasks in the lanes."""
        self._bus = bus
        self._capability = capability
        self._slots = slots
        self._takes = takes
        self._offers = False
        self._free = asyncio.Semaphore(slots)
        self.running: set[asyncio.Task[None]] = set()

    async def announce(self) -> None:
        """Offer the capability, from now on."""
        self._offers = True
        offer = Offer(
            name=self._capability,
            version="1.0.0",
            pool="pool",
            input_digest=DIGEST,
            output_digest=DIGEST,
            input_schema={},
            output_schema={},
            concurrency=self._slots,
        )
        announcement = Announcement(
            v=1,
            agent="puller",
            instance=self._bus.name,
            version="1.0.0",
            started=START,
            time=START,
            offers=(offer,),
        )
        subject = subjects.announce("puller", self._bus.name)
        await self._bus.announcements.put(
            subject, codec.encode(announcement), ttl=timedelta(hours=1)
        )

    async def pull(self) -> None:
        """Without end."""
        names = [
            subjects.lane_consumer(self._capability, "pool", priority)
            for priority in subjects.PRIORITIES
        ]
        announcing = asyncio.create_task(self._announce_on())
        self.running.add(announcing)
        while True:
            await self._free.acquire()
            delivery = await self._next(names)
            task = asyncio.create_task(self._run(delivery))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _announce_on(self) -> None:
        while True:
            await asyncio.sleep(limits.ANNOUNCE_EVERY.total_seconds())
            if self._offers:
                await self.announce()

    async def withdraw(self) -> None:
        """Offer nothing more; go on with what is in the lanes."""
        self._offers = False
        await self._bus.announcements.remove(subjects.announce("puller", self._bus.name))

    async def _next(self, names: list[str]) -> Delivery:
        while True:
            for name in names:
                try:
                    found = await self._bus.work.fetch(name, 1)
                except (NotFound, Unavailable):  # its lane is being made
                    continue
                if found:
                    return found[0]
            await asyncio.sleep(0.005)

    async def _run(self, delivery: Delivery) -> None:
        await self._look()
        await asyncio.sleep(self._takes)
        subject = subjects.parse_task(delivery.stored.subject)
        self.done.append(subject.owner)
        self.ended[subject.task] = asyncio.get_running_loop().time()
        delivery.ack()
        self._free.release()

    async def _look(self) -> None:
        depth = 0
        for priority in subjects.PRIORITIES:
            name = subjects.lane_consumer(self._capability, "pool", priority)
            found = await self._bus.work.backlog(name)
            depth += found.pending + found.unsettled if found is not None else 0
        self.deepest = max(self.deepest, depth)


@asynccontextmanager
async def pulling(
    bus: Bus, capability: str = "work", *, slots: int = 4, takes: float = 0.1
) -> AsyncGenerator[Puller]:
    """Announced, and at work until the end."""
    puller = Puller(bus, capability, slots, takes)
    await puller.announce()
    working = asyncio.create_task(puller.pull())
    try:
        yield puller
    finally:
        working.cancel()
        for one in puller.running:
            one.cancel()
        await asyncio.wait({working, *puller.running})
        for one in (working, *puller.running):
            if not one.cancelled():
                one.result()  # what it died of
