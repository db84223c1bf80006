"""What a coordinator decides in each state, and that its decisions are legal, readable and repeatable."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from switchgear.contract import entries, limits, values
from switchgear.lifecycle.coordination import Arm, TellHolder
from tests.unit.lifecycle.script import (
    FAILURE,
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
    assert told.effects == (TellHolder("deadline"), Arm("cleanup", over))
    ended = script.decide(over)
    assert isinstance(ended.entry, entries.Expired)
    assert ended.entry.deadline == LATER
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


# Failed


def test_a_failed_attempt_is_repeated_at_once_until_there_were_enough() -> None:
    """Attempts count dispatches, the policy counts failures."""
    script = submitted(retry=values.Retry(max_attempts=2))
    script.append(script.decide())
    script.add("attempt-failed", hold=script.last)
    second = script.decide()
    assert isinstance(second.entry, entries.Dispatched)
    assert second.entry.attempt == 2
    assert settled(script, second).entry is None
    script.add("attempt-failed", hold=script.last)
    last = script.decide()
    assert isinstance(last.entry, entries.Dead)
    assert last.entry.reason == "all attempts failed: 2 of 2"
    assert last.entry.error == FAILURE
    assert settled(script, last).entry is None


def test_hand_backs_and_waits_burn_no_attempt() -> None:
    """Only `attempt-failed` counts for the policy."""
    script = submitted(retry=values.Retry(max_attempts=1))
    script.append(script.decide())
    script.add("waiting", hold=script.last, until=T0)
    script.append(script.decide())
    assert script.history.attempt == 2
    assert script.decide().entry is None


def test_a_failure_that_says_so_is_final() -> None:
    """The failed side knows best that it will never succeed."""
    script = failed(msgspec.structs.replace(FAILURE, retryable=False, error_class="invalid"))
    decision = script.decide()
    assert isinstance(decision.entry, entries.Dead)
    assert decision.entry.reason == "invalid failures of this kind are final"
    assert settled(script, decision).entry is None


def test_a_class_that_the_policy_does_not_repeat_is_final() -> None:
    """Whatever the failed side says."""
    script = failed(msgspec.structs.replace(FAILURE, error_class="bug"))
    decision = script.decide()
    assert isinstance(decision.entry, entries.Dead)
    assert decision.entry.reason == "the policy does not retry bug failures"


def test_a_failed_task_whose_agents_are_gone_waits_for_them() -> None:
    """A retry needs somebody to run it."""
    script = failed()
    decision = script.decide(pools=[])
    assert isinstance(decision.entry, entries.Waiting)
    assert isinstance(settled(script, decision).entry, entries.Dispatched)


def test_a_failed_task_past_its_deadline_expires() -> None:
    """No execution starts after the deadline."""
    script = Script()
    script.add("attempt-failed", hold=script.held(deadline=LATER))
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.Expired)
    assert settled(script, decision).entry is None


# Waiting


def waiting(**fields: Any) -> Script:
    script = Script()
    script.add("waiting", hold=script.held(), **fields)
    return script


@pytest.mark.parametrize(("reason", "kind"), [("retry", "retry"), ("timer", "wait")])
def test_a_wait_until_a_time_ends_then(reason: str, kind: str) -> None:
    """Before it the timer is armed anew: a due message may come early or twice."""
    script = waiting(reason=reason, until=LATER)
    early = script.decide(LATER - seconds(1), due=kind)
    assert (early.entry, early.effects) == (None, (Arm(kind, LATER, 1),))
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.Dispatched)
    assert decision.entry.attempt == 2
    assert settled(script, decision).entry is None


def test_a_wait_without_a_time_is_rechecked() -> None:
    """Rule 13: every `waiting` has a timer."""
    script = waiting(reason="child")
    first = script.decide()
    assert (first.entry, first.effects) == (None, (Arm("wait", T0 + seconds(60), 1),))
    assert script.decide(rechecks=2).effects == (Arm("wait", T0 + seconds(240), 3),)
    assert isinstance(script.decide(due="wait", rechecks=1).entry, entries.Dispatched)


@pytest.mark.parametrize("kind", ["deadline", "capacity", "cleanup"])
def test_a_pointless_timer_does_not_end_a_wait(kind: str) -> None:
    """Rule 11: a late, doubled or pointless timer is harmless; an early deadline is armed again."""
    script = Script()
    script.add("waiting", hold=script.held(deadline=LATER), reason="child")
    decision = script.decide(due=kind)
    assert decision.entry is None
    assert decision.effects == (Arm("wait", T0 + seconds(60), 1), Arm("deadline", LATER))


def test_a_signal_of_the_awaited_name_ends_the_wait() -> None:
    """Another name does not, and neither does one that came before the wait."""
    script = Script()
    hold = script.held()
    script.add("signalled", name="go")
    script.add("waiting", hold=hold, reason="signal", signal="go")
    assert script.decide().entry is None
    script.add("signalled", name="stop")
    assert script.decide().entry is None
    script.add("cancel-requested", headers=b"")
    script.add("signalled", name="go")
    decision = script.decide()
    assert isinstance(decision.entry, entries.Dispatched)
    assert settled(script, decision).entry is None


def test_a_waiting_task_expires_at_its_deadline() -> None:
    """It runs nowhere, so nobody has to be asked."""
    script = Script()
    script.add("waiting", hold=script.held(deadline=LATER), until=LATER + seconds(9))
    assert script.decide(LATER - seconds(1)).entry is None
    assert isinstance(script.decide(LATER).entry, entries.Expired)


def test_a_queued_task_expires_at_its_deadline() -> None:
    """A coordinator that comes late does not dispatch it any more."""
    script = submitted(deadline=LATER)
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.Expired)
    assert settled(script, decision).entry is None


def test_a_moment_beyond_the_calendar_is_armed_at_its_end() -> None:
    """The last second of the year 9999 west of Greenwich has no date in UTC."""
    far = "9999-12-31T23:59:59-12:00"
    script = Script()
    script.held(deadline=datetime.fromisoformat(far))
    assert script.decide().effects == (Arm("deadline", END_OF_TIME),)
    late = waiting(until=datetime.fromisoformat(far))
    assert late.decide().effects == (Arm("wait", END_OF_TIME, 1),)


# Cancelling


@pytest.mark.parametrize(("reason", "event"), [("enough", "cancelled"), ("deadline", "expired")])
def test_what_nobody_holds_ends_at_once(reason: str, event: str) -> None:
    """Queued, failed, waiting or handed back: no cleanup is waited for."""
    loose = Script()
    loose.add("released", hold=loose.held())
    unreadable = submitted(data=b"{")
    for script in (submitted(), failed(), waiting(), loose, unreadable):
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
    assert (told.entry, told.effects) == (None, (TellHolder("enough"), Arm("cleanup", over)))
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
