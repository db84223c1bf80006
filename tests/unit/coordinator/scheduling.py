"""A mesh in memory whose agents are announcements only: what is started stays where it was put."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from switchgear import ids
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.announcement import Announcement, CronTrigger, Offer, TopicTrigger
from switchgear.contract.queries import Schedule
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.scopes import scope_of
from switchgear.testing.site import START, Site

OWNER = "alice"
ANYTHING: dict[str, Any] = {}


class Place:
    """A site, a client, and instances that only announce themselves."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.bus = site.bus("client-1")
        self.mesh = Mesh(self.bus, OWNER, clock=site.clock)
        self._announcing: dict[str, asyncio.Task[None]] = {}

    async def announce(
        self,
        agent: str = "worker",
        *,
        capability: str = "report",
        version: str = "1.0.0",
        instance: str = "",
        crons: tuple[CronTrigger, ...] = (),
        topics: tuple[TopicTrigger, ...] = (),
        schema: dict[str, Any] = ANYTHING,
    ) -> str:
        """Let an instance announce itself; returns where."""
        instance = instance or f"{agent}-{version.replace('.', '')}"
        offer = Offer(
            name=capability, version=version, pool=f"{agent}-{version.replace('.', '')}",
            input_digest=ids.digest(codec.canonical(schema)), output_digest=ids.digest(b"{}"),
            input_schema=schema, output_schema={}, crons=crons, topics=topics,
        )  # fmt: skip
        now = self.site.clock.now()
        announcement = Announcement(
            v=1, agent=agent, instance=instance, version=version, started=now, time=now,
            offers=(offer,),
        )  # fmt: skip
        where = subjects.announce(agent, instance)
        data = codec.encode(announcement)
        await self.bus.announcements.put(where, data, ttl=limits.ANNOUNCE_TTL)
        self._announcing[where] = asyncio.create_task(self._announce_on(where, data))
        await self.quiet()
        return where

    async def withdraw(self, where: str) -> None:
        """Let an instance leave."""
        await cancelled(self._announcing.pop(where))
        await self.bus.announcements.remove(where)
        await self.quiet()

    async def close(self) -> None:
        """Let all leave."""
        for one in self._announcing.values():
            await cancelled(one)
        await self.mesh.close()

    async def _announce_on(self, where: str, data: bytes) -> None:
        while True:
            await asyncio.sleep(limits.ANNOUNCE_EVERY.total_seconds())
            await self.bus.announcements.put(where, data, ttl=limits.ANNOUNCE_TTL)

    async def quiet(self, seconds: float = 0.1) -> None:
        """Let that much virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(self, moment: timedelta) -> None:
        """Let time pass until so long after the beginning, and a moment more."""
        left = START + moment - self.site.clock.now()
        await asyncio.sleep(max(left.total_seconds(), 0) + 0.5)

    def started(self, capability: str = "report") -> list[History]:
        """The tasks of the capability, in the order of their submission."""
        newest = self.site.broker.ledger.under(f"sg.task.{capability}.*.*.submitted")
        scopes = [scope_of(one.subject) for one in newest]
        return [fold(scope, self.site.broker.ledger.under(scope)) for scope in scopes]

    def due(self, capability: str = "report") -> list[datetime | None]:
        """What the scheduled tasks are for."""
        return [opened(one).scheduled_for for one in self.started(capability)]

    def armed(self) -> list[str]:
        """Timers of schedules."""
        found = self.site.broker.timers.under("sg.timer.*.*.*.cron")
        return [one.subject for one in found]

    async def stored(self, owner: str, name: str) -> Schedule | None:
        """The schedule's document."""
        kept = await self.bus.documents.get(subjects.schedule(owner, name))
        if kept is None or kept.data is None:
            return None
        return codec.decode(kept.data, Schedule, limit=limits.MAX_ENTRY)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End a task, and wait for its end."""
    task.cancel()
    await asyncio.wait({task})


def opened(history: History) -> entries.Submitted:
    """The submission of a task."""
    assert history.submitted is not None
    return history.submitted


@asynccontextmanager
async def place(replicas: int = 1, seed: int = 0) -> AsyncGenerator[Place]:
    """A site with coordinators and one client."""
    async with Site(seed=seed) as site:
        for _ in range(replicas):
            await site.coordinate()
        made = Place(site)
        await made.mesh.start()
        try:
            yield made
        finally:
            await made.close()
