"""The backlog in an owner's own intake, against a model of the intake, its counts and rejections."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from switchgear.lifecycle.own_backlog import OwnBacklog


class Intake(RuleBasedStateMachine):
    """Submissions are stored, decided by the replica in their order, handed over, settled; and counted meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = OwnBacklog()
        self.last = 0
        self.decided = 0
        self.reached = 0
        self.refused: set[int] = set()
        self.unheard: list[int] = []
        self.settled: set[int] = set()
        self.asked: int | None = None
        self.found: dict[str, int] | None = None

    def waiting(self) -> set[int]:
        """What was left to the intake and is not settled."""
        return set(range(1, self.decided + 1)) - self.refused - self.settled

    @rule()
    def store(self) -> None:
        self.last += 1

    @precondition(lambda self: self.decided < self.last)
    @rule()
    def leave(self) -> None:
        self.decided += 1
        self.backlog.left(self.decided)

    @precondition(lambda self: self.decided)
    @rule()
    def leave_again(self) -> None:
        if self.decided not in self.refused | self.settled:
            self.backlog.left(self.decided)

    @precondition(lambda self: self.decided < self.last)
    @rule()
    def refuse(self) -> None:
        self.decided += 1
        self.refused.add(self.decided)
        self.unheard.append(self.decided)

    @precondition(lambda self: self.unheard)
    @rule()
    def hear(self) -> None:
        sequence = self.unheard.pop()
        self.backlog.refuse([sequence, sequence])
        assert self.backlog.is_refused(sequence)

    @precondition(lambda self: self.reached < self.decided)
    @rule()
    def hand_over(self) -> None:
        self.reached += 1

    @rule()
    def settle_the_oldest(self) -> None:
        self._settle(min)

    @rule()
    def settle_the_newest(self) -> None:
        self._settle(max)

    def _settle(self, choose: Callable[[set[int]], int]) -> None:
        handed = set(range(1, self.reached + 1)) - self.settled
        if handed:
            self.settled.add(choose(handed))

    @rule()
    def ask(self) -> None:
        self.asked, self.found = self.last, None

    @precondition(lambda self: self.asked is not None)
    @rule()
    def count(self) -> None:
        every = set(range(1, self.last + 1))
        oldest = min(every - self.settled, default=self.last + 1)
        self.found = {
            "found": len(every - self.settled),
            "reached": self.reached,
            "floor": min(oldest, self.reached + 1) - 1,
        }

    @precondition(lambda self: self.found)
    @rule()
    def answer(self) -> None:
        assert self.asked is not None
        assert self.found is not None
        self.backlog.counted(**self.found, upto=self.asked)
        self.asked = self.found = None

    @invariant()
    def none_is_forgotten(self) -> None:
        assert self.backlog.waiting >= len(self.waiting())

    def teardown(self) -> None:
        """Once all is decided, heard and handed over, a count is exact."""
        while self.decided < self.last:
            self.refuse()
        while self.unheard:
            self.hear()
        while self.reached < self.last:
            self.reached += 1
            if self.reached in self.refused:
                self.settled.add(self.reached)
        self.settled |= self.refused
        self.ask()
        self.count()
        if self.last:
            self.answer()
        assert self.backlog.waiting == len(self.waiting())


TestIntake = Intake.TestCase
TestIntake.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_burst_that_is_rejected_makes_room_as_it_is_heard_of() -> None:
    """A count made while a burst is decided holds all of it; what is rejected of it is taken off again."""
    backlog = OwnBacklog()
    for sequence in range(1, 101):
        backlog.left(sequence)
    backlog.counted(1000, upto=1000, reached=64, floor=0)
    backlog.refuse(range(101, 1001))
    backlog.left(100)
    assert backlog.waiting == 100


def test_rejected_submission_that_was_handed_over_is_not_taken_off_twice() -> None:
    """It is settled, or will be soon, though an older one that is held keeps the floor down."""
    backlog = OwnBacklog()
    backlog.refuse(range(11, 500))
    backlog.counted(10, upto=1000, reached=1000, floor=0)
    backlog.refuse(range(11, 1001))
    assert backlog.waiting == 10
    assert backlog.is_refused(500)


def test_what_happens_while_the_broker_counts_is_kept() -> None:
    """What was left since is added; what was rejected since was not in the count."""
    backlog = OwnBacklog()
    for sequence in range(1, 12):
        backlog.left(sequence)
    backlog.refuse([12])
    backlog.counted(10, upto=10, reached=0, floor=0)
    assert backlog.waiting == 11


def test_rejected_submission_that_was_deleted_before_its_turn_is_not_counted_on_for_ever() -> None:
    """The intake never brings it, so its floor stays where it is."""
    backlog = OwnBacklog()
    backlog.left(5)
    backlog.refuse([7])
    backlog.counted(1, upto=8, reached=0, floor=4)
    assert not backlog.is_empty
    backlog.counted(0, upto=9, reached=5, floor=5)
    assert (backlog.waiting, backlog.is_empty) == (0, True)
