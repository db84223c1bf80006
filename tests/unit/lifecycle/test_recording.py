"""What the next run of a handler finds recorded, and what it does again."""

from __future__ import annotations

from typing import Any

from switchgear.contract import values
from switchgear.lifecycle.recording import NOTHING, records, suspension
from tests.unit.lifecycle.script import DIGEST, FAILURE, LATER, T0, Script, awaited, seconds

BLOB = values.Blob(digest=DIGEST, size=1)


def test_a_first_run_finds_nothing() -> None:
    """Neither before nor after its dispatch."""
    script = Script()
    assert records(script.history) == NOTHING
    script.held()
    assert records(script.history) == NOTHING


def test_ends_are_found_by_key_until_a_failure_and_successes_for_ever() -> None:
    """Rule 12: only a failure before the last `attempt-failed` runs again."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, key="good")
    script.add("checkpoint", hold=hold, key="bad", ok=False, error=FAILURE)
    assert sorted(records(script.history).ends) == ["bad", "good"]
    taken = script.add("taken-over", hold=hold)
    assert sorted(records(script.history).ends) == ["bad", "good"]
    script.add("attempt-failed", hold=taken)
    assert sorted(records(script.history).ends) == ["good"]
    hold = script.add("dispatched", attempt=2)
    script.add("checkpoint", hold=hold, key="bad", kind="call")
    found = records(script.history).ends
    assert (sorted(found), found["bad"].ok) == (["bad", "good"], True)


def test_undos_are_no_results() -> None:
    """A step may have the key of its undo."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, key="a")
    for key in ("a", "b", "c"):
        script.add("checkpoint", hold=hold, key=key, kind="undo-registered")
    script.add("checkpoint", hold=hold, key="", kind="undo-begun", ok=False, error=FAILURE)
    script.add("checkpoint", hold=hold, key="c", kind="undo-done")
    script.add("checkpoint", hold=hold, key="b", kind="undo-dropped")
    found = records(script.history)
    assert found.ends["a"].kind == "step"
    assert list(found.ends) == ["a"]
    assert found.registered == {"a", "b", "c"}
    assert [undo.key for undo in found.open_undos] == ["a"]


def test_waits_keep_the_times_that_they_were_given_first() -> None:
    """A timer survives a retry, since its key is the handler's; other waits begin anew with their attempt."""
    script = Script()
    hold = script.held()
    waits = (awaited("timer", until=LATER), awaited("signal", until=LATER), awaited("child"))
    script.add("waiting", hold=hold, waits=waits)
    hold = script.add("dispatched", attempt=2)
    assert records(script.history).begun == {wait.key: wait for wait in waits}
    script.add("attempt-failed", hold=hold)
    assert records(script.history).begun == {"timer": waits[0]}


def test_waits_in_a_blob_are_found_where_they_were_appended() -> None:
    """A wait for capacity that follows hides them no more than a dispatch does; a later failure still counts."""
    script = Script()
    hold = script.held()
    script.add("waiting", hold=hold, waits=(awaited("timer", key="old", until=LATER),))
    hold = script.add("dispatched", attempt=2)
    script.add("waiting", hold=hold, waits_blob=BLOB)
    script.add("waiting", reason="capacity")
    found = suspension(script.history)
    assert found is not None
    assert found.waits_blob == BLOB
    begun = (awaited("timer", until=LATER), awaited("child", until=LATER))
    assert sorted(records(script.history, begun).begun) == ["child", "old", "timer"]
    hold = script.add("dispatched", attempt=3)
    script.add("attempt-failed", hold=hold)
    assert sorted(records(script.history, begun).begun) == ["old", "timer"]


def test_a_task_that_was_never_suspended_has_no_suspension() -> None:
    """A wait for capacity is none."""
    script = Script()
    script.held()
    script.add("waiting", reason="capacity")
    assert suspension(script.history) is None
    assert records(script.history, (awaited("timer"),)).begun == {}


def test_signals_that_no_wait_has_taken_are_there_for_the_next() -> None:
    """Also those that came before anybody waited."""
    script = Script()
    hold = script.held()
    script.add("signalled", name="go", at=T0 - seconds(9))
    taken = script.add("signalled", name="go")
    script.add("checkpoint", hold=hold, key="wait", kind="signal", signal=taken)
    assert [one.sequence for one in records(script.history).signals] == [3]


def test_a_refused_signal_is_no_end_of_its_wait() -> None:
    """The next run waits on, for as long as the wait has left; what it takes, or its timeout, is the end."""
    script = Script()
    hold = script.held()
    wait = awaited("signal", key="it", until=LATER)
    script.add("waiting", hold=hold, waits=(wait,))
    refused = script.add("signalled", name="signal")
    hold = script.add("dispatched", attempt=2)
    common: dict[str, Any] = {"hold": hold, "key": "it", "kind": "signal"}
    script.add("checkpoint", **common, ok=False, error=FAILURE, signal=refused)
    found = records(script.history)
    assert (found.ends, found.begun, found.signals) == ({}, {"it": wait}, ())
    script.add("checkpoint", **common, ok=False, error=FAILURE)
    assert list(records(script.history).ends) == ["it"]
