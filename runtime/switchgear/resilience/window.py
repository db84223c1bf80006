"""What a breaker remembers of the calls so far: the last so many, or those of the last so long. Pure, O(1) a call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

MAX_BUCKETS = 60
"""Parts of a span of time; a part ages as a whole."""
_FAILED, _SLOW = 1, 2


class Totals(NamedTuple):
    """What a window holds."""

    calls: int = 0
    failed: int = 0
    slow: int = 0

    @property
    def failure_rate(self) -> float:
        """Share of the calls that failed, 0 to 1; 0 of none."""
        return self.failed / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """Share of the calls that were slow, 0 to 1; 0 of none."""
        return self.slow / self.calls if self.calls else 0.0


class Window(Protocol):
    """Outcomes of calls, the old ones forgotten. `now` is in seconds of a clock that only runs forward."""

    calls: int
    """What it holds since the last look at the time, as of its other two counts."""
    failed: int
    slow: int

    def record(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one call."""
        ...

    def totals(self, now: float) -> Totals:
        """What the window holds."""
        ...


class CountWindow:
    """The last `size` calls."""

    __slots__ = ("_at", "_ring", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._at = self.calls = self.failed = self.slow = 0

    def record(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one call."""
        del now
        ring, at = self._ring, self._at
        if self.calls == len(ring):
            gone = ring[at]
            self.failed -= gone & _FAILED
            self.slow -= (gone & _SLOW) >> 1
        else:
            self.calls += 1
        ring[at] = failed * _FAILED + slow * _SLOW
        self.failed += failed
        self.slow += slow
        self._at = (at + 1) % len(ring)

    def totals(self, now: float) -> Totals:
        """What the window holds."""
        del now
        return Totals(self.calls, self.failed, self.slow)


class TimeWindow:
    """The calls of the last `span` seconds, in parts of a second each, or of a sixtieth of a longer span."""

    __slots__ = ("_counts", "_newest", "_width", "calls", "failed", "slow")

    def __init__(self, span: float) -> None:
        parts = min(max(round(span), 1), MAX_BUCKETS)
        self._width = span / parts
        self._counts = [[0, 0, 0] for _ in range(parts)]
        self._newest: int | None = None
        self.calls = self.failed = self.slow = 0

    def record(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one call."""
        part = self._part(now)
        part[0] += 1
        part[1] += failed
        part[2] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow

    def totals(self, now: float) -> Totals:
        """What the window holds."""
        self._part(now)
        return Totals(self.calls, self.failed, self.slow)

    def _part(self, now: float) -> list[int]:
        """The part that `now` falls in, after forgetting those that are too old."""
        number, counts = int(now // self._width), self._counts
        newest = self._newest
        if newest is None or number > newest:
            aged = len(counts) if newest is None else min(number - newest, len(counts))
            for old in range(number - aged + 1, number + 1):
                part = counts[old % len(counts)]
                self.calls -= part[0]
                self.failed -= part[1]
                self.slow -= part[2]
                part[0] = part[1] = part[2] = 0
            self._newest = number
        else:
            number = newest  # a clock that steps back makes no old call young
        return counts[number % len(counts)]
