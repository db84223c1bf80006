"""When a suspended handler may go on, wait by wait and together."""

from __future__ import annotations

from typing import Any

import pytest

from switchgear.contract import entries, values
from switchgear.lifecycle import suspension
from switchgear.lifecycle.suspension import Condition, met, next_time
from tests.unit.lifecycle.script import FAILURE, LATER, T0, Script, awaited, seconds

OVER = T0 - seconds(1)


def signalled(*names: str, group: str = "") -> Script:
    script = Script()
    script.held()
    for name in names:
        script.add("signalled", name=name, group=group)
    return script


def why(
    script: Script, *waits: values.Awaited, children: dict[str, Condition] | None = None
) -> str:
    return met(script.history, waits, children or {}, T0)


def test_nothing_to_wait_for_is_not_met() -> None:
    """A handler that waits for nothing known goes on by its time or a wake, not by its waits."""
    assert why(Script()) == ""


@pytest.mark.parametrize(
    ("kind", "until", "expected"),
    [
        ("timer", None, ""),
        ("timer", LATER, ""),
        ("timer", T0, "timer timer: done"),
        ("signal", LATER, ""),
        ("signal", T0, "signal signal: failed"),
        ("child", None, ""),
        ("child", OVER, "child child: failed"),
        ("children", OVER, "children children: failed"),
    ],
)
def test_a_time_ends_a_timer_and_gives_up_on_all_else(
    kind: str, until: object, expected: str
) -> None:
    """At the very moment, not after it."""
    assert why(Script(), awaited(kind, until=until)) == expected


@pytest.mark.parametrize("condition", ["done", "failed"])
@pytest.mark.parametrize("kind", ["child", "children"])
def test_the_end_of_its_children_ends_a_wait(kind: str, condition: Condition) -> None:
    """However they ended, and though the time is up too: what is there is better than nothing."""
    wait = awaited(kind, until=OVER)
    assert why(Script(), wait, children={kind: condition}) == f"{kind} {kind}: {condition}"
    assert why(Script(), awaited(kind), children={kind: "open"}) == ""
    assert why(Script(), awaited(kind), children={"another": "done"}) == ""


def test_a_signal_that_came_in_time_counts_though_the_time_is_up() -> None:
    """The first of the two that the ledger shows is what the handler gets."""
    assert why(signalled("go"), awaited("signal", until=OVER)) == "signal signal: done"


def test_a_signal_is_for_the_wait_that_names_its_sender() -> None:
    """An approver's is no owner's, and an owner's is no approver's."""
    ours, theirs = signalled("go"), signalled("go", group="approvers")
    plain, guarded = awaited("signal"), awaited("signal", sender="approvers")
    assert (why(ours, plain), why(theirs, guarded)) == ("signal signal: done",) * 2
    assert (why(theirs, plain), why(ours, guarded)) == ("", "")


def test_each_of_two_waits_for_one_name_needs_a_signal_of_its_own() -> None:
    """A handler that was let go on by one signal for both would wait again at once."""
    waits = [awaited("signal", key=key, together="g") for key in ("first", "second")]
    assert why(signalled("go"), *waits) == ""
    assert why(signalled("go", "stop"), *waits) == ""
    assert why(signalled("go", "go"), *waits) == "all of g are done"


def test_waits_together_are_over_when_all_are_or_one_has_failed() -> None:
    """Two groups do not wait for each other, and neither does what belongs to none."""
    first = awaited("child", key="a", together="g")
    second = awaited("timer", key="b", together="g", until=LATER)
    other = awaited("timer", key="c", together="h", until=T0)
    assert why(Script(), first, second) == ""
    assert why(Script(), first, second, children={"a": "done"}) == ""
    assert why(Script(), first, second, children={"a": "failed"}) == "child a: failed"
    assert why(Script(), first, second, other) == "all of h are done"
    alone = awaited("timer", key="d", until=T0)
    assert why(Script(), first, second, alone) == "timer d: done"


def test_untaken_signals_are_in_ledger_order_and_void_ones_are_none() -> None:
    """What a recorded wait took, or nobody proved, is not there."""
    script = signalled("go", "stop", "go")
    script.add("checkpoint", hold=2, kind="signal", signal=3)
    script.add("signalled", name="go", headers=b"")
    found = suspension.untaken(script.history)
    assert [(one.sequence, one.entry.name) for one in found] == [(4, "stop"), (5, "go")]
    assert suspension.first(found, "go", "") == found[1]
    assert suspension.first(found, "more", "") is None


def test_a_refused_signal_ends_no_wait_and_is_nobody_elses() -> None:
    """It is taken, and the wait is as open as before."""
    script = signalled("go")
    script.add("checkpoint", hold=2, kind="signal", key="k", signal=3, ok=False, error=FAILURE)
    assert suspension.untaken(script.history) == []
    assert why(script, awaited("signal")) == ""
    script.add("signalled", name="go")
    assert why(script, awaited("signal")) == "signal signal: done"


@pytest.mark.parametrize(
    ("refuses", "fields"),
    [
        ("yes", {"kind": "signal", "ok": False, "signal": 3, "error": FAILURE}),
        ("no", {"kind": "signal", "ok": True, "signal": 3}),
        ("no", {"kind": "signal", "ok": False, "error": FAILURE}),
        ("no", {"kind": "step", "ok": False, "error": FAILURE}),
    ],
)
def test_a_refusal_is_told_from_what_a_wait_got_and_from_its_timeout(
    refuses: str, fields: dict[str, Any]
) -> None:
    """A failed signal checkpoint that names a signal."""
    script = signalled("go")
    script.add("checkpoint", hold=2, key="k", **fields)
    entry = script.history.valid[-1].entry
    assert isinstance(entry, entries.Checkpoint)
    assert suspension.refuses(entry) == (refuses == "yes")


def test_only_waits_for_children_need_a_recheck() -> None:
    """Signals and times of the task itself come through consumers that lose nothing."""
    assert not suspension.waits_children([awaited("timer"), awaited("signal")])
    assert suspension.waits_children([awaited("timer"), awaited("child")])
    assert suspension.waits_children([awaited("children")])


def test_the_next_time_is_the_first_that_lies_ahead() -> None:
    """What has passed, or is now, is no reason to come back."""
    waits = [awaited("timer", until=at) for at in (None, T0, OVER, LATER, LATER + seconds(1))]
    assert next_time(waits, T0) == LATER
    assert next_time(waits[:3], T0) is None
    assert next_time([], T0) is None
