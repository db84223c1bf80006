"""Delays between attempts: exponential with full jitter (Brooker, "Exponential Backoff and Jitter", 2015)."""

from __future__ import annotations

from datetime import timedelta

from switchgear.contract import limits
from switchgear.contract.values import Retry


def bound(policy: Retry, failures: int) -> timedelta:
    """The longest delay after this many failures (1 and up)."""
    # Announced policies are checked by nobody: a huge factor would overflow.
    growth = min(max(1.0, policy.factor), limits.MAX_FACTOR) ** min(failures - 1, 64)
    seconds = max(policy.initial.total_seconds(), 0.0) * growth
    longest = max(policy.max_delay, timedelta())
    return longest if seconds >= longest.total_seconds() else timedelta(seconds=seconds)


def delay(policy: Retry, failures: int, drawn: float) -> timedelta:
    """The delay after this many failures; `drawn` is a random number in [0, 1)."""
    return bound(policy, failures) * drawn
