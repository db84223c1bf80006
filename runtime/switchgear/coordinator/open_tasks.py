"""Which tasks are open, as their beginnings and ends in the ledger tell: read in batches, without bodies.

A hint for whoever looks after what got lost: an end that only a whole history would show to be void is taken for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple, cast

from switchgear.bus.port import Ledger
from switchgear.contract import subjects
from switchgear.contract.stored import Stored, expectation
from switchgear.tasks.scopes import scope_of

_OF_RUNS = (".completed", ".dead")
"""Ends of tasks that ran: they never follow a submission directly."""


class Begun(NamedTuple):
    """When a task was submitted."""

    sequence: int
    time_ns: int


class OpenTasks:
    """All that seem open, up to the last look; whoever acts on one of them reads its history."""

    def __init__(self, ledger: Ledger, capability: str = "*") -> None:
        self._ledger = ledger
        events = ("submitted", *sorted(subjects.TERMINAL))
        self._filters = tuple(f"sg.task.{capability}.*.*.{event}" for event in events)
        self._read = 0
        self._open: dict[str, Begun] = {}
        """By scope, oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    async def catch_up(self) -> None:
        """Read what was stored since the last look. Raises Unavailable."""
        last = await self._ledger.last_sequence()
        if last < self._read:  # the broker has lost its newest entries
            self._read = 0
            self._open.clear()
        if last == self._read:
            return
        following = self._ledger.follow(self._read, filters=self._filters, bodies=False)
        async with aclosing(cast("Any", following)) as batches:
            async for batch in batches:
                self._take(batch)
                if not batch or batch[-1].sequence >= last:
                    break
        self._read = max(self._read, last)

    def beyond(self, sequence: int, before: datetime) -> Iterator[str]:
        """Scopes of those submitted behind this sequence of the ledger and before this time, oldest first."""
        limit = before.timestamp() * 1e9
        for scope, begun in self._open.items():
            if begun.time_ns > limit:
                return
            if begun.sequence > sequence:
                yield scope

    def begun(self, scope: str) -> int:
        """The sequence with which an open task began; 0 for any other."""
        found = self._open.get(scope)
        return 0 if found is None else found.sequence

    def oldest(self) -> int:
        """The sequence with which the oldest of them began; the next of the ledger where none is open."""
        first = next(iter(self._open.values()), None)
        return self._read + 1 if first is None else first.sequence

    def ended(self, scope: str) -> None:
        """This one has ended, as its history says."""
        self._open.pop(scope, None)

    def _take(self, batch: Iterable[Stored]) -> None:
        for stored in batch:
            self._read = max(self._read, stored.sequence)
            scope = scope_of(stored.subject)
            expected = expectation(stored.headers, scope)
            if expected is None:
                continue
            if stored.subject.endswith(".submitted"):
                self._open.setdefault(scope, Begun(stored.sequence, stored.time_ns))
            elif not stored.subject.endswith(_OF_RUNS) or expected != self.begun(scope):
                self._open.pop(scope, None)
