"""Delays: full jitter below a bound that grows, whatever a policy holds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.contract.values import Retry
from switchgear.resilience import backoff

ANY = st.builds(
    Retry,
    initial=st.timedeltas(),
    factor=st.floats(),
    max_delay=st.timedeltas(),
)
"""Policies as a foreign agent may announce them: nobody has checked them."""


def test_the_bound_doubles_up_to_the_longest() -> None:
    """A second, two, four, at most a minute."""
    found = [backoff.bound(Retry(), n).total_seconds() for n in (1, 2, 3, 6, 7, 10**9)]
    assert found == [1, 2, 4, 32, 60, 60]


def test_the_drawn_number_spreads_delays_over_all_of_the_bound() -> None:
    """From none at all to just below it."""
    policy = Retry(initial=timedelta(seconds=8))
    assert backoff.delay(policy, 1, 0.0) == timedelta(0)
    assert backoff.delay(policy, 1, 0.25) == timedelta(seconds=2)


@given(policy=ANY, failures=st.integers(1, 10**6), drawn=st.floats(0, 1, exclude_max=True))
def test_no_policy_makes_a_delay_raise_or_leave_its_bounds(
    policy: Retry, failures: int, drawn: float
) -> None:
    """What is announced is checked by nobody, and a decision that raises would be asked for ever."""
    longest = max(policy.max_delay, timedelta())
    found = backoff.delay(policy, failures, drawn)
    assert timedelta() <= found <= backoff.bound(policy, failures) <= longest


@pytest.mark.parametrize(
    "policy",
    [
        Retry(factor=1e300),
        Retry(initial=timedelta.max, max_delay=timedelta.max),
        Retry(initial=timedelta.min),
        Retry(factor=-1e300),
    ],
)
def test_the_largest_numbers_are_borne(policy: Retry) -> None:
    """The edges, which random policies seldom meet."""
    assert backoff.delay(policy, 100, 0.9) >= timedelta()
