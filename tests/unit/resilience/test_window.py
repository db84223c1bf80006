"""What a breaker remembers: the last calls, or those of the last seconds."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.resilience.window import MAX_BUCKETS, CountWindow, TimeWindow, Totals

CALLS = st.lists(
    st.tuples(st.floats(0, 40, allow_nan=False), st.booleans(), st.booleans()), max_size=120
)


@given(CALLS, st.integers(1, 20))
def test_a_window_of_calls_holds_the_last_ones(
    calls: list[tuple[float, bool, bool]], size: int
) -> None:
    window, kept = CountWindow(size), deque[tuple[bool, bool]](maxlen=size)
    for _, failed, slow in calls:
        kept.append((failed, slow))
        window.record(0, failed=failed, slow=slow)
        got = window.totals(0)
        assert got == (len(kept), sum(one for one, _ in kept), sum(one for _, one in kept))
        assert (window.calls, window.failed, window.slow) == got


@given(CALLS, st.sampled_from([1.0, 5.0, 90.0, 600.0, 0.25]))
def test_a_window_of_time_holds_what_is_young_enough(
    calls: list[tuple[float, bool, bool]], span: float
) -> None:
    """Within one part of the span, as parts age as a whole."""
    window, now = TimeWindow(span), 0.0
    width = span / min(max(round(span), 1), MAX_BUCKETS)
    kept = list[tuple[float, bool, bool]]()
    for pause, failed, slow in calls:
        now += pause
        kept.append((now, failed, slow))
        window.record(now, failed=failed, slow=slow)
        got = Totals(window.calls, window.failed, window.slow)
        young = [one for one in kept if one[0] > now - span + width]
        not_old = [one for one in kept if one[0] > now - span - width]
        assert len(young) <= got.calls <= len(not_old)
        assert sum(one[1] for one in young) <= got.failed <= sum(one[1] for one in not_old)
        assert sum(one[2] for one in young) <= got.slow <= sum(one[2] for one in not_old)
        assert window.totals(now) == got
    assert window.totals(now + span + width) == (0, 0, 0)


def test_a_second_ages_as_a_whole() -> None:
    """As in resilience4j's sliding time window of five seconds."""
    window = TimeWindow(5)
    for second in range(5):
        window.record(100 + second, failed=second < 2, slow=second == 4)
    seen = [window.totals(at) for at in (104.9, 105, 106, 109, 110)]
    assert seen == [(5, 2, 1), (4, 1, 1), (3, 0, 1), (0, 0, 0), (0, 0, 0)]


def test_a_clock_that_steps_back_brings_nothing_back() -> None:
    window = TimeWindow(5)
    window.record(100, failed=True, slow=False)
    window.record(50, failed=True, slow=False)
    assert window.totals(50) == (2, 2, 0)
    assert window.totals(106) == (0, 0, 0)


@pytest.mark.parametrize(("totals", "rates"), [(Totals(), (0, 0)), (Totals(4, 1, 3), (0.25, 0.75))])
def test_rates_are_shares_of_the_calls(totals: Totals, rates: tuple[float, float]) -> None:
    assert (totals.failure_rate, totals.slow_rate) == rates
