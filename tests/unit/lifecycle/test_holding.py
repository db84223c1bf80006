"""What an agent does with a delivery and with a refused append."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.contract.stored import expect_headers, header_block
from switchgear.lifecycle.holding import After, Begin, Fresh, after_refusal, begin, receive
from tests.unit.lifecycle.script import SCOPE, T0, Script

# A fresh delivery


@pytest.mark.parametrize(
    ("deliveries", "age", "fresh"),
    [
        (1, 0, Fresh.RUN),
        (1, 1, Fresh.RUN),
        (1, -1, Fresh.RUN),
        (1, 1.001, Fresh.READ),
        (1, -1.001, Fresh.READ),
        (2, 0, Fresh.READ),
    ],
)
def test_only_a_first_delivery_just_stored_runs_without_reading(
    deliveries: int, age: float, fresh: Fresh
) -> None:
    """Rule 6: after a kill of the server acked tasks came again as delivery 1."""
    script = Script()
    script.held()
    now = T0 + timedelta(seconds=age)
    assert receive(script.stored[-1], SCOPE, deliveries, now) is fresh


def test_a_dispatch_without_proof_is_read_first() -> None:
    """Any principal of the lane may have stored it."""
    script = Script()
    script.held()
    for scope in (SCOPE.lower().replace("t1", "t2"), ""):
        forged = script.stored[-1]._replace(headers=header_block(expect_headers(1, scope)))
        assert receive(forged, SCOPE, 1, T0) is Fresh.READ


# After reading


def test_the_first_delivery_of_an_untouched_dispatch_runs() -> None:
    """Nobody has written about it."""
    script = Script()
    hold = script.held()
    assert begin(script.history, hold, "i1", 1, running=False) == Begin("run")


def test_a_second_delivery_takes_over_whoever_held_it_is_unknown() -> None:
    """The first holder may have died before its first entry."""
    script = Script()
    hold = script.held()
    assert begin(script.history, hold, "i2", 2, running=False) == Begin("take-over")


@pytest.mark.parametrize("deliveries", [1, 2])
def test_another_instances_entry_is_taken_over_by_name(deliveries: int) -> None:
    """The delivery count restarts with the consumer: delivery 1 proves nothing (rule 8)."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, writer="i1")
    taking = begin(script.history, hold, "i2", deliveries, running=False)
    assert taking == Begin("take-over", "i1")


def test_a_handed_back_task_is_taken_over_as_such() -> None:
    """No crash is counted; who handed it back while it still runs takes it over like any other."""
    script = Script()
    hold = script.held()
    script.add("released", hold=hold, writer="i1")
    for running in (False, True):
        taking = begin(script.history, hold, "i1", 2, running=running)
        assert taking == Begin("take-over", "i1", loose=True)


def test_who_still_runs_it_goes_on_with_the_new_delivery() -> None:
    """A lease that a broker outage ended is no crash: no entry is written."""
    script = Script()
    hold = script.held()
    assert begin(script.history, hold, "i1", 2, running=True) == Begin("go-on")
    script.add("checkpoint", hold=hold, writer="i1")
    assert begin(script.history, hold, "i1", 2, running=True) == Begin("go-on")
    assert begin(script.history, hold, "i1", 2, running=False) == Begin("take-over", "i1")


def test_who_runs_what_another_took_over_does_not_go_on() -> None:
    """It takes over again, or stops."""
    script = Script()
    hold = script.held()
    script.add("taken-over", hold=hold, writer="i2")
    assert begin(script.history, hold, "i1", 3, running=True) == Begin("take-over", "i2")


@pytest.mark.parametrize("event", ["attempt-failed", "waiting", "completed"])
def test_a_dispatch_that_is_live_no_more_is_dropped(event: str) -> None:
    """It is acked without running, also while somebody here still runs it (rule 6)."""
    script = Script()
    hold = script.held()
    script.add(event, hold=hold)
    for running in (False, True):
        assert begin(script.history, hold, "i2", 1, running=running) == Begin("ack")


def test_a_superseded_dispatch_is_dropped() -> None:
    """Only the newest one is live."""
    script = Script()
    first = script.held()
    second = script.add("dispatched", attempt=2)
    assert begin(script.history, first, "i1", 1, running=False) == Begin("ack")
    assert begin(script.history, second, "i1", 1, running=False) == Begin("run")


# After a refusal


def test_an_entry_that_had_landed_is_not_repeated() -> None:
    """The broker's answer was lost, not the append."""
    script = Script()
    hold = script.held()
    script.add("completed", hold=hold, id="mine")
    assert after_refusal(script.history, "mine", hold, "i1") == After("landed", 3)


def test_after_an_entry_that_had_landed_the_holder_expects_the_newest() -> None:
    """A signal may have come since."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, id="mine")
    script.add("signalled")
    assert after_refusal(script.history, "mine", hold, "i1") == After("landed", 4)


def test_who_lost_the_task_after_its_entry_had_landed_cannot_write_after_the_next_holder() -> None:
    """It expects no more than its own entry, so its next append is refused, and tells it."""
    script = Script()
    hold = script.held()
    mine = script.add("checkpoint", hold=hold, id="mine")
    script.add("taken-over", hold=hold, writer="i2")
    assert after_refusal(script.history, "mine", hold, "i1") == After("landed", mine)


def test_a_signal_between_lets_the_holder_append_again() -> None:
    """Its run goes on, with the new expectation."""
    script = Script()
    hold = script.held()
    script.add("signalled")
    script.add("completed", headers=b"")
    assert after_refusal(script.history, "mine", hold, "i1") == After("again", 4)


def test_a_cancel_between_stops_the_holder() -> None:
    """What it wanted to append is void now; it may end the task so."""
    script = Script()
    hold = script.held()
    script.add("cancel-requested", reason="enough")
    assert after_refusal(script.history, "mine", hold, "i1") == After("cancelled", 3, "enough")


def test_who_was_taken_over_has_lost() -> None:
    """It touches neither the task nor its delivery any more."""
    script = Script()
    hold = script.held()
    taken = script.add("taken-over", hold=hold, writer="i2")
    lost = After("lost", reason="i2 holds the task now")
    assert after_refusal(script.history, "mine", hold, "i1") == lost
    assert after_refusal(script.history, "mine", taken, "i1") == lost


def test_who_was_second_to_write_on_a_hold_has_lost() -> None:
    """The first entry fixes the instance."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, writer="i2")
    assert after_refusal(script.history, "mine", hold, "i1").act == "lost"


def test_a_rerouted_task_is_lost_to_its_holder() -> None:
    """Nobody is known to hold it now."""
    script = Script()
    hold = script.held()
    script.add("dispatched", attempt=2)
    lost = After("lost", reason="another instance holds the task now")
    assert after_refusal(script.history, "mine", hold, "i1") == lost


def test_an_ended_task_is_lost() -> None:
    """After a terminal event nothing is appended."""
    script = Script()
    hold = script.held()
    script.add("cancelled")
    lost = After("lost", reason="the task has ended as cancelled")
    assert after_refusal(script.history, "mine", hold, "i1") == lost


def test_a_remnant_is_lost() -> None:
    """Its id counts as ended."""
    script = Script()
    hold = script.held()
    script.stored = script.stored[1:]
    assert after_refusal(script.history, "mine", hold, "i1").act == "lost"


def test_who_handed_the_task_back_appends_nothing_more() -> None:
    """The hold is its own still, but the task is loose."""
    script = Script()
    hold = script.held()
    script.add("released", hold=hold)
    lost = After("lost", reason="the task is loose")
    assert after_refusal(script.history, "mine", hold, "i1") == lost
