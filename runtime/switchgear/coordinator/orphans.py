"""Cancels the open children of a task that ends or is being cancelled (rule 14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import entries, limits, subjects
from switchgear.contract.queries import ListQuery, TaskList
from switchgear.contract.values import Awaited
from switchgear.coordinator.recent import Recent
from switchgear.coordinator.viewing import Viewing
from switchgear.errors import SwitchgearError
from switchgear.lifecycle.history import History
from switchgear.lifecycle.offspring import Child, named
from switchgear.registry.watch import RegistryWatch
from switchgear.tasks.asking import ask
from switchgear.tasks.requests import request_cancel

log = logging.getLogger(__name__)

TOGETHER = 16
"""Children that one parent's end cancels at a time."""
PATIENCE = timedelta(seconds=1)
"""How long the read model is asked for children that no entry names."""
DONE = 10_000
"""Ends that are remembered as dealt with."""
_PAGE = 1000


class Orphans:
    """Finds the children of a task, and asks for the end of those that are open and do not outlive it."""

    def __init__(self, bus: Bus, clock: Clock, registry: RegistryWatch, viewing: Viewing) -> None:
        self._bus = bus
        self._clock = clock
        self._registry = registry
        self._viewing = viewing
        self._done: Recent[tuple[str, int], bool] = Recent(DONE)

    async def cancel(self, history: History, reason: str) -> None:
        """Ask for their end, once for each state of the parent. Raises Unavailable."""
        key = history.scope, history.last
        if self._done.get(key):
            return
        children = set(named(history, await self._waits(history)))
        if self._may_have_others(history):
            children.update([child async for child in self._listed(history)])
        ordered = sorted(children)
        for at in range(0, len(ordered), TOGETHER):
            some = ordered[at : at + TOGETHER]
            await asyncio.gather(*(self._end(history, child, reason) for child in some))
        self._done.put(key, value=True)

    async def _waits(self, history: History) -> list[Awaited]:
        found: list[Awaited] = []
        for valid in history.valid:
            if isinstance(valid.entry, entries.Waiting):
                found.extend(await self._viewing.waits.of(valid.entry))
        return found

    def _may_have_others(self, history: History) -> bool:
        """Whether there may be children that no entry names: of a holder that died, or was told to stop.

        A handler that came to its end has named what it left open; one whose agent declares no calls has none.
        """
        if history.ended in ("completed", "rejected") or not history.attempt:
            return False
        pools = self._registry.table.pools(history.capability)
        return not pools or any(pool.offer.calls for pool in pools)

    async def _listed(self, history: History) -> AsyncIterator[Child]:
        """The open children that the read model knows; none where it does not answer."""
        before: str | None = None
        for _ in range(0, limits.MAX_CHILDREN, _PAGE):
            query = ListQuery(parent=history.task, open_only=True, limit=_PAGE, before=before)
            try:
                page = await ask(
                    self._bus.core, "list", history.owner, query, TaskList, timeout=PATIENCE
                )
            except SwitchgearError as error:
                log.debug("coordinator.children-unlisted %s: %s", history.scope, error)
                return
            for row in page.tasks:
                if row.parent == history.task and row.owner == history.owner:
                    yield Child(row.capability, row.id)
            if not page.more or not page.tasks:
                return
            before = page.tasks[-1].id

    async def _end(self, parent: History, child: Child, reason: str) -> None:
        """Ask for the end of this child, if it is one, is open, and does not outlive its parent."""
        scope = subjects.scope(child.capability, parent.owner, child.task)
        if await self._viewing.endings.of(scope) is not None:
            return
        history = await self._viewing.histories.now(scope)
        submission = history.submitted
        if submission is None or submission.detached or history.parent != parent.scope:
            return
        if await request_cancel(self._bus, self._clock, scope, reason):
            log.debug("coordinator.child-cancelled %s", scope)
