"""Who is dispatched next when a pool cannot take everything at once (rule 19). Pure.

Lanes stay shallow: what would only wait in them waits at the intake, where owners are served in turn. So a flood
of one owner delays the others by what a lane holds, whatever the flood's length.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from switchgear.contract import subjects
from switchgear.contract.entries import Submitted

T = TypeVar("T")

LEVELS = len(subjects.PRIORITIES)

_LEVEL: dict[str, int] = {priority: at for at, priority in enumerate(subjects.PRIORITIES)}
SPARE = 16
"""Tasks that a lane may hold beyond one for each slot, if it has so many slots, however long they take."""
STOCK = 0.15
"""Seconds of work that it may hold beyond that, so that agents with short tasks never wait for a coordinator."""
CROWDED = 64
"""Submissions of one owner for one capability that a replica holds back in memory."""
CROWDED_IN_ALL = 512
"""Submissions of all owners that it holds back from the shared intake, so that the intake keeps moving."""
_LOW = 4
"""A lane is looked at again when less than this part of its allowance is left."""
_SHORTEST = 0.005
"""Seconds; a rate is not taken from looks that lie closer together."""


class Backlogged(NamedTuple):
    """Whose submissions for what."""

    capability: str
    owner: str


def allowance(slots: int, rate: float) -> int:
    """How many tasks a pool's lanes may hold, those that run included; `rate`: tasks it completes a second."""
    return slots + max(min(slots, SPARE), math.ceil(STOCK * rate))


@dataclass(slots=True)
class Fill:
    """How full the lanes of one pool are, as one replica knows it: what it saw, and what it dispatched since."""

    depths: tuple[int, ...] = (0,) * LEVELS
    """Tasks in each lane at the last look, highest priority first."""
    since: list[int] = field(default_factory=lambda: [0] * LEVELS)
    """Dispatched into each by this replica since then."""
    rate: float = 0.0
    """Tasks completed a second, smoothed; a lower bound where several replicas dispatch."""
    seen_at: float | None = None
    """Of the last look, in seconds of a clock that only runs forward."""
    _allowed: tuple[int, float, int] = (0, -1.0, 0)
    """The allowance, behind the slots and the rate that it was worked out from."""

    @property
    def depth(self) -> int:
        """Tasks in all lanes at the last look."""
        return sum(self.depths)

    def room(self, slots: int, level: int = LEVELS - 1) -> int:
        """How many more may be dispatched now at this level of priority: lower ones are not in its way."""
        ahead = level + 1
        return self.allowance(slots) - sum(self.depths[:ahead]) - sum(self.since[:ahead])

    def allowance(self, slots: int) -> int:
        """How many tasks the lanes may hold at the present rate."""
        known = self._allowed
        if known[0] != slots or known[1] != self.rate:
            known = self._allowed = (slots, self.rate, allowance(slots, self.rate))
        return known[2]

    def take(self, slots: int, level: int) -> bool:
        """Count one more dispatch at this level of priority, if there is room for it."""
        if self.room(slots, level) <= 0:
            return False
        self.since[level] += 1
        return True

    def is_low(self, slots: int) -> bool:
        """Whether it is time to look again."""
        return self.room(slots) < self.allowance(slots) // _LOW

    def looked(self, depths: tuple[int, ...], before: Sequence[int], now: float) -> None:
        """A look has shown these depths; `before`: of `since`, what had been dispatched when it was asked for."""
        if self.seen_at is not None and now - self.seen_at >= _SHORTEST:
            done = max(0, self.depth + sum(before) - sum(depths))
            self.rate += (done / (now - self.seen_at) - self.rate) / 2
        self.depths, self.seen_at = depths, now
        self.since = [since - one for since, one in zip(self.since, before, strict=True)]


def level(submission: Submitted) -> int:
    """The place of its priority among all, 0 for the highest; one that nobody knows is rejected in a moment."""
    return _LEVEL.get(submission.priority, 0)


def rank(submission: Submitted) -> int:
    """The order among one owner's submissions, lowest first: by priority, and of each the children first.

    Children belong to tasks that run and may be waiting for them.
    """
    return 2 * level(submission) + (submission.parent is None)


def is_urgent(submission: Submitted) -> bool:
    """Whether it may pass what its owner submitted before it."""
    return submission.priority == "high" or submission.parent is not None


@dataclass(slots=True)
class Turns(Generic[T]):
    """What is held back for one pool, by owner: owners in turn, each one's by rank, then oldest first."""

    _owners: dict[str, list[tuple[int, int, int, T]]] = field(
        default_factory=dict[str, list[tuple[int, int, int, T]]]
    )
    """In the order in which they are served next; each a heap."""
    _added: int = 0

    def __len__(self) -> int:
        return sum(map(len, self._owners.values()))

    def __bool__(self) -> bool:
        return bool(self._owners)

    def add(self, owner: str, rank: int, sequence: int, item: T) -> None:
        """Hold it back; a new owner is served after all others."""
        self._added += 1
        heapq.heappush(self._owners.setdefault(owner, []), (rank, sequence, self._added, item))

    def next(self) -> T | None:
        """Take out who is served now; None where nothing is held back."""
        if not self._owners:
            return None
        owner = next(iter(self._owners))
        waiting = self._owners.pop(owner)
        item = heapq.heappop(waiting)[-1]
        if waiting:
            self._owners[owner] = waiting
        return item

    def of(self, owner: str) -> list[T]:
        """What is held back of this owner, in no order."""
        return [one[-1] for one in self._owners.get(owner, ())]

    def everything(self) -> Iterator[T]:
        """All that is held back, in no order."""
        for waiting in self._owners.values():
            for one in waiting:
                yield one[-1]

    def take(self, owner: str, wanted: Callable[[T], bool]) -> list[T]:
        """Take these of the owner's out, without their turn; oldest first."""
        waiting = self._owners.get(owner, [])
        kept = [one for one in waiting if not wanted(one[-1])]
        if kept:
            heapq.heapify(kept)
            self._owners[owner] = kept  # in its place
        else:
            self._owners.pop(owner, None)
        taken = [one for one in waiting if wanted(one[-1])]
        return [one[-1] for one in sorted(taken, key=lambda one: one[1:3])]


def crowded(held: Mapping[Backlogged, int], last: Backlogged) -> Backlogged | None:
    """Who needs an intake of its own, now that `last` was held back; None: nobody.

    Too many of one; or too many of all, and then whoever has most.
    """
    if held.get(last, 0) > CROWDED:
        return last
    if sum(held.values()) > CROWDED_IN_ALL:
        return max(held, key=lambda one: held[one])
    return None


def in_turns(timers: Iterable[str]) -> list[str]:
    """The timers of many tasks with their owners in turn, each one's in the order given."""
    owners: dict[str, list[str]] = {}
    for timer in timers:
        owners.setdefault(subjects.parse_timer(timer).owner, []).append(timer)
    rounds = max(map(len, owners.values()), default=0)
    return [mine[at] for at in range(rounds) for mine in owners.values() if at < len(mine)]
