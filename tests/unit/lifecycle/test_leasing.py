"""Leases: never two holders at one time, whatever clocks show, answers take, and processes pause."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from switchgear.lifecycle.leasing import LeaseDocument, Leasing

LASTS = timedelta(seconds=15)


def test_a_free_lease_is_taken_and_renewed() -> None:
    """And counted on for five sixths of its time, from the sending on."""
    mine = Leasing("a", LASTS)
    assert mine.expectation(0.0) is None
    mine.seen(0, None, 0.0)
    assert mine.expectation(0.0) == 0
    mine.stored(7, 1.0)
    assert mine.held(13.4)
    assert not mine.held(13.6)
    assert mine.expectation(100.0) == 7


def test_anothers_lease_is_taken_when_it_stood_still_for_long_enough() -> None:
    """Counted from when this document was first seen; a renewed one begins anew."""
    mine = Leasing("a", LASTS)
    other = LeaseDocument(holder="b", lasts=LASTS)
    mine.seen(3, other, 10.0)
    mine.seen(3, other, 20.0)
    assert mine.expectation(24.9) is None
    mine.seen(4, other, 24.9)
    assert mine.expectation(39.8) is None
    assert mine.expectation(40.0) == 4


@pytest.mark.parametrize("lasts", [5, 60])
def test_anothers_lease_lasts_as_long_as_it_says(lasts: int) -> None:
    """Replicas with other settings may be on their way out."""
    mine = Leasing("a", LASTS)
    mine.seen(3, LeaseDocument(holder="b", lasts=timedelta(seconds=lasts)), 0.0)
    assert mine.expectation(lasts - 0.1) is None
    assert mine.expectation(lasts) == 3


def test_a_lease_that_was_lost_is_not_held() -> None:
    """Not even for the rest of its time."""
    mine = Leasing("a", LASTS)
    mine.seen(0, None, 0.0)
    mine.stored(1, 0.0)
    mine.lost()
    assert not mine.held(1.0)
    assert mine.expectation(1.0) is None


@dataclass
class Replica:
    """One replica, its clock, and what it has under way."""

    leasing: Leasing
    offset: float
    rate: float
    read: tuple[int, LeaseDocument | None] | None = None
    """What a read that was begun found, and that has not arrived yet."""
    put: tuple[int, float] | None = None
    """A put on its way: what it expects, and when it was sent by the own clock."""
    answer: tuple[bool, int, float] | None = None
    """The answer to a put, on its way back."""


@dataclass
class Kept:
    """The broker's document."""

    sequence: int = 0
    last: int = 0
    document: LeaseDocument | None = None
    put_by: list[str] = field(default_factory=list[str])


class Replicas(RuleBasedStateMachine):
    """Three replicas with clocks that show anything, and run up to a twentieth too fast or too slow."""

    @initialize(
        offsets=st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
        rates=st.lists(st.floats(0.95, 1.05), min_size=3, max_size=3),
    )
    def begin(self, offsets: list[float], rates: list[float]) -> None:
        self.time = 0.0
        self.kept = Kept()
        self.replicas = [
            Replica(Leasing(name, LASTS), offset, rate)
            for name, offset, rate in zip("abc", offsets, rates, strict=True)
        ]

    def clock(self, one: Replica) -> float:
        return one.offset + self.time * one.rate

    @rule(by=st.floats(0, 20))
    def time_passes(self, by: float) -> None:
        self.time += by

    @rule(who=st.integers(0, 2))
    def looks(self, who: int) -> None:
        self.replicas[who].read = (self.kept.sequence, self.kept.document)

    @rule(who=st.integers(0, 2))
    def look_arrives(self, who: int) -> None:
        one = self.replicas[who]
        if one.read is not None:
            one.leasing.seen(*one.read, self.clock(one))
            one.read = None

    @rule(who=st.integers(0, 2))
    def sends(self, who: int) -> None:
        one = self.replicas[who]
        expect = one.leasing.expectation(self.clock(one))
        if expect is not None and one.put is None and one.answer is None:
            one.put = (expect, self.clock(one))

    @rule(who=st.integers(0, 2))
    def put_arrives(self, who: int) -> None:
        one = self.replicas[who]
        if one.put is None:
            return
        (expect, sent), one.put = one.put, None
        if expect == self.kept.sequence:
            self.kept.last += 1
            self.kept.sequence = self.kept.last
            self.kept.document = LeaseDocument(holder=one.leasing.me, lasts=LASTS)
            one.answer = (True, self.kept.sequence, sent)
        else:
            one.answer = (False, 0, sent)

    @rule(who=st.integers(0, 2), lost=st.booleans())
    def answer_arrives(self, who: int, lost: bool) -> None:  # noqa: FBT001
        one = self.replicas[who]
        if one.answer is None:
            return
        (stored, sequence, sent), one.answer = one.answer, None
        if lost:
            return  # the outcome stays unknown
        if stored:
            one.leasing.stored(sequence, sent)
        else:
            one.leasing.lost()

    @rule(who=st.integers(0, 2))
    def gives_back(self, who: int) -> None:
        one = self.replicas[who]
        expect = one.leasing.expectation(self.clock(one))
        if one.leasing.held(self.clock(one)) and one.put is None and one.answer is None:
            one.leasing.lost()
            if expect == self.kept.sequence:
                self.kept.sequence, self.kept.document = 0, None

    @invariant()
    def one_holds_it_at_most(self) -> None:
        if hasattr(self, "replicas"):
            holding = [one for one in self.replicas if one.leasing.held(self.clock(one))]
            assert len(holding) <= 1


Replicas.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestReplicas = Replicas.TestCase
