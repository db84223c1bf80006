"""What becomes of a failed attempt: another after its pause, within the budget, or the end."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from switchgear.contract import entries, values
from switchgear.lifecycle import retrying
from switchgear.lifecycle.coordination import Arm
from tests.unit.lifecycle.script import (
    FAILURE,
    LATER,
    T0,
    TASK,
    Script,
    failed,
    parsed,
    pool,
    seconds,
    settled,
    submitted,
)

PAUSE = retrying.pause(FAILURE, values.Retry(), TASK, 1)
AT_ONCE = values.Retry(initial=timedelta(0))


def test_a_failed_attempt_is_repeated_after_its_pause() -> None:
    """Rule 10: it waits without a slot, and a timer brings it back; not before."""
    script = failed()
    decision = script.decide()
    entry = decision.entry
    assert isinstance(entry, entries.Waiting)
    assert (entry.reason, entry.until) == ("retry", T0 + PAUSE)
    assert entry.detail.startswith("attempt 2 follows at ")
    assert decision.effects == (Arm("retry", T0 + PAUSE),)
    early = settled(script, decision)
    assert (early.entry, early.effects) == (None, (Arm("retry", T0 + PAUSE, 1),))
    dispatched = script.decide(T0 + PAUSE, due="retry")
    assert isinstance(dispatched.entry, entries.Dispatched)
    assert dispatched.entry.attempt == 2
    assert not dispatched.entry.undoing
    assert settled(script, dispatched).entry is None


def test_a_failed_attempt_that_is_met_after_its_pause_needs_no_wait() -> None:
    """Nothing is appended that a dispatch would follow at once."""
    assert parsed(failed().decide(T0 + PAUSE)).event == "dispatched"
    assert parsed(failed(retry=AT_ONCE).decide()).event == "dispatched"


def test_the_failed_side_says_how_long_to_wait() -> None:
    """The pause is no shorter than what it asks for."""
    script = failed(msgspec.structs.replace(FAILURE, retry_after=90.0))
    assert script.decide().effects == (Arm("retry", T0 + seconds(90)),)


def test_attempts_end_when_there_were_enough() -> None:
    """Attempts count dispatches, the policy counts failures."""
    script = submitted(retry=values.Retry(max_attempts=2))
    script.append(script.decide())
    script.add("attempt-failed", hold=script.last)
    script.append(script.decide(LATER))
    script.add("attempt-failed", hold=script.last)
    last = script.decide(LATER)
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


FINAL = {
    "one that says so": (
        msgspec.structs.replace(FAILURE, retryable=False, error_class="invalid"),
        "invalid failures of this kind are final",
    ),
    "of a class that is not repeated": (
        msgspec.structs.replace(FAILURE, error_class="bug"),
        "the policy does not retry bug failures",
    ),
}


@pytest.mark.parametrize(("error", "reason"), FINAL.values(), ids=FINAL)
def test_a_final_failure_ends_the_task(error: values.Failure, reason: str) -> None:
    """Whether the failed side knows it, or the policy says so."""
    script = failed(error)
    decision = script.decide()
    assert isinstance(decision.entry, entries.Dead)
    assert decision.entry.reason == reason
    assert settled(script, decision).entry is None


def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    """The task is dead at once: its caller learns what went wrong, and not only that time is up."""
    script = submitted(deadline=T0 + PAUSE)
    hold = script.add("dispatched", deadline=T0 + PAUSE)
    script.add("attempt-failed", hold=hold)
    entry = script.decide().entry
    assert isinstance(entry, entries.Dead)
    assert entry.reason.endswith("would come after the deadline")
    just = submitted(deadline=T0 + PAUSE + seconds(1))
    hold = just.add("dispatched", deadline=T0 + PAUSE + seconds(1))
    just.add("attempt-failed", hold=hold)
    assert parsed(just.decide()).event == "waiting"


def test_a_pause_beyond_the_calendar_ends_with_it() -> None:
    """Nobody bounds a policy's delays, and no decision may raise."""
    policy = values.Retry(initial=timedelta.max, max_delay=timedelta.max)
    entry = failed(retry=policy).decide().entry
    assert isinstance(entry, entries.Waiting)
    assert entry.until is not None
    assert entry.until.year == 9999


def test_a_failed_task_whose_agents_are_gone_waits_for_them() -> None:
    """A retry needs somebody to run it."""
    script = failed()
    decision = script.decide(LATER, pools=[])
    assert isinstance(decision.entry, entries.Waiting)
    assert decision.entry.reason == "capacity"
    assert isinstance(settled(script, decision).entry, entries.Dispatched)


def test_a_failed_task_past_its_deadline_expires() -> None:
    """No execution starts after the deadline."""
    script = Script()
    script.add("attempt-failed", hold=script.held(deadline=LATER))
    decision = script.decide(LATER)
    assert isinstance(decision.entry, entries.Expired)
    assert settled(script, decision).entry is None


# Budget


@pytest.mark.parametrize("waits_for", ["nothing yet", "its time", "an agent"])
def test_retries_over_the_budget_wait_for_it(waits_for: str) -> None:
    """Whatever the retry waited for; the budget says for how long, so re-checks do not double."""
    script = failed()
    if waits_for == "its time":
        script.append(script.decide())
    elif waits_for == "an agent":
        script.append(script.decide(LATER, pools=[]))
    decision = script.decide(LATER, over_budget=seconds(7), due="retry", rechecks=5)
    if waits_for == "nothing yet":
        assert isinstance(decision.entry, entries.Waiting)
        script.append(decision)
        decision = script.decide(LATER, over_budget=seconds(7), due="retry")
    assert (decision.entry, decision.effects) == (None, (Arm("retry", LATER + seconds(7)),))
    assert parsed(script.decide(LATER, due="retry")).event == "dispatched"


def test_the_budget_is_for_retries_alone() -> None:
    """First dispatches, resumed handlers and hand-ons do not use it."""
    resumed, handed_on = Script(), Script()
    resumed.add("waiting", hold=resumed.held(), until=T0)
    handed_on.held()
    handed_on.append(handed_on.decide(pools=[], lane_gone=True))
    for script in (submitted(), resumed, handed_on):
        assert parsed(script.decide(over_budget=seconds(7))).event == "dispatched"


def test_an_operator_who_says_now_is_obeyed() -> None:
    """Neither the pause nor the budget holds the retry back."""
    script = failed()
    script.append(script.decide())
    assert parsed(script.decide(due="now", over_budget=seconds(7))).event == "dispatched"


def test_a_retry_does_not_wait_for_the_start_of_its_task() -> None:
    """It was begun before its time on somebody's order; the start is the first attempt's."""
    script = submitted(start=LATER)
    script.append(script.decide())
    forced = script.decide(due="now")
    assert parsed(forced).event == "dispatched"
    script.append(forced)
    script.add("attempt-failed", hold=script.last)
    assert parsed(script.decide(T0 + PAUSE, pools=[pool()])).event == "dispatched"


def test_a_wait_that_names_no_time_does_not_last_for_ever() -> None:
    """A coordinator of another make may leave the time out."""
    for reason in ("retry", "start"):
        script = failed()
        script.add("waiting", reason=reason)
        assert parsed(script.decide()).event == "dispatched"
