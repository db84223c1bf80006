"""A mesh in memory as a real one behaves: tasks wait for agents, anybody may append."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from switchgear import Agent
from switchgear.agent.settings import WorkerSettings
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, subjects, values
from switchgear.contract.stored import expect_headers, header_block
from switchgear.lifecycle.history import History, fold
from switchgear.testing.site import START, Member, Site

OWNER = "alice"
NULL = msgspec.Raw(b"null")


@dataclass
class Number:
    n: int


@dataclass
class Text:
    text: str


class Stage:
    """A site with one client."""

    def __init__(self, site: Site, settings: WorkerSettings | None = None) -> None:
        self.site = site
        self.bus = site.bus("client-1")
        self.mesh = Mesh(self.bus, OWNER, clock=site.clock)
        self._settings = settings or WorkerSettings()
        self._ids = itertools.count(1)

    async def join(self, agent: Agent, settings: WorkerSettings | None = None) -> Member:
        """One more instance of the agent."""
        return await self.site.join(agent, settings=settings or self._settings)

    def scope(self, task: str) -> str:
        """The scope of a task of the client."""
        newest = self.site.broker.ledger.newest(f"sg.task.*.{OWNER}.{task}.>")
        assert newest is not None
        return subjects.parse_task(newest.subject).scope

    def history(self, task: str) -> History:
        """The task's history as stored now."""
        scope = self.scope(task)
        return fold(scope, self.site.broker.ledger.under(scope))

    def events(self, task: str) -> list[str]:
        """The events of the task that count, in order."""
        return [valid.subject.event for valid in self.history(task).valid]

    async def reach(self, task: str, event: str, count: int = 1) -> History:
        """Wait until the task has so many of this event. Fails after an hour of virtual time."""
        async with asyncio.timeout(3600):
            while True:
                if self.events(task).count(event) >= count:
                    return self.history(task)
                await asyncio.sleep(0.01)

    def append(self, scope: str, event: str, *, honest: bool, **fields: Any) -> int:
        """Append as a raw client does; `honest` with the compare-and-set headers of rule 1."""
        ledger = self.site.broker.ledger
        newest = ledger.newest(scope)
        subject = scope[:-1] + event
        kind = entries.ENTRIES[event.split(".", maxsplit=1)[0]]
        common: dict[str, Any] = {
            "v": 1,
            "id": f"raw-{next(self._ids)}",
            "task": subjects.parse_task(f"{scope[:-1]}submitted").task,
            "time": self.site.clock.now(),
            "writer": "mallory",
            "status": values.Status(state="queued", submitted_at=START),
        }
        last = newest.sequence if newest else 0
        headers = header_block(expect_headers(last, scope) if honest else {})
        self.site.broker.store(subject, headers, codec.encode(kind(**(common | fields))))
        return ledger.last_sequence


@asynccontextmanager
async def stage(
    *agents: Agent, coordinators: int = 1, settings: WorkerSettings | None = None
) -> AsyncGenerator[Stage]:
    """Enter a mesh with these agents."""
    async with Site() as site:
        for _ in range(coordinators):
            await site.coordinate()
        made = Stage(site, settings)
        await made.mesh.start()
        for agent in agents:
            await made.join(agent)
        try:
            yield made
        finally:
            await made.mesh.close()


class Gate:
    """Something that handlers pass one by one, and tests open and count."""

    def __init__(self) -> None:
        self.entered = 0
        self.inside = 0
        self.most = 0
        self.left: list[str] = []
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let all pass."""
        self._open.set()

    async def __call__(self, name: str = "") -> None:
        """Wait until it is open."""
        self.entered += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self._open.wait()
            self.left.append(name)
        finally:
            self.inside -= 1


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true. Fails after an hour of virtual time."""
    async with asyncio.timeout(3600):
        while not true():
            await asyncio.sleep(0.01)
