"""Delays between attempts: exponential with full jitter (Brooker, "Exponential Backoff and Jitter", 2015)."""

from __future__ import annotations

from datetime import timedelta

from switchgear.contract.values import Retry


def bound(policy: Retry, failures: int) -> timedelta:
    """The longest delay after this many failures (1 and up)."""
    growth = policy.factor ** min(failures - 1, 64)
    seconds = min(policy.initial.total_seconds() * growth, policy.max_delay.total_seconds())
    return timedelta(seconds=seconds)


def delay(policy: Retry, failures: int, drawn: float) -> timedelta:
    """The delay after this many failures; `drawn` is a random number in [0, 1)."""
    return bound(policy, failures) * drawn
