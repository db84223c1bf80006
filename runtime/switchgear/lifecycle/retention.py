"""What the ledger need not keep any longer, and in which order it may go (rule 18). Pure.

Of one task void entries go before valid ones, and of each the oldest first. So the terminal entry is the last to go,
and whatever is left when a deletion is cut short is the whole ended task, or a remnant that nobody acts on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from switchgear.contract.stored import Stored, expectation
from switchgear.lifecycle.history import History

BLOB_AGE = timedelta(hours=24)
"""Since its last put, of a blob that may go: far beyond the 12 hours after which a writer stores it again (rule 22)."""


class Policy(NamedTuple):
    """How long tasks that have ended are kept."""

    age: timedelta
    most: int
    """Of the newest, whatever their age."""


def excess(finished: int, policy: Policy) -> int:
    """How many of the tasks that ended first are too many."""
    return max(0, finished - policy.most)


def is_due(ended: Stored, place: int, beyond: int, oldest: datetime) -> bool:
    """Whether the task with this terminal entry may go.

    `place`: how many terminal entries are older; `beyond`: of `excess`; `oldest`: what ended before it is too old.
    """
    return place < beyond or ended.time < oldest


def is_finished(history: History) -> bool:
    """Whether this is all that is left of a task that has ended."""
    return history.remnant or history.ended is not None


def order(history: History) -> Sequence[Stored]:
    """The scope's entries in the order in which they may be deleted."""
    valid = [one.stored for one in history.valid]
    voids = [one.stored for one in history.voids]
    if history.remnant:
        # What was valid cannot be told any more, but headers that stand are what makes a remnant known as one.
        standing = [one for one in voids if expectation(one.headers, history.scope) is not None]
        voids = [one for one in voids if expectation(one.headers, history.scope) is None]
        valid = standing
    return [*voids, *valid]
