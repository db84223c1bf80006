"""Owners in turn, lanes shallow: the pure part of fair dispatch."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.contract.entries import Submitted
from switchgear.contract.values import Parent
from switchgear.lifecycle.fairness import (
    CROWDED,
    CROWDED_IN_ALL,
    Backlogged,
    Fill,
    Turns,
    allowance,
    crowded,
    in_turns,
    is_urgent,
    rank,
)
from tests.unit.lifecycle import script


def submission(priority: str = "normal", *, child: bool = False) -> Submitted:
    entry = script.entry("submitted")
    assert isinstance(entry, Submitted)
    parent = Parent(task="p", capability="c", key="k") if child else None
    return msgspec.structs.replace(entry, priority=priority, parent=parent)


def served(turns: Turns[str]) -> list[str]:
    """Everything, in the order in which it is served."""
    found: list[str] = []
    while (item := turns.next()) is not None:
        found.append(item)
    return found


def test_lane_of_long_tasks_holds_one_more_for_each_slot_at_most() -> None:
    """So whoever comes next waits for one task, however long it takes."""
    assert allowance(1, 0.0) == 2
    assert allowance(4, 0.1) == 8
    assert allowance(64, 10.0) == 80


def test_lane_of_short_tasks_may_hold_a_moment_of_work() -> None:
    """Else agents would wait for the next look."""
    assert allowance(4, 4000.0) == 4 + 600


def test_owners_are_served_in_turn_whatever_they_hold() -> None:
    """A late owner with one task is served after one of everybody else's."""
    turns: Turns[str] = Turns()
    for number in range(5):
        turns.add("flood", 2, number, f"flood {number}")
    turns.add("late", 2, 99, "late")
    assert served(turns) == ["flood 0", "late", "flood 1", "flood 2", "flood 3", "flood 4"]


def test_one_owner_is_served_by_rank_then_oldest_first() -> None:
    """Priority decides within an owner only."""
    turns: Turns[str] = Turns()
    turns.add("a", 2, 1, "normal 1")
    turns.add("a", 0, 9, "high 9")
    turns.add("a", 2, 7, "normal 7")
    turns.add("a", 0, 4, "high 4")
    turns.add("b", 4, 3, "low 3")
    assert served(turns) == ["high 4", "low 3", "high 9", "normal 1", "normal 7"]


def test_same_submission_may_be_held_twice() -> None:
    """A redelivery during a pause of this process: both are served, and neither breaks the order."""
    turns: Turns[str] = Turns()
    turns.add("a", 2, 1, "first")
    turns.add("a", 2, 1, "again")
    assert served(turns) == ["first", "again"]


def test_taken_out_without_a_turn_the_rest_keeps_its_order_and_place() -> None:
    """What an own intake brings again is left to it, oldest first; the owner's turn is as near as before."""
    turns: Turns[str] = Turns()
    for number in (4, 2, 3, 1):
        turns.add("a", 2, number, str(number))
    turns.add("b", 2, 9, "b")
    assert turns.take("a", lambda item: item in {"2", "4"}) == ["2", "4"]
    assert len(turns) == 3
    assert served(turns) == ["1", "b", "3"]
    assert turns.take("a", lambda _: True) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=60))
def test_nothing_is_lost_and_no_owner_waits_for_another_twice(held: list[tuple[str, int]]) -> None:
    """Between two of one owner's, each other owner that still waits is served once."""
    turns: Turns[tuple[str, int, int]] = Turns()
    for number, (owner, urgency) in enumerate(held):
        turns.add(owner, urgency, number, (owner, urgency, number))
    found: list[tuple[str, int, int]] = []
    while (item := turns.next()) is not None:
        found.append(item)
    assert sorted(found) == sorted((o, u, n) for n, (o, u) in enumerate(held))
    for owner in "abc":
        mine = [item[1:] for item in found if item[0] == owner]
        assert mine == sorted(mine)
    for place, item in enumerate(found):
        between = [one[0] for one in found[:place]]
        for other in set("abc") - {item[0]}:
            waits = any(one[0] == other for one in found[place:])
            if waits:
                assert between.count(item[0]) <= between.count(other) + 1


def test_children_pass_roots_of_the_same_priority() -> None:
    """Somebody who runs waits for them; but a root of higher priority stays before."""
    order = [
        submission("high", child=True),
        submission("high"),
        submission(child=True),
        submission(),
        submission("low"),
    ]
    ranks = [rank(one) for one in order]
    assert ranks == sorted(set(ranks))
    assert [is_urgent(one) for one in order] == [True, True, True, False, False]


def test_unknown_priority_is_served_at_once() -> None:
    """It is only rejected."""
    assert rank(submission("urgent")) <= rank(submission("high"))


def test_owner_with_too_many_is_crowded() -> None:
    """The owner itself, as soon as it has more than its share of the memory."""
    a, b = Backlogged("c", "a"), Backlogged("c", "b")
    assert crowded({a: CROWDED, b: 1}, a) is None
    assert crowded({a: CROWDED + 1, b: 1}, a) == a
    assert crowded({a: CROWDED + 1, b: 1}, b) is None


def test_of_many_owners_the_one_with_most_is_crowded() -> None:
    """So that the shared intake keeps moving when nobody alone has much."""
    each = CROWDED // 2
    held = {Backlogged("c", str(n)): each for n in range(CROWDED_IN_ALL // each)}
    first = Backlogged("c", "0")
    assert crowded(held, first) is None
    most = Backlogged("c", "3")
    held[most] += 1
    assert crowded(held, first) == most


def test_room_shrinks_with_dispatches_and_grows_with_looks() -> None:
    """Between two looks only own dispatches are known."""
    fill = Fill()
    fill.since = [0, 5, 0]
    assert fill.room(8) == 11
    fill.looked((0, 2, 0), before=(0, 3, 0), now=1.0)
    assert (fill.depth, fill.since, fill.room(8)) == (2, [0, 2, 0], 12)


def test_lower_priorities_are_not_in_the_way() -> None:
    """A lane full of low ones leaves all its room to high ones."""
    fill = Fill(depths=(1, 3, 12))
    assert [fill.room(8, level) for level in range(3)] == [15, 12, 0]


def test_rate_is_what_went_between_two_looks() -> None:
    """100 completed in 0.1 s, smoothed by half; a look right after another tells no rate."""
    fill = Fill()
    nothing = (0, 0, 0)
    fill.looked((0, 120, 0), nothing, now=1.0)
    assert fill.rate == 0
    fill.since = [0, 50, 0]
    fill.looked((0, 70, 0), before=(0, 50, 0), now=1.1)
    assert fill.rate == pytest.approx(500)
    fill.looked(nothing, nothing, now=1.1001)
    assert fill.rate == pytest.approx(500)


def test_timers_are_woken_with_owners_in_turn() -> None:
    """Who waits for capacity is woken fairly too."""
    timers = [f"sg.timer.c.{owner}.{task}.capacity" for owner, task in ("a1", "a2", "a3", "b4")]
    assert [timer.split(".")[4] for timer in in_turns(timers)] == ["1", "4", "2", "3"]
    assert in_turns([]) == []
