"""What may be deleted, and in which order, so that no crash leaves half a task."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.contract.stored import Stored
from switchgear.lifecycle import retention
from switchgear.lifecycle.history import fold
from switchgear.lifecycle.retention import Policy
from tests.unit.lifecycle.script import LATER, SCOPE, T0, Script

POLICY = Policy(age=timedelta(days=7), most=3)


def ended(*, voids: bool = False) -> Script:
    """A task that completed; with raw entries of no account in every place."""
    script = Script()
    if voids:
        script.add("cancel-requested", headers=b"")
    script.add("submitted")
    if voids:
        script.add("checkpoint", headers=b"")
    script.add("dispatched")
    hold = script.last
    if voids:
        script.add("dispatched", attempt=9)
    script.add("checkpoint", hold=hold)
    script.add("completed", hold=hold)
    if voids:
        script.add("completed", hold=hold)
        script.add("signalled", headers=b"")
    return script


@pytest.mark.parametrize("script", [ended(), ended(voids=True)], ids=["plain", "voids"])
def test_whatever_is_left_is_the_ended_task_or_a_remnant(script: Script) -> None:
    """After each single deletion: so a crash in between leaves nothing that looks open or new."""
    left = list(script.stored)
    for gone in retention.order(script.history):
        left.remove(gone)
        history = fold(SCOPE, left)
        assert history.remnant or history.ended == "completed" or not left
        assert not history.is_open
        if left:
            assert retention.is_finished(history)
    assert left == []


def test_terminal_entry_goes_last() -> None:
    """Else the broker's expectation would fall back, and a late append would land."""
    order = retention.order(ended(voids=True).history)
    assert order[-1].subject.endswith("completed")
    numbers = [one.sequence for one in order]
    assert numbers == [1, 3, 5, 8, 9, 2, 4, 6, 7]


def test_remnant_goes_on_where_it_was_left() -> None:
    """At every point, and again at every point of the rest: entries without a proof first, the oldest first."""
    script = ended(voids=True)
    full = list(retention.order(script.history))
    for cut in range(1, len(full)):
        left: list[Stored] = [one for one in script.stored if one in full[cut:]]
        rest = retention.order(fold(SCOPE, left))
        assert sorted(one.sequence for one in rest) == [one.sequence for one in left]
        assert rest[-1].subject.endswith("completed")
        for gone in rest:
            left.remove(gone)
            assert not left or retention.is_finished(fold(SCOPE, left))


def test_open_task_is_not_finished() -> None:
    """Whatever raw entries claim its end."""
    script = Script()
    script.add("submitted")
    script.add("completed", headers=b"")
    assert not retention.is_finished(script.history)


def test_count_bounds_what_is_kept() -> None:
    """The oldest beyond it are due, whatever their age."""
    script = ended()
    terminal = script.stored[-1]
    assert retention.excess(5, POLICY) == 2
    assert retention.excess(2, POLICY) == 0
    assert [retention.is_due(terminal, place, 2, T0) for place in range(3)] == [True, True, False]


def test_age_bounds_how_long() -> None:
    """Measured by when the broker stored the end."""
    terminal = ended().stored[-1]
    assert retention.is_due(terminal, 9, 0, LATER)
    assert not retention.is_due(terminal, 9, 0, T0)
