"""Subjects: what is built is parsed back, and nothing else is parsed."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchgear.contract import subjects
from switchgear.errors import ProtocolError

TOKENS = st.text("abcdefghijXYZ0189_-", min_size=1, max_size=64)
PLAIN_EVENTS = sorted(set(subjects.Event.__args__) - {"dispatched"})
PARTS = TOKENS | st.sampled_from([*PLAIN_EVENTS, "dispatched", "high", "low", "", "*", ">", "a\n"])
BAD_TOKENS = ["", "a.b", "a b", "a*", ">", "a\n", "\n", "é", "٣", "a/b", "a\0", "$", "a" * 65]


@settings(derandomize=True, deadline=None)
@given(TOKENS, TOKENS, TOKENS, st.sampled_from(PLAIN_EVENTS))
def test_the_subject_of_an_event_is_parsed_into_its_parts(
    capability: str, owner: str, task: str, event: str
) -> None:
    """Capability, owner, task and event come back, and with them the scope."""
    scope = subjects.scope(capability, owner, task)
    parts = subjects.parse_task(subjects.task_event(scope, cast("subjects.Event", event)))
    assert parts == (capability, owner, task, event, "", "")
    assert parts.scope == scope


@settings(derandomize=True, deadline=None)
@given(TOKENS, TOKENS, TOKENS, TOKENS, st.sampled_from(subjects.PRIORITIES))
def test_the_subject_of_a_dispatch_is_parsed_into_its_parts(
    capability: str, owner: str, task: str, pool: str, priority: str
) -> None:
    """Pool and priority come back too."""
    scope = subjects.scope(capability, owner, task)
    parts = subjects.parse_task(subjects.dispatched(scope, pool, priority))
    assert parts == (capability, owner, task, "dispatched", pool, priority)
    assert parts.scope == scope


@settings(derandomize=True, deadline=None)
@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_timers_and_dues_name_the_task_that_they_are_for(
    capability: str, owner: str, task: str, kind: str
) -> None:
    """A timer and the due message that it becomes are parsed alike."""
    scope = subjects.scope(capability, owner, task)
    parts = subjects.parse_timer(subjects.timer(scope, kind))
    assert parts == (capability, owner, task, kind)
    assert parts == subjects.parse_timer(subjects.due(scope, kind))
    assert parts.scope == scope


@settings(derandomize=True, deadline=None)
@given(TOKENS, TOKENS)
def test_announcements_and_queries_are_parsed_into_their_parts(first: str, second: str) -> None:
    """Agent and instance, verb and principal come back."""
    assert subjects.parse_announce(subjects.announce(first, second)) == (first, second)
    assert subjects.parse_api(subjects.api(first, second)) == (first, second)


def test_a_live_message_names_the_entry_that_it_repeats() -> None:
    """The republished subject maps back to the ledger's."""
    scope = subjects.scope("review", "alice", "t1")
    assert subjects.live_task(scope) == "sg.live.review.alice.t1.>"
    live = subjects.live_task(subjects.task_event(scope, "completed"))
    assert subjects.ledger_of_live(live) == "sg.task.review.alice.t1.completed"


def test_filters_and_names_are_spelled_as_the_protocol_says() -> None:
    """These are subscribed by others, also in other languages."""
    scope = subjects.scope("review", "alice", "t1")
    assert subjects.live("alice") == "sg.live.*.alice.>"
    answers = subjects.live_answers("alice")
    assert "sg.live.*.alice.*.completed" in answers
    assert "sg.live.*.alice.*.dispatched.>" in answers
    assert "sg.live.*.alice.*.submitted" not in answers
    lane = ("review", "p1", "high")
    assert subjects.lane_filter(*lane) == "sg.task.review.*.*.dispatched.p1.high"
    assert subjects.lane_consumer(*lane) == "lane=review=p1=high"
    assert subjects.parse_lane(subjects.lane_consumer(*lane)) == lane
    for other in ("intake", "lane=review=p1", "lane=review=p1=high=x", "road=review=p1=high"):
        assert subjects.parse_lane(other) is None
    assert subjects.capacity_timers("review") == "sg.timer.review.*.*.capacity"
    assert subjects.control("a", "i1") == "sg.control.a.i1"
    assert subjects.cancel("review") == "sg.cancel.review"
    assert subjects.progress(scope) == "sg.progress.review.alice.t1"
    assert subjects.api_filter("list") == "sg.api.list.*"


@pytest.mark.parametrize("text", BAD_TOKENS)
def test_what_cannot_be_one_token_is_refused(text: str) -> None:
    """Dots, wildcards, line breaks, other alphabets and long texts never reach a subject."""
    assert not subjects.is_token(text)
    with pytest.raises(ProtocolError) as caught:
        subjects.token(text, "capability")
    assert caught.value.code == "SG1107"


def test_a_refused_token_is_shown_in_part() -> None:
    """An error does not carry megabytes of what it refuses."""
    with pytest.raises(ProtocolError) as caught:
        subjects.token("x" * 100_000, "key")
    assert len(str(caught.value)) < 300


@settings(derandomize=True, deadline=None)
@given(TOKENS)
def test_a_token_passes_unchanged(text: str) -> None:
    """What can stand in a subject is returned as it is."""
    assert subjects.is_token(text)
    assert subjects.token(text, "key") == text


NO_TASKS = [
    "",
    "sg.task.c.o.t",
    "sg.task.c.o.t.",
    "sg.task.c.o.t.unknown",
    "sg.task.c.o.t.submitted ",
    "sg.task.c.o.t.submitted\n",
    "sg.task.c.o.t.submitted.x",
    "sg.task.c.o.submitted",
    "sg.task.c.o.t.dispatched",
    "sg.task.c.o.t.dispatched.p1",
    "sg.task.c.o.t.dispatched.p1.urgent",
    "sg.task.c.o.t.dispatched.p1.high.x",
    "sg.task.c.*.t.submitted",
    "sg.task.c.o.>",
    "sg.task.ç.o.t.submitted",
    "xsg.task.c.o.t.submitted",
    "sg-task.c.o.t.submitted",
    "SG.task.c.o.t.submitted",
    f"sg.task.{'c' * 65}.o.t.submitted",
    "sg.timer.c.o.t",
]


@pytest.mark.parametrize("text", NO_TASKS)
@pytest.mark.parametrize(
    "parse",
    [subjects.parse_task, subjects.parse_timer, subjects.parse_announce, subjects.parse_api],
    ids=lambda parse: parse.__name__,
)
def test_foreign_subjects_are_refused(parse: object, text: str) -> None:
    """Whatever is not spelled by the protocol is no subject of it, for any of the parsers."""
    assert callable(parse)
    with pytest.raises(ProtocolError) as caught:
        parse(text)
    assert caught.value.code == "SG1107"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text() | st.lists(PARTS, max_size=7).map(lambda parts: ".".join(["sg.task", *parts])))
def test_a_parsed_subject_is_spelled_again_in_the_same_way(text: str) -> None:
    """Parsing accepts nothing that building would not have made."""
    try:
        parts = subjects.parse_task(text)
    except ProtocolError:
        return
    if parts.event == "dispatched":
        assert subjects.dispatched(parts.scope, parts.pool, parts.priority) == text
    else:
        assert subjects.task_event(parts.scope, cast("subjects.Event", parts.event)) == text
