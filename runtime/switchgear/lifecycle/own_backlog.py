"""How many submissions wait in an owner's own intake, between two counts of the broker. Pure.

Never fewer than there are, as far as one replica knows: a count that is behind would let a whole burst pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class OwnBacklog:
    """Of one owner, as one replica knows it."""

    waiting: int = 0
    """Submissions in it: those counted, less those rejected since, and those left to it since."""
    _upto: int = 0
    """Ledger sequence up to which all were counted."""
    _reached: int = 0
    """Ledger sequence up to which the intake had handed them over by then."""
    _left: set[int] = field(default_factory=set[int])
    """Those left to it that are newer than the count."""
    _refused: set[int] = field(default_factory=set[int])
    """Those in it that were rejected before their turn: they wait for nothing."""

    @property
    def is_empty(self) -> bool:
        """Nothing waits in it, and nothing that was rejected is still to be settled: there is nothing to count."""
        return self.waiting <= 0 and not self._refused

    def left(self, sequence: int) -> None:
        """This submission was left to the intake."""
        if sequence > self._upto and sequence not in self._left:
            self._left.add(sequence)
            self.waiting += 1

    def refuse(self, sequences: Iterable[int]) -> None:
        """These submissions were rejected, wherever they are."""
        for sequence in sequences:
            if sequence not in self._refused:
                self._refused.add(sequence)
                self.waiting -= self._reached < sequence <= self._upto

    def is_refused(self, sequence: int) -> bool:
        """Whether this submission was rejected before the intake brought it."""
        return sequence in self._refused

    def counted(self, found: int, *, upto: int, reached: int, floor: int) -> None:
        """The broker has counted: so many not handed over or not settled, among them all up to `upto`.

        `reached`: what had been handed over by then; rejected or not, it counts until it is settled.
        `floor`: up to here all is settled.
        """
        self._upto, self._reached = upto, reached
        self._left = {one for one in self._left if one > upto}
        settled = floor if found else upto  # what was deleted before its turn raises no floor
        self._refused = {one for one in self._refused if one > settled}
        gone = sum(reached < one <= upto for one in self._refused)
        self.waiting = found - gone + len(self._left)
