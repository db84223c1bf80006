"""Retry budgets: a share of the first dispatches and ten a minute, and whoever must wait is told how long."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from switchgear.resilience.budget import FLOOR, LONGEST, SAVED, RetryBudget

SECOND = timedelta(seconds=1)


def test_ten_retries_pass_at_once_and_then_ten_a_minute() -> None:
    """The floor, without any first dispatch."""
    budget = RetryBudget()
    for _ in range(10):
        assert budget.wait("a", 100.0) is None
        budget.take("a", 100.0)
    assert budget.wait("a", 100.0) == 6 * SECOND
    assert budget.wait("a", 106.0) is None


def test_first_dispatches_allow_their_share_of_retries() -> None:
    """Of another capability none."""
    budget = RetryBudget()
    for _ in range(10):
        budget.take("a", 0.0)
        budget.take("b", 0.0)
    for _ in range(5):
        budget.deposit("a", 0.2)
    assert budget.wait("a", 0.0) is None
    assert budget.wait("b", 0.0) is not None
    budget.take("a", 0.0)
    assert budget.wait("a", 0.0) is not None


def test_those_that_wait_are_given_times_one_after_another() -> None:
    """As fast as the floor allows: they do not all come back at once; none waits for longer than ten minutes."""
    budget = RetryBudget()
    for _ in range(10):
        budget.take("a", 0.0)
    waits = [budget.wait("a", 0.0) for _ in range(200)]
    assert waits[:4] == [6 * SECOND, 12 * SECOND, 18 * SECOND, 24 * SECOND]
    assert waits[-1] == LONGEST


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("retry"), st.just(0.0)),
        st.tuples(st.just("deposit"), st.floats(0, 3)),
        st.tuples(st.just("time"), st.floats(0, 200)),
    ),
    max_size=80,
)


@given(STEPS)
def test_retries_never_exceed_the_share_and_the_floor(steps: list[tuple[str, float]]) -> None:
    """Whatever the order of retries, first dispatches and time."""
    budget, now, shares, granted = RetryBudget(), 0.0, 0.0, 0
    for kind, amount in steps:
        if kind == "deposit":
            shares = shares + amount
            budget.deposit("a", amount)
        elif kind == "time":
            now += amount
        elif budget.wait("a", now) is None:
            budget.take("a", now)
            granted += 1
        assert granted <= FLOOR + now * FLOOR / 60 + shares + 1e-3
    assert shares <= SAVED


@given(STEPS, st.integers(0, 30))
def test_whoever_waits_as_told_finds_room(steps: list[tuple[str, float]], debt: int) -> None:
    """With nobody before it, the time told is neither too short nor longer than the floor makes it."""
    budget, now = RetryBudget(), 0.0
    for kind, amount in steps:
        if kind == "deposit":
            budget.deposit("a", amount)
        elif kind == "time":
            now += amount
        else:
            budget.take("a", now)
    for _ in range(debt):
        budget.take("a", now)
    told = budget.wait("a", now)
    if told is not None and told < LONGEST:
        assert budget.wait("a", now + told.total_seconds() * 0.9) is not None
        assert budget.wait("a", now + told.total_seconds() + 1e-3) is None
