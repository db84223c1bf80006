"""What a coordinator decides in each state, and that its decisions are legal, readable and repeatable."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchgear.contract import entries, limits, values
from switchgear.lifecycle.coordination import Arm, CancelChildren, TellHolder, Wake
from tests.unit.lifecycle.script import (
    LATER,
    SCOPE,
    T0,
    Script,
    failed,
    parsed,
    pool,
    seconds,
    settled,
    submitted,
)

STOPPED_BY_DEADLINE = (TellHolder("deadline"), CancelChildren("its parent was cancelled"))
END_OF_TIME = datetime.max.replace(tzinfo=UTC)


# Queued


def test_a_submission_is_dispatched_to_the_pool_that_fits() -> None:
    """The dispatch repeats what the agent needs, and says why it went there."""
    script = submitted(root="r", depth=1, deadline=LATER, trace="00-a", priority="high")
    decision = script.decide()
    entry = decision.entry
    assert isinstance(entry, entries.Dispatched)
    assert parsed(decision)[3:] == ("dispatched", "p1", "high")
    assert (entry.attempt, entry.submitted, entry.prev) == (1, 1, 1)
    assert (entry.root, entry.depth, entry.deadline, entry.trace) == ("r", 1, LATER, "00-a")
    assert bytes(entry.input) == b'{"source":"x"}'
    assert entry.route.reason == "the only pool that fits"
    assert entry.status.state == "held"
    assert entry.status.attempt == 1
    assert decision.effects == (Arm("deadline", LATER),)
    assert settled(script, decision).entry is None


def test_the_submissions_retry_policy_overrules_the_offers() -> None:
    """And without one the offer's counts."""
    own, offered = values.Retry(max_attempts=7), values.Retry(max_attempts=5)
    for given, expected in ((own, own), (None, offered)):
        entry = submitted(retry=given).decide(pools=[pool(retry=offered)]).entry
        assert isinstance(entry, entries.Dispatched)
        assert entry.retry == expected


def test_without_an_agent_a_task_waits_for_capacity() -> None:
    """It says who offered the capability last, and is looked at again in a minute."""
    script = submitted(deadline=LATER)
    decision = script.decide(pools=[], last_offered="reviewer until 11:58")
    entry = decision.entry
    assert isinstance(entry, entries.Waiting)
    assert entry.reason == "capacity"
    assert entry.detail == "nobody offers this capability (last offered by reviewer until 11:58)"
    assert decision.effects == (
        Arm("capacity", T0 + seconds(60), 1),
        Arm("deadline", LATER),
    )
    assert isinstance(settled(script, decision).entry, entries.Dispatched)


@pytest.mark.parametrize(
    ("rechecks", "after"), [(0, 60), (1, 120), (2, 240), (5, 1920), (6, 3600), (10**9, 3600)]
)
def test_a_wait_for_capacity_is_rechecked_less_and_less_often(rechecks: int, after: int) -> None:
    """From a minute, doubling up to an hour; nothing is appended."""
    script = submitted()
    script.add("waiting", reason="capacity")
    decision = script.decide(pools=[], rechecks=rechecks)
    assert decision.entry is None
    assert decision.effects == (Arm("capacity", T0 + seconds(after), rechecks + 1),)


def test_a_task_that_waited_for_capacity_is_dispatched_when_somebody_comes() -> None:
    """Whoever wakes it."""
    script = submitted()
    script.add("waiting", reason="capacity")
    decision = script.decide(due="capacity")
    assert parsed(decision).event == "dispatched"
    assert settled(script, decision).entry is None


# Held


def test_a_held_task_is_its_agents() -> None:
    """Nothing is to be decided; a deadline's timer that fired early is armed again (rule 11)."""
    script = Script()
    hold = script.held()
    assert script.decide().effects == ()
    script.add("released", hold=hold)
    assert script.decide().entry is None
    timed = Script()
    timed.held(deadline=LATER)
    assert timed.decide(due="deadline").effects == (Arm("deadline", LATER),)


@pytest.mark.parametrize("released", [False, True])
def test_a_held_task_past_its_deadline_is_cancelled(released: bool) -> None:  # noqa: FBT001
    """Rule 14: the same path as a cancel, with reason `deadline`; then its holder is told."""
    script = Script()
    hold = script.held(deadline=LATER)
    if released:
        script.add("checkpoint", hold=hold, kind="undo-registered")
        script.add("released", hold=hold)
    assert script.decide(LATER - seconds(1)).entry is None
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.CancelRequested)
    assert decision.entry.reason == "deadline"
    script.append(decision, LATER)
    over = LATER + limits.CLEANUP + seconds(1)
    told = script.decide(over - seconds(1))
    assert told.entry is None
    assert told.effects == (*STOPPED_BY_DEADLINE, Arm("cleanup", over))
    ended = script.decide(over)
    assert isinstance(ended.entry, entries.Expired)
    assert ended.entry.deadline == LATER
    assert ended.then == (CancelChildren("its parent has ended"),)
    assert settled(script, ended).entry is None


@pytest.mark.parametrize("released", [False, True])
def test_a_task_in_a_lane_whose_pool_is_gone_is_placed_anew(released: bool) -> None:  # noqa: FBT001
    """Rule 16: elsewhere, or it waits for capacity; a hand-on burns no failed attempt."""
    for pools, expected in (([pool("p2")], "dispatched"), ([], "waiting")):
        script = Script()
        hold = script.held()
        if released:
            script.add("released", hold=hold)
        decision = script.decide(pools=pools, lane_gone=True)
        assert parsed(decision).event == expected
        script.append(decision)
        assert script.history.last_valid == script.last
        assert script.history.failures == 0


# Cancelling


@pytest.mark.parametrize(("reason", "event"), [("enough", "cancelled"), ("deadline", "expired")])
def test_what_nobody_holds_ends_at_once(reason: str, event: str) -> None:
    """Queued, failed, waiting or handed back: no cleanup is waited for."""
    loose, waiting = Script(), Script()
    loose.add("released", hold=loose.held())
    waiting.add("waiting", hold=waiting.held(), until=LATER)
    unreadable = submitted(data=b"{")
    for script in (submitted(), failed(), waiting, loose, unreadable):
        script.add("cancel-requested", reason=reason)
        decision = script.decide()
        assert parsed(decision).event == event
        assert settled(script, decision).entry is None


def test_a_held_task_is_cancelled_by_its_holder_or_after_its_cleanup() -> None:
    """The holder is told, and the timer lets a coordinator end it instead."""
    script = Script()
    script.held()
    script.add("cancel-requested", reason="enough")
    over = T0 + limits.CLEANUP + seconds(1)
    told = script.decide(T0)
    stop = (TellHolder("enough"), CancelChildren("its parent was cancelled"))
    assert (told.entry, told.effects) == (None, (*stop, Arm("cleanup", over)))
    assert script.decide(over - seconds(1), due="cleanup").entry is None
    ended = script.decide(over, due="cleanup")
    assert isinstance(ended.entry, entries.Cancelled)
    assert ended.entry.reason == "enough"
    assert settled(script, ended).entry is None


def test_nothing_is_decided_for_what_does_not_exist_or_has_lost_its_beginning() -> None:
    """An empty scope, one with void entries only, and a remnant."""
    void = Script()
    void.add("cancel-requested")
    remnant = Script()
    remnant.held()
    remnant.stored = remnant.stored[1:]
    for script in (Script(), void, remnant):
        assert script.decide().entry is None
        assert script.decide().effects == ()


def test_a_decision_names_the_entry_that_it_builds_on() -> None:
    """`prev` is the last valid entry, also when void ones follow it."""
    script = submitted()
    script.add("cancelled", headers=b"")
    entry = script.decide().entry
    assert entry is not None
    assert (entry.prev, entry.writer, entry.time, entry.id) == (1, "c1", T0, "d2")
    assert script.history.scope == SCOPE


# Ended


def test_the_end_of_a_task_is_told_to_whoever_may_wait_for_it() -> None:
    """Its parent, and the task that comes after it; and its children end with it, if it ever ran."""
    parent = values.Parent(task="t0", capability="plan", key="k")
    script = submitted(parent=parent, then="t9", deadline=LATER)
    decision = script.decide(LATER)
    wakes = (Wake("sg.task.plan.alice.t0.>", "child"), Wake("sg.task.review.alice.t9.>", "turn"))
    assert decision.then == wakes
    again = settled(script, decision)
    assert (again.entry, again.effects) == (None, wakes)
    ran = Script()
    ran.add("completed", hold=ran.held(parent=parent))
    assert ran.decide().effects == (wakes[0], CancelChildren("its parent has ended"))


@pytest.mark.parametrize("due", ["child", "turn"])
def test_a_wake_passes_no_further_than_a_task_that_its_holder_has_ended(due: str) -> None:
    """The holder's own delivery repeats what its end calls for; what a coordinator ended, any message does."""
    parent = values.Parent(task="t0", capability="plan", key="k")
    ran = Script()
    ran.add("completed", hold=ran.held(parent=parent, then="t9"))
    assert ran.decide(due=due).effects == ()
    assert ran.decide(due="wait").effects
    rejected = submitted(parent=parent, then="t9", data=b"{")
    rejected.append(rejected.decide())
    assert rejected.decide(due=due).effects == rejected.decide().effects


def test_a_root_that_never_ran_ends_without_effects() -> None:
    """Rule 13: parentless tasks cost nothing at their end."""
    script = submitted(data=b"{")
    decision = script.decide()
    assert (decision.effects, decision.then) == ((), ())
    assert settled(script, decision).effects == ()
