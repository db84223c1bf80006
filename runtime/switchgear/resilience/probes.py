"""The probes of one half-open breaker: which are waited for, which are late, and what the others showed. Pure."""

from __future__ import annotations

from switchgear.resilience.window import Totals


class Probes:
    """Calls that decide together; each has a place until it ends or is late."""

    __slots__ = ("_late_at", "_places", "ended")

    def __init__(self, places: int) -> None:
        self._places = places
        self._late_at: dict[int, float] = {}
        self.ended = Totals()
        """Those that showed something."""

    def begin(self, permit: int, late_at: float) -> None:
        """One is made; it gives up its place at `late_at`."""
        self._late_at[permit] = late_at

    def end(self, permit: int) -> bool:
        """One is over, late or not; whether there was one. Each ends once."""
        return self._late_at.pop(permit, None) is not None

    def count(self, *, failed: bool, slow: bool) -> Totals:
        """Take in what one showed."""
        before = self.ended
        self.ended = Totals(before.calls + 1, before.failed + failed, before.slow + slow)
        return self.ended

    def forget(self) -> None:
        """Those under way count no more."""
        self._late_at.clear()

    def room(self, now: float) -> int:
        """How many more may be made now."""
        waited_for = sum(late > now for late in self._late_at.values())
        # with late ones, more may be under way than there are places
        return max(self._places - self.ended.calls - waited_for, 0)

    def late(self, now: float) -> int:
        """How many are under way without a place."""
        return sum(late <= now for late in self._late_at.values())

    def next_late(self, now: float) -> float | None:
        """When the next one gives up its place; None: none has one."""
        return min((late for late in self._late_at.values() if late > now), default=None)
