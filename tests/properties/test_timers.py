"""Timers that come late, early, twice, for nothing or never: a wait ends when it is over, and never before."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from switchgear.contract import entries, limits
from switchgear.lifecycle.coordination import Arm
from switchgear.lifecycle.suspension import Condition
from tests.unit.lifecycle.script import T0, Script, awaited, failed, seconds, submitted

OVER = T0 + seconds(90)
KINDS = st.sampled_from(["wait", "retry", "child", "turn", "deadline", "capacity", "cleanup"])


def suspended(*waits: Any, until: datetime | None) -> Script:
    script = Script()
    script.add("waiting", hold=script.held(), reason="child", waits=waits, until=until)
    return script


def retried() -> Script:
    script = failed()
    script.add("waiting", reason="retry", until=OVER)
    return script


TIMER = awaited("timer", until=OVER)
TOGETHER = awaited("child", together="g"), awaited("timer", together="g", until=T0 + seconds(9))
BUILT = {
    "its start": lambda: submitted(start=OVER),
    "its turn": lambda: submitted(after="t0"),
    "a retry": retried,
    "a timer": lambda: suspended(TIMER, until=OVER),
    "a time alone": lambda: suspended(until=OVER),
    "a child": lambda: suspended(awaited("child"), until=None),
    "a child and a timer": lambda: suspended(*TOGETHER, until=T0 + seconds(9)),
    "an agent": submitted,
}
BY_OTHERS = {"its turn", "a child", "a child and a timer", "an agent"}
"""What ends through somebody else, whose wake may get lost: the re-check finds it."""


class Timers(RuleBasedStateMachine):
    """One wait. What it waits for is over at one moment, known to nobody; only messages lead to decisions."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.timers: dict[str, Arm] = {}
        self.due: list[tuple[str, int]] = [("", 0)]
        self.dispatched: datetime | None = None
        self.entries = 0

    @initialize(what=st.sampled_from(sorted(BUILT)))
    def begins(self, what: str) -> None:
        self.what = what
        self.script = BUILT[what]()

    @property
    def is_over(self) -> bool:
        """Whether what the task waits for has come."""
        return self.now >= OVER

    @precondition(lambda self: self.due)
    @rule(index=st.integers(0, 3))
    def message_is_consumed(self, index: int) -> None:
        """In any order."""
        kind, rechecks = self.due.pop(index % len(self.due))
        by_others = self.what in BY_OTHERS
        children: dict[str, Condition] = {"child": "done" if self.is_over else "open"}
        decision = self.script.decide(
            self.now,
            due=kind,
            rechecks=rechecks,
            pools=[] if self.what == "an agent" and not self.is_over else None,
            before_open=by_others and not self.is_over,
            children=children,
        )
        if isinstance(decision.entry, entries.Dispatched):
            assert self.is_over, "before its time"
            self.dispatched = self.dispatched or self.now
        for effect in decision.effects:
            assert isinstance(effect, Arm)
            assert effect.at > self.now or self.is_over, "a timer that fires at once, and again"
            self.timers[effect.kind] = effect
        if decision.entry is not None:
            self.entries += 1
            self.script.append(decision, self.now)
            assert self.script.history.last_valid == self.script.last
            if isinstance(decision.entry, entries.Waiting):
                self.due.append(("", 0))

    @rule(count=st.sampled_from([0.5, 20, 61, 300]))
    def time_passes(self, count: float) -> None:
        self.now += seconds(count)

    @rule()
    def due_timers_fire(self) -> None:
        """Late, when time has passed before."""
        for kind, arm in list(self.timers.items()):
            if arm.at <= self.now:
                self.fire(kind)

    def fire(self, kind: str) -> None:
        self.due.append((kind, self.timers.pop(kind).rechecks))

    @precondition(lambda self: self.timers)
    @rule(index=st.integers(0, 2))
    def timer_fires_early(self, index: int) -> None:
        self.fire(sorted(self.timers)[index % len(self.timers)])

    @precondition(lambda self: self.due)
    @rule(index=st.integers(0, 3))
    def message_comes_twice(self, index: int) -> None:
        self.due.append(self.due[index % len(self.due)])

    @rule(kind=KINDS)
    def somebody_wakes_it_for_nothing(self, kind: str) -> None:
        """A void wake of a suspended handler that names nothing would end its wait, by its meaning."""
        self.due.append((kind, 0))

    @rule()
    def a_replica_looks_it_over(self) -> None:
        """Also where the timers are gone with their stream: then only this brings it back."""
        self.timers.clear()
        self.due.append(("", 0))

    @invariant()
    def it_is_dispatched_once_and_never_forgotten(self) -> None:
        assert self.entries <= 2
        assert self.dispatched or self.due or self.timers

    def teardown(self) -> None:
        """From now on all goes well: it goes on soon after what it waits for is over."""
        healed = max(self.now, OVER)
        last = healed + limits.CAPACITY_RECHECK_MAX + timedelta(minutes=1)
        while self.dispatched is None and self.now <= last:
            self.due_timers_fire()
            while self.due:
                self.message_is_consumed(0)
            if self.dispatched is None:
                self.now = max(self.now, min(arm.at for arm in self.timers.values()))
        assert self.dispatched is not None, self.timers
        if self.what not in BY_OTHERS:
            assert self.dispatched <= max(healed, OVER)


Timers.TestCase.settings = settings(max_examples=max(settings().max_examples // 2, 1))
TestTimers = Timers.TestCase
