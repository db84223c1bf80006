"""Waits: for a time, a turn, a child, a signal; that each ends when it should, and not before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from switchgear.contract import entries, values
from switchgear.lifecycle.coordination import Arm
from tests.unit.lifecycle.script import (
    LATER,
    T0,
    Script,
    awaited,
    parsed,
    seconds,
    settled,
    submitted,
)
from tests.unit.lifecycle.test_coordination import END_OF_TIME


def waiting(*waits: values.Awaited, deadline: datetime | None = None, **fields: Any) -> Script:
    script = Script()
    script.add("waiting", hold=script.held(deadline=deadline), waits=waits, **fields)
    return script


def test_the_fixture_is_a_suspended_task() -> None:
    """The history remembers since when, and for what."""
    script = waiting(awaited("timer"))
    assert script.history.waiting_since == T0
    assert script.history.waiting is not None
    assert [wait.kind for wait in script.history.waiting.waits] == ["timer"]


# Before the first dispatch


def test_a_submission_waits_for_its_start() -> None:
    """Rule 11: a timer brings it back; one that came early is armed again."""
    script = submitted(start=LATER, deadline=LATER + seconds(60))
    decision = script.decide()
    entry = decision.entry
    assert isinstance(entry, entries.Waiting)
    assert (entry.reason, entry.until) == ("start", LATER)
    deadline = Arm("deadline", LATER + seconds(60))
    assert decision.effects == (Arm("wait", LATER), deadline)
    early = settled(script, decision)
    assert (early.entry, early.effects) == (None, (Arm("wait", LATER, 1), deadline))
    started = script.decide(LATER, due="wait")
    assert parsed(started).event == "dispatched"
    assert settled(script, started).entry is None


@pytest.mark.parametrize("due", ["wait", "retry", "turn", "child"])
def test_no_timer_starts_a_task_before_its_time(due: str) -> None:
    """Neither its own, fired early, nor a wake that is for nothing here."""
    script = submitted(start=LATER)
    script.append(script.decide())
    assert script.decide(LATER - seconds(1), due=due).entry is None


def test_a_start_that_has_come_holds_nothing_up() -> None:
    """Nor does one that somebody overrules."""
    assert parsed(submitted(start=LATER).decide(LATER)).event == "dispatched"
    assert parsed(submitted(start=LATER).decide(due="now")).event == "dispatched"


def test_a_task_that_started_may_still_have_to_wait_for_its_turn() -> None:
    """And is looked at now and then, since the wake of the task before it may get lost."""
    script = submitted(start=LATER, after="t0", deadline=LATER + seconds(600))
    script.append(script.decide())
    decision = script.decide(LATER, before_open=True)
    entry = decision.entry
    assert isinstance(entry, entries.Waiting)
    assert (entry.reason, entry.until, entry.detail) == ("turn", None, "comes after t0")
    deadline = Arm("deadline", LATER + seconds(600))
    assert decision.effects == (Arm("wait", LATER + seconds(60), 1), deadline)
    script.append(decision)
    still = script.decide(LATER, before_open=True, rechecks=1, due="wait")
    assert still.entry is None
    assert still.effects == (Arm("wait", LATER + seconds(120), 2), deadline)
    assert parsed(script.decide(LATER, due="turn")).event == "dispatched"


def test_a_task_after_one_that_ended_in_any_way_waits_for_nothing() -> None:
    """Rejected, dead or long deleted: its turn has come."""
    assert parsed(submitted(after="t0").decide(before_open=False)).event == "dispatched"


# Suspended handlers


@pytest.mark.parametrize("reason", ["child", "timer", "signal"])
def test_a_wait_until_a_time_ends_then(reason: str) -> None:
    """Before it the timer is armed anew: a due message may come early or twice."""
    script = waiting(reason=reason, until=LATER)
    early = script.decide(LATER - seconds(1), due="wait")
    assert (early.entry, early.effects) == (None, (Arm("wait", LATER, 1),))
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.Dispatched)
    assert decision.entry.attempt == 2
    assert settled(script, decision).entry is None


def test_a_wait_for_nothing_known_ends_at_its_first_wake() -> None:
    """Rule 13: every `waiting` has a timer."""
    script = waiting(reason="child")
    first = script.decide()
    assert (first.entry, first.effects) == (None, (Arm("wait", T0 + seconds(60), 1),))
    assert script.decide(rechecks=2).effects == (Arm("wait", T0 + seconds(240), 3),)
    assert isinstance(script.decide(due="wait", rechecks=1).entry, entries.Dispatched)


@pytest.mark.parametrize("kind", ["deadline", "capacity", "cleanup"])
def test_a_pointless_timer_does_not_end_a_wait(kind: str) -> None:
    """Rule 11: a late, doubled or pointless timer is harmless; an early deadline is armed again."""
    script = waiting(reason="child", deadline=LATER)
    decision = script.decide(due=kind)
    assert decision.entry is None
    assert decision.effects == (Arm("wait", T0 + seconds(60), 1), Arm("deadline", LATER))


@pytest.mark.parametrize("due", ["", "wait", "child", "turn", "retry"])
def test_a_wake_ends_no_wait_whose_condition_is_open(due: str) -> None:
    """Somebody's wake is a reason to look, not to go on."""
    timer, signal, child = awaited("timer", until=LATER), awaited("signal"), awaited("child")
    script = waiting(timer, signal, child, reason="child", until=LATER)
    assert script.decide(due=due).entry is None


def test_each_kind_of_wait_lets_the_handler_go_on() -> None:
    """Any of them, when it is over."""
    waits = (awaited("timer", until=LATER), awaited("signal"), awaited("child"))
    script = waiting(*waits, reason="child", until=LATER)
    assert parsed(script.decide(LATER)).event == "dispatched"
    done = script.decide(children={"child": "done"})
    assert parsed(done).event == "dispatched"
    script.add("signalled", name="stop")
    assert script.decide().entry is None
    script.add("signalled", name="go")
    decision = script.decide()
    assert parsed(decision).event == "dispatched"
    assert settled(script, decision).entry is None


@pytest.mark.parametrize("before", [True, False])
def test_a_signal_ends_the_wait_whether_it_came_before_or_after(before: bool) -> None:  # noqa: FBT001
    """One that came before is refused to the waiting handler's append by a good agent, but not by each."""
    script = Script()
    hold = script.held()
    waits = (awaited("signal"),)
    if before:
        script.add("signalled", name="go")
    script.add("waiting", hold=hold, reason="signal", waits=waits)
    if not before:
        script.add("signalled", name="go")
    assert parsed(script.decide()).event == "dispatched"


def test_a_signal_that_an_earlier_wait_took_ends_no_other() -> None:
    """Rule 12: the wait's checkpoint names the signal."""
    script = Script()
    hold = script.held()
    signal = script.add("signalled", name="go")
    script.add("checkpoint", hold=hold, key="first", kind="signal", signal=signal)
    waits = (awaited("signal", key="second"),)
    script.add("waiting", hold=hold, reason="signal", waits=waits)
    assert script.decide().entry is None
    script.add("signalled", name="go")
    assert parsed(script.decide()).event == "dispatched"


def test_the_next_time_of_several_waits_is_armed() -> None:
    """A time that has passed, of waits that are over together only, would fire at once and for ever."""
    waits = (
        awaited("timer", until=T0, together="g"),
        awaited("signal", until=LATER, together="g"),
    )
    script = waiting(*waits, reason="timer", until=T0)
    decision = script.decide()
    assert (decision.entry, decision.effects) == (None, (Arm("wait", LATER, 1),))
    assert parsed(script.decide(LATER)).event == "dispatched"
    unbounded = (waits[0], awaited("signal", together="g"))
    script = waiting(*unbounded, reason="timer", until=T0)
    assert script.decide().effects == (Arm("wait", T0 + seconds(60), 1),)


def test_waits_for_children_are_rechecked_long_before_they_give_up() -> None:
    """The wake at a child's end is published once, and may get lost."""
    waits = (awaited("child", until=LATER),)
    script = waiting(*waits, reason="child", until=LATER)
    assert script.decide().effects == (Arm("wait", T0 + seconds(60), 1),)
    near = script.decide(rechecks=20, due="wait")
    assert near.effects == (Arm("wait", LATER, 21),)
    assert parsed(script.decide(LATER)).event == "dispatched"


# Deadlines


def test_a_waiting_task_expires_at_its_deadline() -> None:
    """It runs nowhere, so nobody has to be asked."""
    script = waiting(until=LATER + seconds(9), deadline=LATER)
    assert script.decide(LATER - seconds(1)).entry is None
    assert isinstance(script.decide(LATER).entry, entries.Expired)


@pytest.mark.parametrize("fields", [{}, {"start": LATER + seconds(9)}, {"after": "t0"}])
def test_a_queued_task_expires_at_its_deadline(fields: dict[str, Any]) -> None:
    """A coordinator that comes late does not dispatch it any more."""
    script = submitted(deadline=LATER, **fields)
    waited = submitted(deadline=LATER, **fields)
    if fields:
        waited.append(waited.decide(before_open=True))
    for one in (script, waited):
        decision = one.decide(LATER, before_open=True)
        assert isinstance(decision.entry, entries.Expired)
        assert settled(one, decision).entry is None


def test_a_moment_beyond_the_calendar_is_armed_at_its_end() -> None:
    """The last second of the year 9999 west of Greenwich has no date in UTC."""
    far = datetime.fromisoformat("9999-12-31T23:59:59-12:00")
    script = Script()
    script.held(deadline=far)
    assert script.decide().effects == (Arm("deadline", END_OF_TIME),)
    assert waiting(until=far).decide().effects == (Arm("wait", END_OF_TIME, 1),)
    waits = (awaited("timer", until=far),)
    late = waiting(*waits, until=far)
    assert late.decide().effects == (Arm("wait", END_OF_TIME, 1),)
    start = submitted(start=far)
    decision = start.decide()
    assert isinstance(decision.entry, entries.Waiting)
    assert decision.entry.until == END_OF_TIME
