"""Whether and when a failed attempt is followed by another: pure, the same for agents and coordinators."""

from __future__ import annotations

from datetime import datetime, timedelta

from switchgear import ids
from switchgear.contract import limits
from switchgear.contract.codes import FAILURES
from switchgear.contract.values import Failure, Retry
from switchgear.resilience import backoff

_DRAWS = 2**32


def why_final(error: Failure, retry: Retry, failures: int) -> str:
    """Why a failed attempt is not followed by another; empty when it is."""
    if not error.retryable and not error.outcome_known:
        return "its outcome is unknown, and what failed is not idempotent"
    if not error.retryable:
        return f"{error.error_class} failures of this kind are final"
    if error.error_class not in retry.on:
        return f"the policy does not retry {error.error_class} failures"
    attempts = retry.of(error.error_class).max_attempts
    if failures >= attempts:
        return f"{FAILURES['SG1514'][0]}: {failures} of {attempts}"
    return ""


def pause(error: Failure, retry: Retry, task: str, failures: int) -> timedelta:
    """How long the next attempt waits: full jitter, but no less than the failed side asks for.

    Drawn from the task's id, so that every replica, and every repetition of the decision, finds the same.
    """
    drawn = int(ids.short_digest(f"{task}/{failures}".encode(), 8), 16) / _DRAWS
    found = backoff.delay(retry.of(error.error_class), failures, drawn)
    asked = min(max(0.0, error.retry_after or 0.0), limits.MAX_RETRY_AFTER.total_seconds())
    return max(found, timedelta(seconds=asked))


def too_late(at: datetime, deadline: datetime | None) -> str:
    """Why an attempt at this time is pointless; empty when it is not."""
    if deadline is None or at < deadline:
        return ""
    return f"the next attempt, at {at:%H:%M:%S} UTC, would come after the deadline"
