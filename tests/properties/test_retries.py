"""A task that fails in any way under any policy: how often, when and within which budget it is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from switchgear.contract import entries, limits, values
from switchgear.lifecycle.coordination import Arm, Decision
from switchgear.resilience import backoff
from tests.unit.lifecycle.script import T0, Script, seconds

CLASSES = st.sampled_from(["transient", "rate-limited", "timeout", "step", "bug"])
SHORT = st.integers(0, 90).map(lambda count: timedelta(seconds=count))
RULES = st.builds(
    values.RetryRule,
    max_attempts=st.none() | st.integers(1, 5),
    initial=st.none() | SHORT,
    factor=st.none() | st.floats(1, 3),
)
POLICIES = st.builds(
    values.Retry,
    max_attempts=st.integers(1, 4),
    initial=SHORT,
    factor=st.floats(1, 3),
    max_delay=SHORT,
    on=st.frozensets(CLASSES),
    rules=st.dictionaries(CLASSES, RULES, max_size=2),
)
FAILURES = st.builds(
    values.Failure,
    error_class=CLASSES,
    code=st.just("SG1510"),
    message=st.just("it broke"),
    retryable=st.sampled_from([True, True, True, False]),
    retry_after=st.none() | st.sampled_from([0.5, 20.0, 10_000.0]),
)
BUDGETS = st.lists(st.sampled_from([0, 0, 0, 7, 45]), min_size=1, max_size=6)
PLENTY = 400
"""Decisions within which each task must have ended."""


class Run:
    """The task, its coordinator's clock and its one timer, that fires in time or early."""

    def __init__(self, policy: values.Retry, deadline: datetime | None, budgets: list[int]) -> None:
        self.script = Script()
        self.policy = policy
        self.deadline = deadline
        self.budgets = budgets
        self.asked = 0
        self.now = T0
        self.over: timedelta | None = None
        self.script.add("submitted", retry=policy, deadline=deadline)
        self.script.append(self.script.decide())

    def decide(self, early: bool) -> Decision:  # noqa: FBT001
        """Consume what is due; time jumps to the timer, or half way there."""
        self.asked += 1
        budget = self.budgets[self.asked % len(self.budgets)] if self.asked < PLENTY // 4 else 0
        self.over = seconds(budget) if budget else None
        decision = self.script.decide(self.now, over_budget=self.over, due="retry")
        for effect in decision.effects:
            if isinstance(effect, Arm) and effect.kind == "retry" and effect.at > self.now:
                self.now += (effect.at - self.now) / (2 if early else 1)
        if decision.entry is not None:
            self.script.append(decision, self.now)
        return decision

    def settle(self, early: list[bool]) -> entries.Entry:
        """Until the next attempt, or the end."""
        for turn in range(PLENTY):
            at = self.now
            decision = self.decide(early[turn % len(early)] and turn < PLENTY // 4)
            if isinstance(decision.entry, entries.Dispatched):
                assert self.over is None
                assert self.deadline is None or at < self.deadline
            if decision.entry is not None and not isinstance(decision.entry, entries.Waiting):
                return decision.entry
        raise AssertionError("lost")


@settings(max_examples=300)
@given(
    policy=POLICIES,
    failures=st.lists(FAILURES, min_size=6, max_size=6),
    deadline=st.none() | st.integers(5, 300),
    budgets=BUDGETS,
    early=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_retries_keep_to_their_policy(
    policy: values.Retry,
    failures: list[values.Failure],
    deadline: int | None,
    budgets: list[int],
    early: list[bool],
) -> None:
    """Never more attempts than the class allows, none too early, none past the deadline, and none lost."""
    end = T0 + seconds(deadline) if deadline is not None else None
    run = Run(policy, end, budgets)
    for count, error in enumerate(failures, 1):
        failed_at = run.now.replace(microsecond=0)
        run.script.add("attempt-failed", hold=run.script.history.hold, error=error, at=run.now)
        found = run.settle(early)
        rule = policy.of(error.error_class)
        allowed = error.retryable and error.error_class in policy.on and count < rule.max_attempts
        if not isinstance(found, entries.Dispatched):
            ended(found, allowed=allowed, end=end, now=run.now)
            return
        assert allowed
        waited = found.time - failed_at
        asked = min(seconds(error.retry_after or 0), limits.MAX_RETRY_AFTER)
        assert waited >= asked
        if not any(budgets):
            assert waited <= max(asked, backoff.bound(rule, count)) + seconds(1)
    raise AssertionError("more attempts than any policy allows")


def ended(found: entries.Entry, *, allowed: bool, end: datetime | None, now: datetime) -> None:
    """Only for a reason."""
    if isinstance(found, entries.Expired):
        assert end is not None
        assert now >= end
        return
    assert isinstance(found, entries.Dead)
    assert not allowed or (end is not None and "deadline" in found.reason)
