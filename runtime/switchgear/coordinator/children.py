"""How a suspended handler's waits for children stand: about three reads for each child in all, however often asked.

Children are looked at in order. What is known of the first ones is remembered, so a wake by any other child costs
one read: of the first child that was open, since the wake of that one may have gone to another replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from switchgear.contract import entries, subjects
from switchgear.contract.values import Awaited
from switchgear.coordinator.endings import Ending, Endings
from switchgear.coordinator.recent import Recent
from switchgear.lifecycle.history import History
from switchgear.lifecycle.suspension import Condition

LOOKS = 8
"""Children that are looked at together, at most."""
WALKS = 10_000
"""Waits for children that are remembered."""


@dataclass(slots=True)
class _Walk:
    """How far the children of one wait are known."""

    first: int = 0
    """All children before this one have ended."""
    failures: int = 0
    """How many of those did not complete."""


class Children:
    """Looks after the children of all suspended tasks."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings
        self._walks: Recent[tuple[str, int, str], _Walk] = Recent(WALKS)

    async def conditions(self, history: History, waits: Iterable[Awaited]) -> dict[str, Condition]:
        """By key, how the waits for children stand, now. Raises Unavailable."""
        found: dict[str, Condition] = {}
        for wait in waits:
            if wait.kind == "child":
                end = await self._endings.of(scope_of(history, wait))
                found[wait.key] = "open" if end is None else _of_one(end)
            elif wait.kind == "children":
                found[wait.key] = await self._walked(history, wait, self._walk(history, wait))
        return found

    def ended(self, history: History, wait: Awaited) -> int:
        """How many of this wait's children are known to have ended, the first ones."""
        return self._walk(history, wait).first

    def clear(self) -> None:
        """Forget all: a broker that was away may have lost its newest entries."""
        self._walks.clear()

    def _walk(self, history: History, wait: Awaited) -> _Walk:
        key = history.scope, waiting_at(history), wait.key
        walk = self._walks.get(key)
        if walk is None:
            walk = _Walk()
            self._walks.put(key, walk)
        return walk

    async def _walked(self, history: History, wait: Awaited, walk: _Walk) -> Condition:
        first, failures = walk.first, walk.failures
        width, is_open = 1, False
        while first < wait.count and not is_open and not _too_many(wait, failures):
            together = range(first, min(first + width, wait.count))
            looks = (self._endings.of(scope_of(history, wait, index)) for index in together)
            for end in await asyncio.gather(*looks):
                is_open = is_open or end is None
                if not is_open:
                    first += 1
                    failures += end != "completed"
            width = min(2 * width, LOOKS)
            if first > walk.first:  # else somebody else has come further meanwhile
                walk.first, walk.failures = first, failures
        if _too_many(wait, failures):
            return "failed"
        return "open" if is_open else "done"


def scope_of(history: History, wait: Awaited, index: int | None = None) -> str:
    """The scope of the child that this wait of the task is for; of several children, of this one."""
    task = wait.task if index is None else f"{wait.task}-{index}"
    return subjects.scope(wait.capability, history.owner, task)


def waiting_at(history: History) -> int:
    """The sequence of the task's newest `waiting`; 0 for none."""
    for stored, _, entry in reversed(history.valid):
        if isinstance(entry, entries.Waiting):
            return stored.sequence
    return 0


def _of_one(end: Ending) -> Condition:
    return "done" if end == "completed" else "failed"


def _too_many(wait: Awaited, failures: int) -> bool:
    return wait.max_failures is not None and failures > wait.max_failures
