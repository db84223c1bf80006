"""Undos: each runs when its task fails for good or is cancelled, or the end says that it did not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from switchgear.contract import codec, entries, limits, values
from switchgear.lifecycle.coordination import Arm, CancelChildren, Decision, TellHolder
from tests.unit.lifecycle.script import (
    FAILURE,
    LATER,
    T0,
    Script,
    parsed,
    pool,
    seconds,
    settled,
)

FINAL = msgspec.structs.replace(FAILURE, retryable=False, error_class="step")
OVER = T0 + limits.CLEANUP + seconds(1)


def saga(*keys: str, error: values.Failure | None = None, **submission: Any) -> Script:
    """A task that registered undos; `error`: and then failed."""
    script = Script()
    hold = script.held(**submission)
    for key in keys or ("undo",):
        script.add("checkpoint", hold=hold, key=key, kind="undo-registered")
    if error is not None:
        script.add("attempt-failed", hold=hold, error=error)
    return script


def undo_run(decision: Decision) -> bool:
    assert isinstance(decision.entry, entries.Dispatched), decision
    return decision.entry.undoing


def suspended(**submission: Any) -> Script:
    script = saga(**submission)
    script.add("waiting", hold=script.history.hold, until=LATER)
    return script


# After the final failure


def test_a_final_failure_is_followed_by_one_undo_run_and_the_end() -> None:
    """The handler is not run in it; then the task is dead with the failure of that run."""
    script = saga(error=FINAL)
    decision = script.decide()
    assert undo_run(decision)
    assert settled(script, decision).entry is None
    hold = script.last
    script.add("checkpoint", hold=hold, key="undo", kind="undo-done")
    script.add("attempt-failed", hold=hold, error=FAILURE)
    end = script.decide()
    assert isinstance(end.entry, entries.Dead)
    assert end.entry.reason == "its undos have run"
    assert settled(script, end).entry is None


def test_an_undo_run_that_fails_is_the_last_one_and_the_end_says_so() -> None:
    """Somebody has to undo by hand what is named."""
    script = saga("charge", "book", error=FINAL)
    script.append(script.decide())
    hold = script.last
    script.add("checkpoint", hold=hold, key="book", kind="undo-done")
    script.add("attempt-failed", hold=hold, error=FINAL)
    entry = script.decide().entry
    assert isinstance(entry, entries.Dead)
    assert entry.reason == "1 undos were not run (charge): step failures of this kind are final"


def test_a_failure_that_is_retried_undoes_nothing() -> None:
    """The next attempt builds on what was done."""
    assert not undo_run(saga(error=FAILURE).decide(LATER))


def test_an_attempt_whose_undos_have_begun_is_not_repeated() -> None:
    """Its holder judged the failure final, perhaps by a clock that is ahead: what is undone is not built upon."""
    script = saga()
    hold = script.history.hold
    script.add("checkpoint", hold=hold, key="", kind="undo-begun", ok=False, error=FAILURE)
    script.add("checkpoint", hold=hold, key="undo", kind="undo-done")
    script.add("attempt-failed", hold=hold, error=FAILURE)
    end = script.decide(LATER)
    assert isinstance(end.entry, entries.Dead)
    assert end.entry.reason == "its undos have run"


def test_an_undo_run_that_finds_no_agent_stays_one() -> None:
    """Also when its pool goes before anybody pulled it, or after it ran its last undo."""
    script = saga(error=FINAL)
    waits = script.decide(pools=[])
    assert parsed(waits).event == "waiting"
    script.append(waits)
    decision = script.decide()
    assert undo_run(decision)
    script.append(decision)
    assert undo_run(script.decide(pools=[pool("p2")], lane_gone=True))
    script.add("checkpoint", hold=script.history.hold, key="undo", kind="undo-done")
    script.append(script.decide(pools=[], lane_gone=True))
    assert script.history.position == "waiting"
    assert undo_run(script.decide())


def test_an_undo_run_that_gave_its_slot_back_stays_one() -> None:
    """Whatever it waited for."""
    script = saga(error=FINAL)
    script.append(script.decide())
    script.add("waiting", hold=script.last, until=T0)
    assert undo_run(script.decide())


# On a cancel


def test_a_holder_undoes_within_the_clean_up_time_of_its_capability() -> None:
    """Only then does a coordinator end the task, and says what was left."""
    script = Script()
    script.add("submitted")
    hold = script.add("dispatched", cleanup=seconds(600))
    for number in range(12):
        script.add("checkpoint", hold=hold, key=f"undo-{number}" + "x" * 99, kind="undo-registered")
    script.add("cancel-requested", reason="enough!!" * 2048)
    over = T0 + seconds(601)
    assert Arm("cleanup", over) in script.decide().effects
    end = script.decide(over, due="cleanup")
    assert isinstance(end.entry, entries.Cancelled)
    assert end.entry.reason.startswith("12 undos were not run (undo-0x")
    assert end.entry.status.reason.startswith("12 undos were not run")
    assert codec.decode_entry(parsed(end), codec.encode(end.entry)) == end.entry
    assert settled(script, end).entry is None


@pytest.mark.parametrize("failed", [False, True])
def test_a_cancelled_task_that_nobody_holds_gets_an_undo_run(failed: bool) -> None:  # noqa: FBT001
    """Rule 14: dispatched once, under a clean-up time of its own."""
    script = saga(error=FAILURE) if failed else suspended()
    script.add("cancel-requested", reason="enough")
    decision = script.decide(T0 + seconds(2))
    assert undo_run(decision)
    stop = (TellHolder("enough"), CancelChildren("its parent was cancelled"))
    assert decision.effects == (*stop, Arm("cleanup", OVER))
    script.append(decision, T0 + seconds(2))
    told = script.decide(OVER)
    assert (told.entry, told.effects) == (None, (*stop, Arm("cleanup", OVER + seconds(2))))
    end = script.decide(OVER + seconds(2))
    assert isinstance(end.entry, entries.Cancelled)
    assert end.entry.reason == "1 undos were not run (undo): enough"


def test_a_cancelled_tasks_undos_wait_for_an_agent_as_long_as_there_is_time() -> None:
    """The capacity timer lets the first announcement wake them."""
    script = Script()
    script.add("submitted")
    hold = script.add("dispatched", cleanup=seconds(600))
    script.add("checkpoint", hold=hold, key="undo", kind="undo-registered")
    script.add("waiting", hold=hold, until=LATER)
    script.add("cancel-requested", reason="enough")
    decision = script.decide(pools=[])
    assert decision.entry is None
    assert decision.effects[2:] == (
        Arm("cleanup", T0 + seconds(601)),
        Arm("capacity", T0 + seconds(60), 1),
    )
    late = script.decide(T0 + seconds(590), pools=[], rechecks=3, due="capacity")
    assert late.effects[3] == Arm("capacity", T0 + seconds(601), 4)
    assert undo_run(script.decide(T0 + seconds(600), due="capacity"))
    end = script.decide(T0 + seconds(601))
    assert isinstance(end.entry, entries.Cancelled)


def test_a_cancel_during_an_undo_run_lets_it_go_on() -> None:
    """Its holder ends the task, or a coordinator after the clean-up time."""
    script = saga(error=FINAL)
    script.append(script.decide())
    script.add("cancel-requested", reason="enough")
    assert script.decide().entry is None
    hold = script.history.hold
    script.add("checkpoint", hold=hold, key="undo", kind="undo-done")
    script.add("cancelled", hold=hold)
    assert script.history.ended == "cancelled"


def test_a_cancel_finds_an_undo_run_that_nobody_has_pulled() -> None:
    """It waits for capacity again; that was no attempt to undo."""
    script = saga(error=FINAL)
    script.append(script.decide())
    script.append(script.decide(pools=[], lane_gone=True))
    script.add("cancel-requested", reason="enough")
    assert undo_run(script.decide())


def test_undos_that_failed_to_run_are_not_run_again_on_a_cancel() -> None:
    """The end names them instead."""
    script = saga(error=FINAL)
    script.append(script.decide())
    script.add("attempt-failed", hold=script.last, error=FINAL)
    script.add("cancel-requested", reason="enough")
    entry = script.decide().entry
    assert isinstance(entry, entries.Cancelled)
    assert entry.reason == "1 undos were not run (undo): enough"


# At the deadline


def test_a_waiting_task_with_undos_is_cancelled_by_its_deadline() -> None:
    """Nothing starts after the deadline but what takes back; the end is `expired`."""
    script = suspended(deadline=T0 + seconds(30))
    decision = script.decide(T0 + seconds(30), due="deadline")
    assert isinstance(decision.entry, entries.CancelRequested)
    assert decision.entry.reason == "deadline"
    script.append(decision, T0 + seconds(30))
    assert undo_run(script.decide(T0 + seconds(30)))
    end = script.decide(T0 + seconds(36))
    assert isinstance(end.entry, entries.Expired)
    assert end.entry.status.reason == "1 undos were not run (undo): its deadline passed"


def test_a_clean_up_time_beyond_the_calendar_ends_with_it() -> None:
    """An announcement's durations are bounded by nobody, and no decision may raise."""
    script = Script()
    script.add("submitted")
    script.add("dispatched", cleanup=timedelta.max)
    script.add("cancel-requested", reason="enough")
    timer = script.decide().effects[-1]
    assert isinstance(timer, Arm)
    assert timer.at.year == 9999
