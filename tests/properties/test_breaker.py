"""A breaker in any order of calls, verdicts, orders and time, against a model that keeps every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
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
    number: int = 0
    """Of all that were given."""
    probe: bool = False


@dataclass
class Model:
    """The same, the slow way: every call is kept, and all is counted anew each time."""

    policy: Breaker
    state: str = "closed"
    era: int = 0
    calls: list[tuple[bool, bool]] = field(default_factory=list[tuple[bool, bool]])
    failures: list[float] = field(default_factory=list[float])
    """Times of the failures since the last success."""
    out: dict[int, float] = field(default_factory=dict[int, float])
    """Probes under way by number, and when each is late."""
    level: int = 0
    """How often in a row it opened, or would have."""
    closed_at: float = 0.0
    opened_for: float = 0.0
    asked: list[float] = field(default_factory=list[float])
    """Until when its failures asked to wait, since it was closed."""
    probes: list[tuple[bool, bool]] = field(default_factory=list[tuple[bool, bool]])

    def turn(self, state: str, now: float) -> None:
        """Enter a state."""
        self.state, self.era = state, self.era + 1
        if state == "half-open":
            self.out, self.probes = {}, []
        if state == "closed":
            self.calls, self.failures, self.asked, self.closed_at = [], [], [], now

    def longest(self, level: int) -> float:
        """The open time of so many times, undrawn."""
        seconds, most = (
            self.policy.open_for.total_seconds(),
            self.policy.max_open_for.total_seconds(),
        )
        for _ in range(level - 1):
            seconds = min(seconds * self.policy.growth, most)
        return seconds

    def open(self, now: float, drawn: float) -> None:
        """Open for as long as it has come to, or as was asked."""
        spread = self.policy.jitter * drawn
        asked = max([until - now for until in self.asked], default=0.0) * (1 + spread)
        most = self.policy.max_open_for.total_seconds()
        self.opened_for = max(self.longest(self.level) * (1 - spread), min(asked, most))
        self.turn("open", now)

    def free(self, now: float) -> int:
        """Places of a half-open one: not answered, and nobody waits for an answer."""
        waited_for = [number for number, late in self.out.items() if late > now]
        return max(self.policy.probes - len(self.probes) - len(waited_for), 0)

    def probe(self, number: int, now: float) -> None:
        """One begins; each full set of late ones counts as one time that it opened."""
        late = [other for other, at in self.out.items() if at <= now]
        self.out[number] = now + self.longest(self.level + len(late) // self.policy.probes)

    def passes(self, now: float) -> bool:
        """Whether a call may be made, where no open time is over."""
        if self.state == "half-open":
            return self.free(now) > 0
        return self.state in ("closed", "disabled")

    def ended(self, number: int, now: float, drawn: float, *, failed: bool, slow: bool) -> None:
        """A call that counts has ended."""
        self.failures = [*self.failures, now] if failed else []
        if self.state == "half-open":
            del self.out[number]
            self.probes.append((failed, slow))
            self.judge(now, drawn)
            return
        self.calls.append((failed, slow))
        if self.state == "closed" and self.too_many():
            again = self.level and now - self.closed_at < self.opened_for
            self.level = self.level + 1 if again else 1
            self.open(now, drawn)

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

    def judge(self, now: float, drawn: float) -> None:
        """Decide as soon as every possible end of the other probes would decide the same."""
        left = self.policy.probes - len(self.probes)
        worst = [*self.probes, *[(True, True)] * left]
        best = [*self.probes, *[(False, False)] * left]
        if self.bad(best):
            self.level += 1
            self.open(now, drawn)
        elif not self.bad(worst):
            self.turn("closed", now)

    def bad(self, probes: list[tuple[bool, bool]]) -> bool:
        """Whether these probes open it."""
        failed, slow = (sum(one[kind] for one in probes) / len(probes) for kind in (0, 1))
        return failed >= self.policy.failure_rate or slow >= self.policy.slow_rate


class BreakerMachine(RuleBasedStateMachine):
    """Calls by several callers at a time, operators, and time that passes."""

    permits = Bundle[Permit]("permits")
    done = Bundle[Permit]("done")
    """Permits of probes that have ended."""

    @initialize(policy=policies())
    def begin(self, policy: Breaker) -> None:
        """Any policy."""
        self.now = 10.0
        self.changes: list[Change] = []
        self.drawn = 0.0
        self.model = Model(policy)
        self.circuit = Circuit(policy, self.now, lambda: self.drawn, self.changes.append)
        self.until = 0.0
        self.given = 0

    def follow(self) -> None:
        """After whatever may have opened it: for how long."""
        if self.circuit.state == "open" and self.changes[-1].at == self.now:
            wait = self.circuit.wait(self.now)
            assert wait is not None
            assert wait == pytest.approx(self.model.opened_for)
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
        """Exactly as long as it stays open, or until a probe is late."""
        self.now += self.circuit.due(self.now) or 0.0

    @rule(ends=st.lists(st.sampled_from(["+", "-", "-", "bug"]), min_size=1, max_size=6))
    def call(self, ends: list[str]) -> None:
        """Calls one after another, each ended before the next begins."""
        for end in ends:
            permit = self.asked()
            if permit.token != REFUSED:
                self.ended(permit, end, slow=False)

    @rule(asked=st.sampled_from([None, 5.0, 20.0, 100.0]))
    def fail(self, asked: float | None) -> None:
        """Calls fail until it opens, or as often as would open any that rates or rows can open."""
        for _ in range(8):
            if self.circuit.state in ("closed", "half-open"):
                permit = self.asked()
                if permit.token != REFUSED:
                    self.ended(permit, "-", slow=False, asked=asked)

    @rule(target=permits)
    def hang(self) -> Any:
        """A call begins as soon as one may, and does not answer while others may."""
        self.pass_open_time()
        permit = self.ask()
        self.pass_open_time()
        return permit

    @rule(target=permits)
    def ask(self) -> Any:
        """Somebody asks for a permit."""
        permit = self.asked()
        return multiple(*([permit] if permit.token else []))

    def asked(self) -> Permit:
        """A permit, as the model expects it."""
        room = self.circuit.room(self.now)
        token = self.circuit.acquire(self.now)
        if self.model.state == "open" and self.now >= self.until:
            self.model.turn("half-open", self.now)
        passes = self.model.passes(self.now)
        assert (token != REFUSED) == passes
        assert (room != 0) == passes
        self.given += 1
        probe = passes and self.model.state == "half-open"
        if probe:
            self.model.probe(self.given, self.now)
        return Permit(token, self.model.era, self.given, probe)

    @rule(
        target=done,
        permit=consumes(permits),
        end=st.sampled_from(["+", "-", "step", "bug", "release"]),
        slow=st.booleans(),
        asked=st.sampled_from([None, None, 5.0, 20.0, 100.0]),
    )
    def end(self, permit: Permit, end: str, *, slow: bool, asked: float | None) -> Any:
        """A call ends, perhaps long after the state changed."""
        self.ended(permit, end, slow=slow, asked=asked)
        return multiple(*([permit] if permit.probe else []))

    @rule(permit=done, end=st.sampled_from(["+", "-", "release"]))
    def end_again(self, permit: Permit, end: str) -> None:
        """A probe's verdict is given a second time, in whatever state: it counts for nothing."""
        before = self.circuit.seen(self.now), self.circuit.room(self.now)
        if end == "+":
            self.circuit.success(permit.token, self.now, 0.1)
        elif end == "-":
            self.circuit.failure(permit.token, self.now, 0.1, "timeout", "", 1000.0)
        else:
            assert not self.circuit.release(permit.token)
        assert (self.circuit.seen(self.now), self.circuit.room(self.now)) == before

    def ended(self, permit: Permit, end: str, *, slow: bool, asked: float | None = None) -> None:
        """Give the permit back."""
        token = permit.token
        took = 2.0 if slow else 0.5
        if end == "+":
            self.circuit.success(token, self.now, took)
        elif end == "release":
            self.circuit.release(token)
        else:
            error_class = "timeout" if end == "-" else end
            self.circuit.failure(token, self.now, took, error_class, "", asked)
        if permit.era == self.model.era:
            if end == "-" and asked is not None:
                self.model.asked.append(self.now + asked)
            if end in ("+", "-", "step"):
                self.model.ended(permit.number, self.now, self.drawn, failed=end == "-", slow=slow)
            elif self.model.state == "half-open":
                del self.model.out[permit.number]
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
        self.model.turn(state, self.now)
        if order == "reset":
            self.model.level = 0

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
        """Under way and ended together, but for those that are late."""
        if self.circuit.state == "half-open":
            assert self.circuit.room(self.now) == self.model.free(self.now)

    @invariant()
    def no_probe_keeps_it_shut_for_ever(self) -> None:
        """After no more than the longest open time it lets a call through, whoever never answers."""
        if self.circuit.state in ("open", "half-open"):
            assert self.circuit.room(self.now + BASE.max_open_for.total_seconds()) != 0

    @invariant()
    def open_means_refused_until_its_time_is_over(self) -> None:
        """`wait` and `room` agree."""
        wait, room = self.circuit.wait(self.now), self.circuit.room(self.now)
        assert (wait is None) == (room != 0)
        if self.circuit.state == "open" and self.now < self.until:
            assert room == 0


TestBreaker = BreakerMachine.TestCase
