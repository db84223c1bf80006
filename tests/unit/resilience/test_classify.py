"""From exceptions to classes, and from failures to delays."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear import errors
from switchgear.contract.values import Retry
from switchgear.resilience import backoff
from switchgear.resilience.classify import classify, crash_loop, timed_out


@pytest.mark.parametrize(
    ("error", "error_class", "retryable"),
    [
        (ValueError("x"), "transient", True),
        (ConnectionError("x"), "transient", True),
        (errors.Retryable("x"), "transient", True),
        (errors.Unavailable("x"), "transient", True),
        (errors.OutcomeUnknown("x"), "transient", False),
        (errors.ServerFailed("x"), "transient", True),
        (errors.Permanent("x"), "step", False),
        (errors.InvalidInput("x"), "invalid", False),
        (errors.ProtocolError("x"), "invalid", False),
        (errors.NotRecordable("x"), "bug", False),
        (errors.UsageError("x"), "bug", False),
        (errors.DuplicateKey("x"), "step", False),
        (errors.WaitTimeout("x"), "timeout", True),
        (TimeoutError(), "timeout", True),
        (MemoryError(), "resource", True),
        (NameError("x"), "bug", True),
        (ImportError("x"), "bug", True),
        (errors.StepFailed("x", key="k", error_class="rate-limited"), "rate-limited", True),
        (errors.StepFailed("x", key="k", error_class="odd"), "step", True),
        (errors.TaskDead("x", task_id="t", state="dead", error_class="auth"), "auth", False),
        (errors.SignalTimeout("x"), "timeout", True),
        (errors.StepChanged("x"), "bug", False),
        (errors.Overloaded("x"), "rate-limited", True),
        (errors.Forbidden("x"), "auth", False),
        (errors.TaskCancelled("x", task_id="t", state="cancelled"), "step", False),
    ],
)
def test_exception_has_a_class(error: Exception, error_class: str, *, retryable: bool) -> None:
    """The class decides, and `retryable` is False only where a repetition is pointless."""
    failure = classify(error)
    assert (failure.error_class, failure.retryable) == (error_class, retryable)


def test_failure_keeps_what_a_person_needs() -> None:
    """Code, reason, fix, field, step and the wish to wait stand in the failure."""
    failure = classify(errors.InvalidInput("bad", path="$.a", why="w", fix="f"))
    assert (failure.code, failure.message, failure.path) == ("SG1507", "bad", "$.a")
    assert (failure.why, failure.fix) == ("w", "f")
    assert classify(errors.Retryable("later", retry_after=3)).retry_after == 3
    assert classify(errors.Overloaded("later", retry_after=4)).retry_after == 4
    assert classify(errors.StepFailed("x", key="build")).step == "build"
    assert classify(ValueError("odd"), step="parse").step == "parse"
    assert classify(ValueError("odd")).message == "ValueError: odd"


def test_long_messages_are_cut_with_a_mark() -> None:
    """An error with a megabyte of text still fits into an entry."""
    assert classify(ValueError("x" * 10**6)).message.endswith("[…]")
    assert len(classify(ValueError("x" * 10**6)).message) < 5000


def test_failures_without_an_exception_say_what_to_do() -> None:
    """Timeouts may be tried again, crash loops not."""
    assert (timed_out(60).retryable, timed_out(60).code) == (True, "SG1511")
    assert (crash_loop(3).retryable, crash_loop(3).error_class) == (False, "crash-loop")


@given(
    failures=st.integers(1, 10_000),
    drawn=st.floats(0, 1, exclude_max=True),
    initial=st.floats(0, 1000),
    factor=st.floats(1, 100),
    most=st.floats(0, 10_000),
)
def test_delay_stays_within_its_bounds(
    failures: int, drawn: float, initial: float, factor: float, most: float
) -> None:
    """Never negative, never beyond `max_delay`, and never falling with more failures."""
    policy = Retry(
        initial=timedelta(seconds=initial), factor=factor, max_delay=timedelta(seconds=most)
    )
    delay = backoff.delay(policy, failures, drawn)
    assert timedelta() <= delay <= backoff.bound(policy, failures) <= policy.max_delay
    assert backoff.bound(policy, failures) <= backoff.bound(policy, failures + 1)


def test_bound_grows_by_the_factor() -> None:
    """1 s, 2 s, 4 s … up to a minute, by default."""
    seconds = [backoff.bound(Retry(), n).total_seconds() for n in (1, 2, 3, 7, 100)]
    assert seconds == [1, 2, 4, 60, 60]
