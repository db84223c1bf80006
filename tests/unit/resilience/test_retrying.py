"""Whether and when another attempt follows: the policy, by class, and what the failed side asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from switchgear.contract import limits
from switchgear.contract.values import Failure, Retry, RetryRule
from switchgear.lifecycle import retrying

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


def failure(error_class: str = "transient", **fields: object) -> Failure:
    plain: dict[str, object] = {"code": "SG1510", "message": "it broke", "retryable": True}
    return Failure(error_class=error_class, **(plain | fields))  # type: ignore[arg-type]


POLICY = Retry(
    max_attempts=3,
    on=frozenset({"transient", "rate-limited", "step"}),
    rules={
        "rate-limited": RetryRule(max_attempts=5, initial=timedelta(seconds=30)),
        "bug": RetryRule(max_attempts=9),
    },
)


@pytest.mark.parametrize(
    ("error", "failures", "final"),
    [
        (failure(), 1, ""),
        (failure(), 2, ""),
        (failure(), 3, "all attempts failed: 3 of 3"),
        (failure(), 4, "all attempts failed: 4 of 3"),
        (failure("rate-limited"), 4, ""),
        (failure("rate-limited"), 5, "all attempts failed: 5 of 5"),
        (failure("step"), 2, ""),
        (failure("timeout"), 1, "the policy does not retry timeout failures"),
        (failure("bug"), 1, "the policy does not retry bug failures"),
        (failure(retryable=False), 1, "transient failures of this kind are final"),
    ],
)
def test_the_policy_says_by_class_which_failure_is_the_last(
    error: Failure, failures: int, final: str
) -> None:
    """A rule for a class that is not retried changes nothing; the newest failure's class decides."""
    assert retrying.why_final(error, POLICY, failures) == final


def test_the_pause_is_the_same_for_everybody_who_asks() -> None:
    """And differs by task and by failure, so that tasks that failed together do not come back together."""
    found = [retrying.pause(failure(), POLICY, f"t{n}", 1) for n in range(100)]
    assert found == [retrying.pause(failure(), POLICY, f"t{n}", 1) for n in range(100)]
    assert len(set(found)) == 100
    assert timedelta() <= min(found) < timedelta(seconds=0.2)
    assert timedelta(seconds=0.8) < max(found) < timedelta(seconds=1)
    assert retrying.pause(failure(), POLICY, "t1", 2) != found[1]


def test_the_pause_follows_the_rule_of_the_class() -> None:
    """Thirty times as long at its first, here."""
    limited = retrying.pause(failure("rate-limited"), POLICY, "t1", 1)
    plain = retrying.pause(failure(), POLICY, "t1", 1)
    assert limited > plain
    assert abs(limited - 30 * plain) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("asked", "least"),
    [(90.0, 90.0), (1e300, limits.MAX_RETRY_AFTER.total_seconds()), (-5.0, 0.0), (None, 0.0)],
)
def test_the_failed_side_asks_for_time_within_reason(asked: float | None, least: float) -> None:
    """At least as long as it asks, at most an hour."""
    found = retrying.pause(failure(retry_after=asked), POLICY, "t1", 1).total_seconds()
    assert found == pytest.approx(
        max(least, retrying.pause(failure(), POLICY, "t1", 1).total_seconds())
    )


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_a_delay_that_is_no_number_is_none(error: float) -> None:
    """JSON has no such numbers, other callers may."""
    found = retrying.pause(failure(retry_after=error), POLICY, "t1", 1)
    assert timedelta() <= found <= limits.MAX_RETRY_AFTER


def test_an_attempt_at_or_after_the_deadline_is_pointless() -> None:
    """Nothing starts after the deadline."""
    assert retrying.too_late(T0, None) == ""
    assert retrying.too_late(T0, T0 + timedelta(seconds=1)) == ""
    assert retrying.too_late(T0, T0).endswith("at 12:00:00 UTC, would come after the deadline")
