"""What a client can look at: its tasks, and who serves the mesh."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, Unpack

from switchgear.bus.port import Bus
from switchgear.client.options import ListFilters
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import queries
from switchgear.tasks import asking
from switchgear.tasks.handle import TaskHandle
from switchgear.tasks.scopes import scope_of
from switchgear.tasks.status import status_of, tail_of
from switchgear.tasks.watch import Watch

T = TypeVar("T")


class View:
    """A connection that looks: what it shows belongs to its principal."""

    def __init__(self, bus: Bus, principal: str, *, clock: Clock = SYSTEM) -> None:
        self.bus = bus
        self.principal = principal
        """Who acts: the owner of what is submitted here."""
        self.watch = Watch(bus)
        self._clock = clock

    def now(self) -> datetime:
        """The time by this client's clock."""
        return self._clock.now()

    async def get(self, id: str) -> TaskHandle[Any]:
        """A handle on a task of this principal. Raises NotFound."""
        tail = await tail_of(self.bus.ledger, self.principal, id)
        return self._handle(scope_of(tail.subject), object)

    async def status(self, id: str) -> queries.TaskRow:
        """What the newest entry of a task says. Raises NotFound."""
        return await status_of(self.bus.ledger, self.principal, id)

    async def list(self, **filters: Unpack[ListFilters]) -> queries.TaskList:
        """Tasks of this principal, newest first, from the read model; its lag is in the answer.

        Raises Unavailable when no read model runs (`switchgear observe`), ProtocolError for what is no token or
        beyond its limits, NotFound for an unknown `before`.
        """
        return await self.ask("list", queries.ListQuery(**filters), queries.TaskList)

    async def timeline(self, root: str) -> queries.Timeline:
        """All entries of a run, from the read model, asked for page by page."""
        moments: list[queries.Moment] = []
        while True:
            after = moments[-1].sequence if moments else 0
            query = queries.TimelineQuery(root=root, after=after)
            page = await self.ask("timeline", query, queries.Timeline)
            moments += page.moments
            if not page.more or not page.moments:
                return queries.Timeline(moments=tuple(moments), lag=page.lag)

    async def capabilities(self) -> queries.Capabilities:
        """What the mesh offers now."""
        return await self.ask("capabilities", queries.Nothing(), queries.Capabilities)

    async def agents(self) -> queries.Agents:
        """The live instances."""
        return await self.ask("agents", queries.Nothing(), queries.Agents)

    async def explain(self, id: str) -> queries.Explanation:
        """Why a task is where it is. Raises NotFound."""
        return await self.ask("explain", queries.ExplainQuery(task=id), queries.Explanation)

    async def ask(self, verb: str, query: Any, answer: type[T]) -> T:
        """Ask a service of the mesh. Raises what it answers, or Unavailable."""
        return await asking.ask(self.bus.core, verb, self.principal, query, answer)

    def _handle(self, scope: str, output: Any) -> TaskHandle[Any]:
        return TaskHandle(self.bus, self.watch, scope, output, clock=self._clock)
