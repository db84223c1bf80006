"""How a dependency is guarded: when its breaker opens, for how long, and what counts. Pure data."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from switchgear.contract.values import ErrorClass

COUNTED: frozenset[ErrorClass] = frozenset({"transient", "rate-limited", "resource", "timeout"})
"""Failures of the dependency."""
ANSWERED: frozenset[ErrorClass] = frozenset({"step", "invalid", "auth"})
"""Failures of the work, which the dependency took and answered: it is well. All other classes say nothing of it."""
MAX_WINDOW = 10_000
"""The most calls that a window of calls may hold."""


class Breaker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When calls to one dependency stop, and how they begin again. Local to each instance."""

    failure_rate: float = 0.5
    """It opens when at least this share of the window's calls failed; above 0, at most 1."""
    minimum_calls: int = 10
    """Rates decide only from so many calls in the window on."""
    open_for: timedelta = timedelta(seconds=30)
    """How long it stays open the first time, at most."""
    window: timedelta | int = timedelta(minutes=1)
    """What the rates are of: the calls of the last so long, or the last so many calls."""
    in_a_row: int = 5
    """Low traffic: while the window holds fewer than `minimum_calls`, so many failures without a success between them
    open it too; 0: they do not."""
    row_within: timedelta = timedelta(minutes=10)
    """Failures further apart than this make no row."""
    slow_after: timedelta | None = None
    """A call that takes longer is slow; None: none is."""
    slow_rate: float = 1.0
    """It opens when at least this share of the window's calls were slow; above 0, at most 1."""
    probes: int = 1
    """Calls that are let through when the open time is over; what becomes of them decides. One that has not answered
    after as long as the breaker may stay open makes room for another; what it answers later still counts."""
    growth: float = 2.0
    """How much longer it stays open when a probe failed, or it opens again sooner than it had been open."""
    max_open_for: timedelta = timedelta(minutes=5)
    """Open times grow no longer than this, whatever the dependency asks for. It stays open for at least as long as a
    counted failure's Retry-After, up to here."""
    jitter: float = 0.2
    """The share of an open time that is drawn, so that instances do not probe together; 0 to 1."""
    counts: frozenset[ErrorClass] = COUNTED
    """Error classes that are failures of the dependency."""
    answers: frozenset[ErrorClass] = ANSWERED
    """Error classes with which the dependency shows that it is well. A class in neither counts for nothing."""
    concurrency: int | None = None
    """Calls at a time; None: any number."""
    queue: int = 100
    """Calls that may wait for one of these places; more are refused."""
    queue_for: timedelta = timedelta(seconds=30)
    """How long a call waits for a place."""


def breaker_fault(policy: Breaker) -> str:
    """What is wrong with a policy; empty for nothing."""
    window = policy.window
    seconds = window.total_seconds() if isinstance(window, timedelta) else 1.0
    calls = window if isinstance(window, int) else 1
    rules = (
        (0 < policy.failure_rate <= 1, "failure_rate is not above 0 and at most 1"),
        (0 < policy.slow_rate <= 1, "slow_rate is not above 0 and at most 1"),
        (policy.minimum_calls >= 1, "minimum_calls is not 1 or more"),
        (1 <= calls <= MAX_WINDOW, f"a window of calls holds 1 to {MAX_WINDOW}"),
        (seconds > 0, "window is not longer than nothing"),
        (policy.in_a_row >= 0, "in_a_row is negative"),
        (policy.probes >= 1, "probes is not 1 or more"),
        (policy.growth >= 1, "growth is not 1 or more"),
        (0 <= policy.jitter <= 1, "jitter is not 0 to 1"),
        (policy.open_for > timedelta(), "open_for is not longer than nothing"),
        (policy.max_open_for >= policy.open_for, "max_open_for is shorter than open_for"),
        (not policy.counts & policy.answers, "a class is in counts and in answers"),
        (policy.concurrency is None or policy.concurrency >= 1, "concurrency is not 1 or more"),
        (policy.queue >= 0, "queue is negative"),
        (policy.queue_for >= timedelta(), "queue_for is negative"),
    )
    return next((fault for holds, fault in rules if not holds), "")
