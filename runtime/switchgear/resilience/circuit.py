"""One breaker: closed, open, half-open, forced open, disabled. Pure: who asks tells the time.

A call takes a permit (`acquire`), and gives it back with a verdict: `success`, `failure`, or `release` for a call that
says nothing. A permit belongs to the state that gave it: a verdict that comes after the state has changed counts for
nothing.

A probe that does not answer keeps its place for as long as the breaker may stay open, and then is late: another one may
be made. It is no failure yet, since calls may be long, and what it answers counts as long as nothing is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal, NamedTuple

from switchgear.resilience.breaker import Breaker
from switchgear.resilience.probes import Probes
from switchgear.resilience.window import CountWindow, TimeWindow, Totals, Window

State = Literal["closed", "open", "half-open", "forced-open", "disabled"]

REFUSED = 0
"""What `acquire` gives in place of a permit."""
LOOK_AGAIN = 1.0
"""Seconds after which a half-open breaker is asked again whose probes are all under way."""
_LONGEST_GROWTH = 1e6


class Change(NamedTuple):
    """A breaker changed its state."""

    old: State
    new: State
    at: float
    """Seconds of the caller's clock."""
    why: str


class Forced(NamedTuple):
    """Who holds it in its state, since when, and why."""

    by: str
    at: float
    why: str


class Seen(NamedTuple):
    """A breaker at one moment."""

    state: State
    since: float
    """Seconds of the caller's clock."""
    until: float | None
    """When an open one lets probes through."""
    totals: Totals
    opened: int
    """How often it opened by itself."""
    why: str
    error_class: str
    """Of the failure that opened it; empty where none did."""
    forced: Forced | None


class Circuit:
    """The state machine of one dependency. All times are seconds of a clock that only runs forward."""

    __slots__ = (
        "_asked",
        "_closed_at",
        "_dice",
        "_duration",
        "_error_class",
        "_forced",
        "_given",
        "_last_failure",
        "_level",
        "_minimum",
        "_on_change",
        "_opened",
        "_permit",
        "_policy",
        "_probes",
        "_row",
        "_since",
        "_slow_after",
        "_state",
        "_until",
        "_why",
        "_window",
    )

    def __init__(
        self,
        policy: Breaker,
        now: float,
        dice: Callable[[], float],
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        """`dice` gives numbers in [0, 1)."""
        self._policy = policy
        self._dice = dice
        self._on_change = on_change
        slow = policy.slow_after
        self._slow_after = float("inf") if slow is None else slow.total_seconds()
        self._minimum = policy.minimum_calls
        if isinstance(policy.window, int):
            self._minimum = min(self._minimum, policy.window)
        self._state: State = "closed"
        self._since = now
        self._given = self._permit = 1
        self._window = _window(policy)
        self._row = 0
        self._last_failure = now
        self._probes = Probes(policy.probes)
        self._asked = now
        self._level = 0
        self._duration = 0.0
        self._until = now
        self._closed_at = now
        self._opened = 0
        self._why = ""
        self._error_class = ""
        self._forced: Forced | None = None

    @property
    def state(self) -> State:
        """The state; an open one whose time is over turns half-open when the next call asks."""
        return self._state

    def acquire(self, now: float) -> int:
        """A permit for one call, or REFUSED."""
        state = self._state
        if state in ("closed", "disabled"):
            return self._permit
        if not self.room(now):
            return REFUSED
        if state == "half-open":
            return self._probe(now)
        change = self._enter("half-open", now, "its open time is over")
        self._probes = Probes(self._policy.probes)
        permit = self._probe(now)
        self._tell(change)
        return permit

    def success(self, permit: int, now: float, took: float) -> None:
        """The call went well, in so many seconds."""
        if permit == self._permit:
            self._row = 0
            self._record(now, failed=False, slow=took > self._slow_after)
        elif self._probes.end(permit):
            self._probe_ended(now, failed=False, slow=took > self._slow_after)

    def failure(
        self,
        permit: int,
        now: float,
        took: float,
        error_class: str,
        why: str = "",
        retry_after: float | None = None,
    ) -> bool:
        """The call failed; its class decides whether that speaks against the dependency.

        `retry_after`: seconds that the dependency asks to wait; it opens for no less. Returns whether another probe may
        take its place, as `release` does.
        """
        if error_class in self._policy.answers:
            self.success(permit, now, took)
            return False
        if error_class not in self._policy.counts:
            return self.release(permit)
        probe = self._probes.end(permit)
        if probe or permit == self._permit:
            if retry_after is not None:
                self._asked = max(self._asked, now + retry_after)
            said = f"{error_class}: {why}" if why else error_class
            slow = took > self._slow_after
            if probe:
                self._probe_ended(now, failed=True, slow=slow, said=said, kind=error_class)
                return False
            within = self._policy.row_within.total_seconds()
            self._row = self._row + 1 if now - self._last_failure <= within else 1
            self._last_failure = now
            self._record(now, failed=True, slow=slow, said=said, kind=error_class)
        return False

    def release(self, permit: int) -> bool:
        """The call was not made, or says nothing: a cancel, a bug in the caller.

        Returns whether a probe ended so: another may take its place.
        """
        return self._probes.end(permit)

    def wait(self, now: float) -> float | None:
        """Seconds after which it makes sense to ask again; None: now."""
        if self.room(now) != 0:
            return None
        due = self.due(now)
        if due is None:
            return self._policy.open_for.total_seconds()  # only an order ends it
        return due if self._state == "open" else min(due, LOOK_AGAIN)

    def due(self, now: float) -> float | None:
        """Seconds until time alone may let through what is refused now; None: only an answer or an order does.

        Of a half-open one it is told also while it refuses nothing: its next probe may be late no sooner.
        """
        if self._state == "open":
            left = self._until - now
            return left if left > 0 else None
        if self._state == "half-open":
            late = self._probes.next_late(now)
            return self._patience(now) if late is None else late - now
        return None

    def room(self, now: float) -> int | None:
        """How many calls would be let through now; None: any number."""
        if self._state in ("closed", "disabled"):
            return None
        if self._state == "open":
            return self._policy.probes if now >= self._until else 0
        return self._probes.room(now) if self._state == "half-open" else 0

    def reset(self, now: float, by: str, why: str) -> None:
        """Close it, force nothing, and forget every call."""
        self._forced = None
        self._level = 0
        self._close(now, _told(by, why))

    def force_open(self, now: float, by: str, why: str) -> None:
        """Refuse every call until `reset`."""
        self._forced = Forced(by, now, why)
        self._error_class = ""
        self._turn("forced-open", now, _told(by, why))

    def disable(self, now: float, by: str, why: str) -> None:
        """Let every call through until `reset`; calls are counted, and decide nothing."""
        self._forced = Forced(by, now, why)
        self._turn("disabled", now, _told(by, why))

    def seen(self, now: float) -> Seen:
        """How it stands."""
        return Seen(
            self._state,
            self._since,
            self._until if self._state == "open" else None,
            self._probes.ended if self._state == "half-open" else self._window.totals(now),
            self._opened,
            self._told_why(now),
            self._error_class,
            self._forced,
        )

    def _told_why(self, now: float) -> str:
        late = self._probes.late(now)
        if not late:
            return self._why
        return f"{self._why}; {late} probe{'s are' if late > 1 else ' is'} late"

    def _record(
        self, now: float, *, failed: bool, slow: bool, said: str = "", kind: str = ""
    ) -> None:
        window = self._window
        window.record(now, failed=failed, slow=slow)
        # most windows hold nothing that could open it, and most calls pass here
        if (window.failed or window.slow) and self._state == "closed":
            why = self._too_many(Totals(window.calls, window.failed, window.slow))
            if why:
                again = self._level and now - self._closed_at < self._duration
                self._level = self._level + 1 if again else 1
                self._open(now, f"{why}, the last with {said}" if said else why, kind)

    def _too_many(self, totals: Totals) -> str:
        """Why these calls open the breaker; empty where they do not."""
        policy = self._policy
        if totals.calls < self._minimum:
            if 0 < policy.in_a_row <= self._row:
                return f"{self._row} calls in a row failed"
        elif totals.failed >= policy.failure_rate * totals.calls:
            return f"{totals.failed} of {totals.calls} calls failed"
        elif totals.slow >= policy.slow_rate * totals.calls:
            return f"{totals.slow} of {totals.calls} calls were slow"
        return ""

    def _probe(self, now: float) -> int:
        """The permit of a probe that there is room for."""
        self._given += 1
        self._probes.begin(self._given, now + self._patience(now))
        return self._given

    def _patience(self, now: float) -> float:
        """How long the next probe is waited for: longer by each set of probes that is late, as if it had failed."""
        return self._longest(self._level + self._probes.late(now) // self._policy.probes)

    def _probe_ended(
        self, now: float, *, failed: bool, slow: bool, said: str = "", kind: str = ""
    ) -> None:
        """Take in a probe's end; decide as soon as the other probes could not change it."""
        policy, probed = self._policy, self._probes.count(failed=failed, slow=slow)
        failures, slows = policy.failure_rate * policy.probes, policy.slow_rate * policy.probes
        left = policy.probes - probed.calls
        if probed.failed >= failures or probed.slow >= slows:
            self._level += 1
            why = f"{probed.failed} of {probed.calls} probes failed"
            why += f", {probed.slow} were slow" if probed.slow else ""
            self._open(now, f"{why}, the last with {said}" if said else why, kind)
        elif probed.failed + left < failures and probed.slow + left < slows:
            self._close(now, f"{probed.calls - probed.failed} of {probed.calls} probes went well")

    def _open(self, now: float, why: str, error_class: str) -> None:
        spread = self._policy.jitter * self._dice()
        most = self._policy.max_open_for.total_seconds()
        drawn = self._longest(self._level) * (1 - spread)
        # never sooner than asked, and not together with all who were asked the same
        asked = min((self._asked - now) * (1 + spread), most)
        if asked > drawn:
            why = f"{why}; it asked for {round(self._asked - now, 1):g} s"
        self._duration = max(drawn, asked)
        self._until = now + self._duration
        self._opened += 1
        self._error_class = error_class or "timeout"  # without a failure it was slow calls
        self._turn("open", now, why)

    def _longest(self, level: int) -> float:
        """How long it stays open at most when it opened so many times."""
        policy = self._policy
        growth = min(policy.growth ** min(level - 1, 64), _LONGEST_GROWTH)
        return min(policy.open_for.total_seconds() * growth, policy.max_open_for.total_seconds())

    def _close(self, now: float, why: str) -> None:
        self._window = _window(self._policy)
        self._row = 0
        self._closed_at = self._asked = now
        self._error_class = ""
        self._turn("closed", now, why)

    def _turn(self, new: State, now: float, why: str) -> None:
        self._tell(self._enter(new, now, why))

    def _enter(self, new: State, now: float, why: str) -> Change:
        """Enter a state: the permits of the one before count no more."""
        change = Change(self._state, new, now, why)
        self._state, self._since, self._why = new, now, why
        self._given += 1
        self._permit = self._given
        self._probes.forget()
        return change

    def _tell(self, change: Change) -> None:
        """Tell of a change, once the breaker stands as it does from then on."""
        if self._on_change is not None:
            self._on_change(change)


def _window(policy: Breaker) -> Window:
    window = policy.window
    if isinstance(window, timedelta):
        return TimeWindow(window.total_seconds())
    return CountWindow(window)


def _told(by: str, why: str) -> str:
    return f"{by}: {why}" if why else f"by {by}"
