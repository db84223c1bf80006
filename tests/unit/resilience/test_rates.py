"""The token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.resilience.rates import TokenBucket


def test_burst_passes_at_once_and_then_the_rate() -> None:
    """Two at once, then one every half a second; who is refused hears when."""
    bucket = TokenBucket(rate=2, burst=2)
    assert [bucket.take(0.0) for _ in range(2)] == [0, 0]
    assert bucket.take(0.0) == pytest.approx(0.5)
    assert bucket.take(0.25) == pytest.approx(0.25)
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) > 0


def test_rest_earns_no_more_than_the_burst() -> None:
    """However long it was."""
    bucket = TokenBucket(rate=1, burst=3)
    bucket.take(0.0)
    assert [bucket.take(1000.0) == 0 for _ in range(4)] == [True, True, True, False]


def test_bucket_at_rest_is_as_good_as_new() -> None:
    """What tells that it can be forgotten."""
    bucket = TokenBucket(rate=1, burst=2)
    assert bucket.is_full(0.0)
    bucket.take(5.0)
    assert not bucket.is_full(5.5)
    assert bucket.is_full(6.0)


@given(
    st.floats(0.1, 50),
    st.floats(1, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_never_more_than_burst_and_rate_allow(
    rate: float, burst: float, pauses: list[float]
) -> None:
    """Over any stretch of time that starts with a full bucket."""
    bucket = TokenBucket(rate, burst)
    now = passed = 0.0
    for pause in pauses:
        now += pause
        passed += bucket.take(now) == 0
        assert passed <= burst + rate * (now - pauses[0]) + 1e-6
