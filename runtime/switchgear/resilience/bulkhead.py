"""How many calls to one dependency go on at a time, and how many may wait for a place. Pure counts."""

from __future__ import annotations

from typing import Literal

Arrival = Literal["pass", "wait", "full"]


class Bulkhead:
    """The places of one dependency."""

    __slots__ = ("_places", "_queue", "busy", "waiting")

    def __init__(self, places: int | None, queue: int) -> None:
        """`places`: calls at a time, None for any number; `queue`: calls that may wait."""
        self._places = places
        self._queue = queue
        self.busy = 0
        """Calls that have a place."""
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether the next call would be refused."""
        return (
            self._places is not None and self.busy >= self._places and self.waiting >= self._queue
        )

    def arrive(self) -> Arrival:
        """A call comes: it takes a place, a turn in the queue, or nothing."""
        if self._places is None or self.busy < self._places:
            self.busy += 1
            return "pass"
        if self.waiting >= self._queue:
            return "full"
        self.waiting += 1
        return "wait"

    def hand_on(self) -> None:
        """A call gives its place to one that waits."""
        self.waiting -= 1

    def leave(self) -> None:
        """A call gives its place back, and none waits for it."""
        self.busy -= 1

    def give_up(self) -> None:
        """A call waits no longer."""
        self.waiting -= 1
