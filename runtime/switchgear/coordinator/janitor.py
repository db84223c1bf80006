"""The janitor: deletes what has ended long ago, task by task, so that the ledger never fills up with the past.

One replica at a time does it (a lease); two at once would only find things gone. A task goes in the order that leaves
it whole or a remnant wherever a crash cuts in (`lifecycle.retention`); the next pass finds the rest by its terminal
entry, which goes last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar, cast

from switchgear import crashpoint
from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import subjects
from switchgear.contract.stored import Stored
from switchgear.coordinator import reading
from switchgear.coordinator.archive import Archive
from switchgear.errors import SwitchgearError
from switchgear.lifecycle import retention
from switchgear.lifecycle.history import History
from switchgear.lifecycle.retention import Policy
from switchgear.loop import supervised
from switchgear.tasks.scopes import scope_of

T = TypeVar("T")
log = logging.getLogger(__name__)

EVERY = timedelta(minutes=1)
"""Between two passes."""
WHEN_TIGHT = timedelta(seconds=5)
"""Between two passes while the ledger is nearly full."""
REFUSED_FOR = timedelta(minutes=1)
"""How long a rejected task is kept while the ledger is nearly full: its sender has heard of it by then."""
BATCH = 200
"""Tasks deleted between two pauses."""
PAUSE = timedelta(milliseconds=50)
AT_A_TIME = 8
"""Tasks read or deleted at once: what runs shall hardly notice."""


class Lease(Protocol):
    """Who of the replicas does it."""

    async def held(self) -> bool:
        """Whether it is this one, now."""
        ...


class _Doomed(NamedTuple):
    """A task that may go."""

    scope: str
    entries: Sequence[Stored]
    """In the order in which they go."""


class _Kept(NamedTuple):
    """Why a task that is due is kept: this one, which it belongs to, is open."""

    root: str


class Janitor:
    """One replica's. `start`, then `stop`."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        lease: Lease,
        policy: Policy,
        *,
        archive: Archive | None = None,
        is_tight: Callable[[], bool] = lambda: False,
    ) -> None:
        """`archive` gets what is deleted; `is_tight` tells whether the ledger is nearly full."""
        self._bus = bus
        self._clock = clock
        self._lease = lease
        self._policy = policy
        self._archive = archive
        self._is_tight = is_tight
        self._kept: dict[int, _Kept] = {}
        """By terminal sequence: tasks that were due in the last pass and had to stay."""
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work."""
        self._working = asyncio.create_task(supervised("janitor", self._work_on), name="janitor")

    async def stop(self) -> None:
        """Work no more."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def clean(self) -> int:
        """One pass: delete what is due. Returns how many tasks went. Raises Unavailable, OSError (the archive)."""
        now = self._clock.now()
        counts = await asyncio.gather(*map(self._bus.ledger.count, subjects.TERMINAL_FILTERS))
        beyond = retention.excess(sum(counts), self._policy)
        oldest = now - self._policy.age
        gone, self._kept = await self._pass(subjects.TERMINAL_FILTERS, beyond, oldest)
        return gone

    async def clean_rejected(self) -> int:
        """The same for rejected tasks alone, whatever the policy: they make room at once."""
        filters = (subjects.REJECTED_FILTER,)
        gone, _ = await self._pass(filters, 0, self._clock.now() - REFUSED_FOR)
        return gone

    async def _work_on(self) -> None:
        passed = self._clock.now()
        while True:
            await asyncio.sleep(min(EVERY, WHEN_TIGHT).total_seconds())
            tight, now = self._is_tight(), self._clock.now()
            if not tight and now - passed < EVERY:
                continue
            try:
                if not await self._lease.held():
                    passed = now
                    continue
                gone = await self.clean_rejected() if tight else 0
                if now - passed >= EVERY:
                    passed = now
                    gone += await self.clean()
            except (SwitchgearError, OSError) as error:
                log.warning("janitor.interrupted %s", error)
            else:
                if gone:
                    log.info("janitor.deleted %d tasks", gone)

    async def _pass(
        self, filters: Sequence[str], beyond: int, oldest: datetime
    ) -> tuple[int, dict[int, _Kept]]:
        gone = place = 0
        kept: dict[int, _Kept] = {}
        roots: dict[str, str] = {}
        async with aclosing(self._ended(filters)) as ended:
            batch: list[Stored] = []
            async for one in ended:
                due = retention.is_due(one, place, beyond, oldest)
                place += 1
                if due:
                    batch.append(one)
                if len(batch) >= BATCH or not due:
                    gone += await self._delete(batch, kept, roots)
                    batch = []
                if not due:
                    break
            gone += await self._delete(batch, kept, roots)
        return gone, kept

    async def _ended(self, filters: Sequence[str]) -> AsyncGenerator[Stored]:
        """Terminal entries, those of the tasks that ended first before others; no bodies."""
        ledger = self._bus.ledger
        after = await ledger.first_sequence() - 1
        followed = cast(
            "AsyncGenerator[list[Stored]]", ledger.follow(after, filters=filters, bodies=False)
        )
        async with aclosing(followed) as batches:
            async for batch in batches:
                if not batch:
                    return
                for one in batch:
                    yield one

    async def _delete(
        self, ended: Sequence[Stored], kept: dict[int, _Kept], roots: dict[str, str]
    ) -> int:
        """Delete those of these tasks that may go. Returns how many did."""
        if not ended:
            return 0
        doomed: list[_Doomed] = []
        for part in _parts(ended, AT_A_TIME):
            read = await asyncio.gather(*(self._read(one, kept, roots) for one in part))
            doomed += [one for one in read if one is not None]
        if not doomed:
            return 0
        if self._archive is not None:
            entries = [entry for one in doomed for entry in one.entries]
            await asyncio.to_thread(self._archive.write, entries, self._clock.now())
            crashpoint.reach("janitor.archived")
        for part in _parts(doomed, AT_A_TIME):
            await asyncio.gather(*map(self._remove, part))
        await asyncio.sleep(PAUSE.total_seconds())
        return len(doomed)

    async def _read(
        self, ended: Stored, kept: dict[int, _Kept], roots: dict[str, str]
    ) -> _Doomed | None:
        """The task with this terminal entry, if it may go."""
        before = self._kept.get(ended.sequence)
        if before is not None and await self._is_open(before.root, roots):
            kept[ended.sequence] = before
            return None
        scope = scope_of(ended.subject)
        history = await reading.history_now(self._bus.ledger, scope)
        if not history.last:
            return None  # gone already: a scope with two terminal entries
        if not retention.is_finished(history):
            kept[ended.sequence] = _Kept(scope)
            return None
        root = history.submitted.root if history.submitted is not None else ""
        # a root is named without its capability, which another task of the same id may have: the parent is exact
        for above in (history.parent, root and subjects.scope("*", history.owner, root)):
            if above and await self._is_open(above, roots):
                kept[ended.sequence] = _Kept(above)
                return None
        return _Doomed(scope, retention.order(history))

    async def _is_open(self, scope: str, roots: dict[str, str]) -> bool:
        """Whether this task has not ended; looked up once a pass."""
        known = roots.get(scope)
        if known is None:
            known = roots[scope] = "open" if await self._look(scope) else "ended"
        return known == "open"

    async def _look(self, scope: str) -> bool:
        tail = await self._bus.ledger.leader_tail(scope)
        if tail is None:
            return False
        history: History = await reading.history_up_to(
            self._bus.ledger, scope_of(tail.subject), tail
        )
        return history.is_open and not history.remnant

    async def _remove(self, doomed: _Doomed) -> None:
        """Delete one task's entries, and raw ones that slipped in unseen; a new task of the same id stays."""
        for entry in doomed.entries:
            await self._bus.ledger.delete(entry.sequence)
            crashpoint.reach("janitor.deleted")
        left = await reading.history_now(self._bus.ledger, doomed.scope)
        if left.position == "none":
            for entry in retention.order(left):
                await self._bus.ledger.delete(entry.sequence)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in parts of this size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
