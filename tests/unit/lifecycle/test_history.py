"""Rule 1 and what a history remembers: which entries count, and what they mean together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from switchgear import ids
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.contract.values import Parent
from switchgear.lifecycle.history import History, fold
from tests.unit.lifecycle.script import FAILURE, SCOPE, T0, Script, seconds

FORGED = {
    "no headers": b"",
    "lower case": header_block(expect_headers(2, SCOPE)).lower(),
    "doubled": header_block(expect_headers(2, SCOPE))[:-2]
    + header_block(expect_headers(2, SCOPE))[10:],
    "a foreign scope": header_block(expect_headers(2, "sg.task.review.alice.t2.>")),
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
def test_an_entry_without_proof_of_its_compare_and_set_is_void(headers: bytes) -> None:
    """Rule 1 (a): the broker cannot force a writer to send the headers, so every reader asks."""
    script = Script()
    hold = script.held()
    script.add("completed", hold=hold, headers=headers)
    history = script.history
    assert history.state == "held"
    assert [(void.stored.sequence, void.reason) for void in history.voids] == [
        (3, "it does not prove that it was appended with compare-and-set")
    ]


def test_an_entry_that_did_not_know_the_newest_valid_one_is_void() -> None:
    """Rule 1 (b): it was decided on what is no longer so."""
    script = Script()
    hold = script.held()
    script.add("signalled")
    script.add("completed", hold=hold, expect=2)
    assert script.history.state == "held"
    assert "before entry 3 was known" in script.history.voids[0].reason


def test_a_void_entry_between_does_not_make_the_next_one_void() -> None:
    """Rule 1 (b) asks for valid ones: a raw entry in flight may slip between (measured at R3)."""
    script = Script()
    hold = script.held()
    script.add("signalled", headers=b"")
    script.add("completed", hold=hold, expect=2)
    assert script.history.state == "completed"


def test_an_entry_under_no_subject_of_the_protocol_is_void() -> None:
    """A subject below the scope that no parser knows counts for nothing."""
    script = Script()
    script.held()
    odd = script.stored[-1]._replace(
        subject=f"{SCOPE[:-1]}paused",
        sequence=3,
        headers=header_block(expect_headers(2, SCOPE)),
    )
    script.stored.append(odd)
    assert "SG1107" in script.history.voids[0].reason


def test_an_entry_that_cannot_be_read_is_void() -> None:
    """Only a submission is heard although it cannot be read."""
    script = Script()
    script.held()
    script.add("completed", data=b"{")
    assert script.history.state == "held"
    assert "SG1105" in script.history.voids[0].reason


def test_of_two_holders_only_the_one_that_wrote_first_counts() -> None:
    """Rule 8: the first agent's entry fixes a hold's instance."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, writer="i1")
    script.add("completed", hold=hold, writer="i2")
    script.add("completed", hold=hold, writer="i1")
    history = script.history
    assert history.voids[0].reason == "i2 does not hold the task, i1 does"
    assert history.end is not None
    assert history.end.writer == "i1"


def test_a_take_over_fences_the_former_holder_out() -> None:
    """Rule 1 (d): the former holder names a hold that has ended."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, writer="i1")
    second = script.add("taken-over", hold=hold, writer="i2")
    script.add("completed", hold=hold, writer="i1")
    script.add("completed", hold=second, writer="i1")
    assert script.history.state == "held"
    assert (script.history.hold, script.history.holder) == (second, "i2")
    assert len(script.history.voids) == 2


def test_a_take_over_of_an_older_hold_is_void() -> None:
    """Two instances that got the same delivery: the first take-over wins."""
    script = Script()
    hold = script.held()
    script.add("taken-over", hold=hold, writer="i2")
    script.add("taken-over", hold=hold, writer="i3")
    assert script.history.holder == "i2"


def test_a_wait_ends_the_hold() -> None:
    """Who wrote `waiting` has given the task back and appends nothing more."""
    script = Script()
    hold = script.held()
    script.add("waiting", hold=hold)
    script.add("completed", hold=hold)
    history = script.history
    assert (history.state, history.hold, history.holder) == ("waiting", 0, None)
    assert history.waiting_since == T0


@pytest.mark.parametrize(("digest", "counts"), [(None, False), ("right", True), ("wrong", False)])
def test_an_agents_entry_carries_the_digest_of_its_task_token(
    digest: str | None,
    counts: bool,  # noqa: FBT001  # a table's column
) -> None:
    """Rule 8: it binds the entry to the dispatch that gave the token."""
    script = Script()
    script.add("submitted")
    hold = script.add("dispatched", token="right")
    carried = None if digest is None else ids.digest(digest.encode())
    script.add("completed", hold=hold, token_digest=carried)
    assert counts == (script.history.state == "completed")


def test_take_overs_after_a_crash_are_counted_by_attempt() -> None:
    """Rule 9: hand-backs and broker outages are no crashes, and a new attempt starts at none."""
    script = Script()
    hold = script.held()
    for how in ("crash", "released", "alive", "crash"):
        hold = script.add("taken-over", hold=hold, how=how)
    assert script.history.crashes == 2
    script.add("attempt-failed", hold=hold)
    script.add("dispatched", attempt=2)
    assert (script.history.crashes, script.history.failures) == (0, 1)


@pytest.mark.parametrize("attempt", [1, 3])
def test_attempts_increase_by_one(attempt: int) -> None:
    """A dispatch that repeats or skips an attempt is void."""
    script = Script()
    script.held()
    script.add("dispatched", attempt=attempt)
    assert script.history.attempt == 1
    script.add("dispatched", attempt=2)
    assert script.history.attempt == 2


@pytest.mark.parametrize(
    ("reason", "state"),
    [("capacity", "waiting"), ("start", "waiting"), ("turn", "waiting")]
    + [(reason, "queued") for reason in ("retry", "child", "signal", "timer")],
)
def test_a_queued_task_waits_for_its_place_in_time_only(reason: str, state: str) -> None:
    """It has not run, so there is nothing that a handler could wait for."""
    script = Script()
    script.add("submitted")
    script.add("waiting", reason=reason)
    assert script.history.state == state


def test_a_history_knows_when_its_newest_attempt_failed() -> None:
    """The pause before the next counts from there; a dispatch ends it."""
    script = Script()
    script.add("attempt-failed", hold=script.held(), at=T0 + seconds(3))
    assert script.history.failed_time == T0 + seconds(3)
    script.add("waiting", reason="retry", until=T0 + seconds(4))
    assert script.history.failed_time == T0 + seconds(3)
    script.add("dispatched", attempt=2)
    assert script.history.failed_time is None


# Undos


def test_undos_are_open_until_they_have_run_or_are_dropped() -> None:
    """By key, oldest first; what ran twice is no debt."""
    script = Script()
    hold = script.held()
    for key in ("a", "b", "c"):
        script.add("checkpoint", hold=hold, key=key, kind="undo-registered")
    script.add("checkpoint", hold=hold, key="b", kind="undo-done")
    script.add("checkpoint", hold=hold, key="b", kind="undo-done")
    script.add("checkpoint", hold=hold, key="unknown", kind="undo-dropped")
    assert (list(script.history.open_undos), script.history.undos) == (["a", "c"], 2)
    script.add("checkpoint", hold=hold, key="c", kind="undo-dropped")
    assert list(script.history.open_undos) == ["a"]


def test_undos_that_have_begun_are_never_forgotten() -> None:
    """Neither by the attempt's failure nor by the next dispatch: the handler is not run on what is undone."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, kind="undo-begun", ok=False, error=FAILURE)
    assert script.history.undoing == FAILURE
    script.add("attempt-failed", hold=hold)
    script.add("dispatched", attempt=2)
    assert script.history.undoing == FAILURE


def test_a_history_knows_its_parent() -> None:
    """By the scope, since the run's owner is the same."""
    script = Script()
    assert script.history.parent is None
    script.held(parent=Parent(task="t0", capability="plan", key="k"))
    assert script.history.parent == "sg.task.plan.alice.t0.>"


def test_a_task_that_was_dispatched_is_not_rejected() -> None:
    """A rejection says that it never ran."""
    script = Script()
    script.add("waiting", hold=script.held())
    script.add("rejected")
    assert script.history.voids[0].reason == "the task was dispatched before"


def test_the_first_cancel_counts() -> None:
    """A second one is no transition, but is no forgery either."""
    script = Script()
    script.held()
    script.add("cancel-requested", reason="first")
    script.add("cancel-requested", reason="second", at=T0 + seconds(5))
    history = script.history
    assert history.voids == []
    assert history.cancelling is not None
    assert (history.cancelling.reason, history.cancelling_since) == ("first", T0)


def test_a_submission_that_cannot_be_read_opens_its_task() -> None:
    """So that its sender hears a rejection instead of nothing."""
    script = Script()
    script.add("submitted", data=b"not JSON")
    history = script.history
    assert (history.state, history.last_valid, history.voids) == ("queued", 1, [])
    assert history.malformed is not None
    script.add("rejected")
    assert script.history.state == "rejected"


@pytest.mark.parametrize("event", ["dispatched", "waiting", "submitted"])
def test_a_submission_that_cannot_be_read_never_runs(event: str) -> None:
    """Nothing runs that was not submitted, whoever dispatches it."""
    script = Script()
    script.add("submitted", data=b"not JSON")
    fields: dict[str, Any] = {"reason": "capacity"} if event == "waiting" else {}
    script.add(event, **fields)
    assert script.history.state == "queued"
    assert len(script.history.voids) == 1


def test_a_second_unreadable_submission_is_void() -> None:
    """The scope is open already."""
    script = Script()
    script.add("submitted")
    script.add("submitted", data=b"not JSON")
    assert script.history.malformed is None
    assert "SG1105" in script.history.voids[0].reason


def test_a_scope_that_opens_with_a_void_entry_can_still_be_submitted() -> None:
    """Rule 5: whoever writes first cannot keep an id from its owner."""
    script = Script()
    script.add("cancel-requested", headers=b"")
    script.add("cancel-requested")
    script.add("submitted")
    assert script.history.state == "queued"
    assert len(script.history.voids) == 2


def test_a_scope_whose_beginning_is_gone_is_a_remnant() -> None:
    """Rule 18: nobody acts on it, whatever is appended later."""
    script = Script()
    script.held()
    script.add("cancelled")
    rest = script.stored[1:]
    history = fold(SCOPE, rest)
    assert history.remnant
    assert (history.state, history.is_open, history.live_dispatch) == ("none", False, 0)
    script.add("submitted")
    assert fold(SCOPE, [*rest, script.stored[-1]]).submitted is None


def test_an_unreadable_submission_is_a_beginning_too() -> None:
    """A gap behind it makes no remnant of a task that was seen to open."""
    script = Script()
    script.add("submitted", data=b"not JSON")
    script.add("rejected", expect=5, sequence=6)
    assert not script.history.remnant
    assert script.history.state == "rejected"


def test_a_writer_begins_with_the_submission_that_was_acknowledged_to_it() -> None:
    """The same history as a reader's, without reading anything."""
    script = Script()
    script.add("submitted")
    read = script.history
    written = History(SCOPE)
    written.begin(read.valid[0])
    assert written == read
    script.add("dispatched")
    assert written.add(script.stored[1], read.valid[0].subject._replace(event="dispatched")) == ""
    assert written.state == "held"


def test_an_entry_that_is_seen_twice_or_late_changes_nothing() -> None:
    """Readers come by several ways to the same entries: redeliveries, tails, histories."""
    script = Script()
    script.add("completed", hold=script.held())
    history = History(SCOPE)
    for stored in script.stored:
        assert history.add(stored) == ""
    before = (history.state, history.last, len(history.valid))
    for stored in reversed(script.stored):
        assert history.add(stored) == "seen before"
    assert before == (history.state, history.last, len(history.valid))
    assert history.voids == []


def test_a_fold_in_one_go_equals_any_fold_in_parts() -> None:
    """Incremental readers and those that read anew agree, wherever the parts are cut."""
    script = Script()
    hold = script.held()
    script.add("signalled", headers=b"")
    script.add("checkpoint", hold=hold)
    script.add("completed", hold=hold)
    whole = script.history
    for cut in range(len(script.stored) + 1):
        parts = History(SCOPE)
        for stored in itertools.chain(script.stored[:cut], script.stored):
            parts.add(stored)
        assert parts == whole


def test_an_append_that_landed_is_found_by_its_id() -> None:
    """Rule 2: an entry that was stored but is void has not landed."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, id="mine")
    script.add("checkpoint", hold=99, id="void")
    assert script.history.landed("mine") == 3
    assert script.history.landed("void") == 0
    assert script.history.landed("other") == 0


def test_a_history_knows_whose_it_is() -> None:
    """The scope names capability, owner and task."""
    history = Script().history
    assert (history.capability, history.owner, history.task) == ("review", "alice", "t1")


def test_a_dispatch_is_live_while_somebody_holds_it_or_could() -> None:
    """Rule 4: held, loose, and both of them while the task is cancelled."""
    script = Script()
    assert script.history.live_dispatch == 0
    hold = script.held()
    assert script.history.live_dispatch == hold
    taken = script.add("taken-over", hold=hold, writer="i2")
    assert script.history.live_dispatch == hold
    script.add("released", hold=taken, writer="i2")
    script.add("cancel-requested")
    assert script.history.live_dispatch == hold
    script.add("cancelled")
    assert script.history.live_dispatch == 0


def test_a_dispatch_is_live_no_more_when_a_newer_one_replaces_it() -> None:
    """A re-routed task belongs to its new pool."""
    script = Script()
    first = script.held()
    second = script.add("dispatched", attempt=2)
    assert script.history.live_dispatch == second != first
    assert script.history.pool == "p1"


def test_any_bytes_are_taken_in_without_an_exception() -> None:
    """What is stored is read by everybody, so nothing that stands there may raise."""
    history = History(SCOPE)
    for number, (subject, headers) in enumerate(
        itertools.product(
            ["", "sg.task.review.alice.t1.submitted", "\0"],
            [b"", b"\xff", header_block(expect_headers(0, SCOPE))],
        ),
        1,
    ):
        history.add(Stored(subject, number, 0, headers, b"\xff"))
    assert history.malformed is not None
