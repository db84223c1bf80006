"""A breaker in any order of calls, verdicts, orders and time, against a model that keeps every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec.structs import replace

from switchgear.resilience.breaker import Breaker
from switchgear.resilience.circuit import REFUSED, Change, Circuit

BASE = Breaker(
    failure_rate=0.5,
    minimum_calls=4,
    window=6,
    in_a_row=3,
    row_within=timedelta(seconds=50),
    slow_after=timedelta(seconds=1),
    slow_rate=0.75,
    open_for=timedelta(seconds=8),
    max_open_for=timedelta(seconds=30),
    probes=2,
    jitter=0.5,
)


@st.composite
def policies(draw: st.DrawFn) -> Breaker:
    """Small windows, so that every threshold is met."""
    return replace(
        BASE,
        failure_rate=draw(st.sampled_from([0.25, 0.5, 1.0])),
        slow_rate=draw(st.sampled_from([0.5, 1.0])),
        minimum_calls=draw(st.integers(1, 6)),
        window=draw(st.integers(1, 8)),
        in_a_row=draw(st.integers(0, 4)),
        probes=draw(st.integers(1, 4)),
    )


@dataclass
class Permit:
    """One that is out."""

    token: int
    era: int
    """How often the model had changed its state when it was given."""


@dataclass
class Model:
    """The same, the slow way: every call is kept, and all is counted anew each time."""

    policy: Breaker
    state: str = "closed"
    era: int = 0
    calls: list[tuple[bool, bool]] = field(default_factory=list[tuple[bool, bool]])
    failures: list[float] = field(default_factory=list[float])
    """Times of the failures since the last success."""
    probing: int = 0
    probes: list[tuple[bool, bool]] = field(default_factory=list[tuple[bool, bool]])

    def turn(self, state: str) -> None:
        """Enter a state."""
        self.state, self.era = state, self.era + 1
        if state == "half-open":
            self.probing, self.probes = 0, []
        if state == "closed":
            self.calls, self.failures = [], []

    def passes(self) -> bool:
        """Whether a call may be made, where no open time is over."""
        if self.state == "half-open":
            return self.probing + len(self.probes) < self.policy.probes
        return self.state in ("closed", "disabled")

    def ended(self, now: float, *, failed: bool, slow: bool) -> None:
        """A call that counts has ended."""
        self.failures = [*self.failures, now] if failed else []
        if self.state == "half-open":
            self.probing -= 1
            self.probes.append((failed, slow))
            self.judge()
            return
        self.calls.append((failed, slow))
        if self.state == "closed" and self.too_many():
            self.turn("open")

    def too_many(self) -> bool:
        """Whether the calls in the window open it."""
        policy = self.policy
        assert isinstance(policy.window, int)
        held = self.calls[-policy.window :]
        if len(held) < min(policy.minimum_calls, policy.window):
            return 0 < policy.in_a_row <= self.row()
        failed, slow = sum(one for one, _ in held), sum(one for _, one in held)
        return failed / len(held) >= policy.failure_rate or slow / len(held) >= policy.slow_rate

    def row(self) -> int:
        """Newest failures none of which is further from the one before than it may be."""
        count = 0
        for number, at in enumerate(reversed(self.failures)):
            later = self.failures[len(self.failures) - number] if number else at
            if later - at > self.policy.row_within.total_seconds():
                break
            count += 1
        return count

    def judge(self) -> None:
        """Decide as soon as every possible end of the other probes would decide the same."""
        left = self.policy.probes - len(self.probes)
        worst = [*self.probes, *[(True, True)] * left]
        best = [*self.probes, *[(False, False)] * left]
        if self.bad(best):
            self.turn("open")
        elif not self.bad(worst):
            self.turn("closed")

    def bad(self, probes: list[tuple[bool, bool]]) -> bool:
        """Whether these probes open it."""
        failed, slow = (sum(one[kind] for one in probes) / len(probes) for kind in (0, 1))
        return failed >= self.policy.failure_rate or slow >= self.policy.slow_rate


class BreakerMachine(RuleBasedStateMachine):
    """Calls by several callers at a time, operators, and time that passes."""

    permits = Bundle[Permit]("permits")

    @initialize(policy=policies())
    def begin(self, policy: Breaker) -> None:
        """Any policy."""
        self.now = 10.0
        self.changes: list[Change] = []
        self.drawn = 0.0
        self.model = Model(policy)
        self.circuit = Circuit(policy, self.now, lambda: self.drawn, self.changes.append)
        self.until = 0.0
        self.open_times: list[float] = []

    def follow(self) -> None:
        """After whatever may have opened it: how long it stays open is within its bounds."""
        if self.circuit.state == "open" and self.changes and self.changes[-1].at == self.now:
            wait = self.circuit.wait(self.now)
            longest = BASE.max_open_for.total_seconds()
            assert wait is not None
            assert BASE.open_for.total_seconds() * (1 - BASE.jitter) <= wait <= longest
            self.until = self.now + wait

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.0, 8.0, 30.0, 60.0]), drawn=st.floats(0, 0.99))
    def pass_time(self, seconds: float, drawn: float) -> None:
        """Time passes; nothing changes by itself."""
        before = self.circuit.state
        self.now += seconds
        self.drawn = drawn
        assert self.circuit.state == before

    @rule()
    def pass_open_time(self) -> None:
        """Exactly as long as it stays open."""
        self.now += self.circuit.wait(self.now) or 0.0

    @rule(ends=st.lists(st.sampled_from(["+", "-", "-", "bug"]), min_size=1, max_size=6))
    def call(self, ends: list[str]) -> None:
        """Calls one after another, each ended before the next begins."""
        for end in ends:
            permit = self.asked()
            if permit.token != REFUSED:
                self.ended(permit, end, slow=False)

    @rule(target=permits)
    def ask(self) -> Permit:
        """Somebody asks for a permit."""
        return self.asked()

    def asked(self) -> Permit:
        """A permit, as the model expects it."""
        room = self.circuit.room(self.now)
        token = self.circuit.acquire(self.now)
        if self.model.state == "open" and self.now >= self.until:
            self.model.turn("half-open")
        passes = self.model.passes()
        assert (token != REFUSED) == passes
        assert (room != 0) == passes
        if passes and self.model.state == "half-open":
            self.model.probing += 1
        return Permit(token, self.model.era)

    @rule(
        permit=st.one_of(permits),
        end=st.sampled_from(["+", "-", "step", "bug", "release"]),
        slow=st.booleans(),
    )
    def end(self, permit: Permit, end: str, *, slow: bool) -> None:
        """A call ends, perhaps long after the state changed; a refused one has nothing to end."""
        assume(permit.token != REFUSED)
        self.ended(permit, end, slow=slow)

    def ended(self, permit: Permit, end: str, *, slow: bool) -> None:
        """Give the permit back."""
        token, permit.token = permit.token, REFUSED
        took = 2.0 if slow else 0.5
        if end == "+":
            self.circuit.success(token, self.now, took)
        elif end == "release":
            self.circuit.release(token)
        else:
            error_class = "timeout" if end == "-" else end
            self.circuit.failure(token, self.now, took, error_class, "")
        if permit.era == self.model.era:
            if end in ("+", "-", "step"):
                self.model.ended(self.now, failed=end == "-", slow=slow)
            elif self.model.state == "half-open":
                self.model.probing -= 1
        self.follow()

    @precondition(lambda self: len(self.changes) % 4 == 3)
    @rule(order=st.sampled_from(["open", "close", "reset", "reset"]))
    def order(self, order: str) -> None:
        """An operator steps in."""
        act, state = {
            "open": (self.circuit.force_open, "forced-open"),
            "close": (self.circuit.disable, "disabled"),
            "reset": (self.circuit.reset, "closed"),
        }[order]
        act(self.now, "ana", "")
        self.model.turn(state)

    @invariant()
    def state_is_the_models(self) -> None:
        """And only legal changes led to it."""
        assert self.circuit.state == self.model.state
        for change in self.changes:
            if change.new == "half-open":
                assert change.old == "open"
            if change.new == "open":
                assert change.old in ("closed", "half-open")

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        """Under way and ended together."""
        room = self.circuit.room(self.now)
        if self.circuit.state == "half-open":
            assert room is not None
            assert room == self.model.policy.probes - self.model.probing - len(self.model.probes)

    @invariant()
    def open_means_refused_until_its_time_is_over(self) -> None:
        """`wait` and `room` agree."""
        wait, room = self.circuit.wait(self.now), self.circuit.room(self.now)
        assert (wait is None) == (room != 0)
        if self.circuit.state == "open" and self.now < self.until:
            assert room == 0


TestBreaker = BreakerMachine.TestCase
