"""What is rejected, with which code, and that no decision is too large to be read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from switchgear.contract import codec, entries, limits, values
from switchgear.contract.announcement import Offer
from switchgear.contract.codes import REJECTIONS
from switchgear.lifecycle import admission
from switchgear.lifecycle.coordination import Arm, Decision, Wake
from tests.unit.lifecycle.script import (
    FAILURE,
    LATER,
    T0,
    Script,
    failed,
    parsed,
    pool,
    seconds,
    settled,
    submitted,
)


def misfit(_offer: Offer, _data: bytes) -> admission.Misfit:
    return admission.Misfit("$.source", "is not a string")


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "an unknown priority": ("SG1201", {"priority": "urgent"}, {}),
    "a deadline that had passed": ("SG1202", {"deadline": T0}, {}),
    "an input that does not fit": ("SG1203", {}, {"check": misfit}),
    "nobody there": ("SG1204", {"require_agent": True}, {"pools": []}),
    "bytes that are no message": ("SG1205", {"data": b"{"}, {}),
    "a body too large to be repeated": (
        "SG1205",
        {"input": msgspec.Raw(b'"' + b"x" * admission.MAX_SUBMISSION + b'"')},
        {},
    ),
    "a range that is none": ("SG1206", {"version": "newest"}, {}),
    "a range that is too long": ("SG1206", {"version": ">=1" + ",>=1" * 1000}, {}),
    "a range with a huge number": ("SG1206", {"version": ">=" + "9" * 5000}, {}),
    "a blob that is not there": ("SG1207", {}, {"data": None}),
    "too many levels": ("SG1208", {"depth": limits.MAX_DEPTH + 1}, {}),
    "negative levels": ("SG1208", {"depth": -1}, {}),
    "no attempts": ("SG1209", {"retry": values.Retry(max_attempts=0)}, {}),
    "too many attempts": ("SG1209", {"retry": values.Retry(max_attempts=101)}, {}),
    "a negative delay": ("SG1209", {"retry": values.Retry(initial=seconds(-1))}, {}),
    "a negative bound": ("SG1209", {"retry": values.Retry(max_delay=seconds(-1))}, {}),
    "a shrinking delay": ("SG1209", {"retry": values.Retry(factor=0.5)}, {}),
    "an exploding delay": ("SG1209", {"retry": values.Retry(factor=101)}, {}),
    "a negative budget": ("SG1209", {"retry": values.Retry(budget=-0.1)}, {}),
    "a rule without attempts": (
        "SG1209",
        {"retry": values.Retry(rules={"timeout": values.RetryRule(max_attempts=0)})},
        {},
    ),
}


@pytest.mark.parametrize(("code", "fields", "view"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_run_is_rejected_with_its_code(
    code: str, fields: dict[str, Any], view: dict[str, Any]
) -> None:
    """With what is wrong and what to do, and nothing is decided afterwards."""
    script = submitted(**fields)
    decision = script.decide(**view)
    entry = decision.entry
    assert isinstance(entry, entries.Rejected)
    assert entry.code == code
    assert entry.reason.startswith(REJECTIONS[code][0])
    assert entry.fix == REJECTIONS[code][1]
    assert settled(script, decision) == Decision("it has ended as rejected")


def test_a_misfit_names_the_bad_field() -> None:
    """The path stands in the entry and in the sentence."""
    entry = submitted().decide(check=misfit).entry
    assert isinstance(entry, entries.Rejected)
    assert (entry.path, entry.reason.endswith("is not a string at $.source")) == ("$.source", True)


def test_good_options_are_not_refused() -> None:
    """A retry policy, a deadline and a range within their limits pass."""
    script = submitted(retry=values.Retry(), deadline=LATER, version=">=1,<2", depth=8)
    assert parsed(script.decide()).event == "dispatched"


def test_while_announcements_are_expected_nobody_is_rejected_for_want_of_an_agent() -> None:
    """Rule 15: after a restart of the reader or the broker nobody counts as absent."""
    script = submitted(require_agent=True)
    until = T0 + seconds(10)
    decision = script.decide(pools=[], settling_until=until)
    assert isinstance(decision.entry, entries.Waiting)
    assert decision.effects == (Arm("capacity", until, 1),)
    script.append(decision)
    rejected = script.decide(pools=[], due="capacity")
    assert isinstance(rejected.entry, entries.Rejected)
    assert settled(script, rejected).entry is None


def test_a_task_that_ran_before_is_not_checked_or_rejected_again() -> None:
    """Its input was accepted, and an agent was there."""
    script = submitted(require_agent=True)
    script.add("waiting", hold=script.add("dispatched"), until=T0)
    assert isinstance(script.decide(check=misfit).entry, entries.Dispatched)
    decision = script.decide(pools=[])
    assert isinstance(decision.entry, entries.Waiting)
    assert settled(script, decision).entry is not None


def test_a_task_whose_blob_vanished_after_its_first_dispatch_is_still_dispatched() -> None:
    """Its input was accepted before; whoever runs it reports what it misses."""
    script = Script()
    script.add("attempt-failed", hold=script.held())
    assert parsed(script.decide(LATER, data=None)).event == "dispatched"


def test_while_there_is_no_room_only_new_root_tasks_are_refused() -> None:
    """Children belong to tasks that run and shall end, and what waits for its time was admitted before."""
    full = admission.refusal("SG1212", retry_after=5.0)
    parent = values.Parent(task="t0", capability="review", key="k")
    entry = submitted().decide(overload=full).entry
    assert isinstance(entry, entries.Rejected)
    assert (entry.code, entry.retry_after) == ("SG1212", 5.0)
    assert parsed(submitted(parent=parent).decide(overload=full)).event == "dispatched"
    later = submitted(start=LATER)
    later.append(later.decide())
    assert parsed(later.decide(LATER, overload=full)).event == "dispatched"


def test_a_child_whose_parent_has_ended_is_rejected() -> None:
    """Also one that waited for its time: nobody is left to take its result."""
    parent = values.Parent(task="t0", capability="plan", key="k")
    waited = submitted(parent=parent, start=LATER)
    waited.append(waited.decide())
    for script in (submitted(parent=parent), waited):
        decision = script.decide(LATER, parent_ended=True)
        entry = decision.entry
        assert isinstance(entry, entries.Rejected)
        assert (entry.code, entry.reason) == ("SG1213", "its parent has ended: t0")
        assert decision.then == (Wake("sg.task.plan.alice.t0.>", "child"),)


def long_failure() -> values.Failure:
    wide = "\0" * limits.MAX_TEXT
    return msgspec.structs.replace(
        FAILURE, message=wide[:20_000], code="c" * 50_000, path="p" * 50_000, step="s" * 50_000
    )


def test_decisions_about_oversized_entries_can_be_read_by_all() -> None:
    """An entry beyond its limit would be void for every reader and be appended for ever."""
    dead = failed(long_failure(), retry=values.Retry(max_attempts=1))
    long_reason = submitted(trace="t" * 100_000, version="!=" + "9" * 200)
    labelled = submitted(labels={f"l{n}": "\0" * 128 for n in range(32)})
    verbose = [pool(f"p{n}", version="v" * 10_000, labels={"l0": "x"}) for n in range(99)]

    def wordy(_offer: Offer, _data: bytes) -> admission.Misfit:
        return admission.Misfit("$" * 100_000, "m" * 400_000)

    decisions = [
        dead.decide(),
        long_reason.decide(),
        long_reason.decide(pools=verbose),
        labelled.decide(pools=verbose, last_offered="x" * 100_000),
        submitted().decide(check=wordy),
    ]
    for decision in decisions:
        assert decision.entry is not None
        data = codec.encode(decision.entry)
        assert codec.decode_entry(parsed(decision), data) == decision.entry


def test_the_largest_accepted_submission_can_be_dispatched() -> None:
    """Its dispatch repeats the input and still fits into an entry."""
    script = submitted()
    room = admission.MAX_SUBMISSION - len(script.stored[0].data)
    largest = submitted(input=msgspec.Raw(b'{"source":"x' + b"y" * room + b'"}'))
    assert len(largest.stored[0].data) == admission.MAX_SUBMISSION
    pools = [pool(f"p{n}" + "x" * 60, version="1." + "0" * 250) for n in range(99)]
    decision = largest.decide(pools=pools)
    assert parsed(decision).event == "dispatched"
    assert len(codec.encode(decision.entry)) <= limits.MAX_ENTRY
    assert settled(largest, decision).entry is None
