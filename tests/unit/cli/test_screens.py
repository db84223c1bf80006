"""Screens from plain values."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchgear.cli import checks, words
from switchgear.cli.further_try import Try
from switchgear.cli.output import plain
from switchgear.cli.question import Question
from switchgear.cli.render import dead, dev, doctor, mesh, tasks
from switchgear.cli.render import report as report_screen
from switchgear.cli.report import Check, Report, grouped
from switchgear.client.dead_letters import Redrive
from switchgear.contract.announcement import Announcement, Offer, Running
from switchgear.contract.dead_letters import DeadGroup, DeadGroups
from switchgear.contract.queries import (
    CapabilityRow,
    Explanation,
    LogLine,
    Moment,
    TaskList,
    TaskRow,
)
from switchgear.contract.values import Candidate, Failure, Route
from switchgear.tasks import submission
from switchgear.tasks.chunks import Chunk
from switchgear.tasks.events import TaskEvent
from tests.unit.projections.feed import START

NOW = START + timedelta(minutes=3)

ROW = TaskRow(
    id="01m8", capability="greet", owner="ada", state="dead", submitted_at=START,
    updated_at=START + timedelta(seconds=2), attempt=2, failures=2, agent="hello-1",
    error=Failure(error_class="step", code="SG1510", message="it\nbroke"),
)  # fmt: skip

OFFER = Offer(
    name="greet", version="1.0.0", pool="hello-1", input_digest="0" * 64, output_digest="0" * 64,
    input_schema={
        "$ref": "#/$defs/Who",
        "$defs": {
            "Who": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer", "default": 7},
                    "tags": {"type": "array"},
                    "kind": {"enum": ["a", "b"]},
                    "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
                },
                "required": ["name", "age", "kind", "maybe"],
            }
        },
    },
    output_schema={"type": "string"}, description="Greet somebody.", timeout=timedelta(minutes=10),
)  # fmt: skip

INSTANCE = Announcement(
    v=1, agent="hello", instance="hello-1", version="1.0.0", started=START, time=NOW,
    offers=(OFFER,), labels={"zone": "eu"}, busy={"greet": 1}, host="box", process=7,
    running=(Running(task="01m8", owner="ada", capability="greet", since=START),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.42, "0.42 s"), (12.34, "12.3 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (356400, "4 d 3 h")],
)  # fmt: skip
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == shown


def test_ages_have_one_unit() -> None:
    assert words.ago(START, START) == "now"
    assert words.ago(START, START + timedelta(seconds=12)) == "12 s ago"
    assert words.ago(START, NOW) == "3 min ago"
    assert words.ago(START, START + timedelta(days=2)) == "2 d ago"


def test_sizes_are_for_people() -> None:
    assert [words.size(count) for count in (512, 1536, 3 * 2**30, 2**41)] == [
        "512 B", "1.5 KiB", "3.0 GiB", "2.0 TiB",
    ]  # fmt: skip


def test_a_list_shows_errors_lag_and_how_to_go_on() -> None:
    lines = plain(tasks.task_list(TaskList(tasks=(ROW,), lag=3, more=True), NOW)).splitlines()
    assert lines[1].split() == ["01m8", "greet", "dead", "3", "min", "ago", "2", "hello-1", "it", "broke"]  # fmt: skip
    assert lines[2:] == ["more: --before 01m8", "the list lacks the newest 3 ledger entries"]


def test_an_empty_list_says_so() -> None:
    assert plain(tasks.task_list(TaskList(tasks=(), lag=0), NOW)) == "no tasks\n"


def test_a_task_is_shown_with_its_entries() -> None:
    event = TaskEvent(
        "dispatched", START + timedelta(milliseconds=4), 1, "coordinator-1", "to p1", sequence=9
    )
    drawn = plain(tasks.task(ROW, [event], NOW, input='{"name":"Ada"}', root="01m8"))
    assert "state       dead" in drawn
    assert "run" not in drawn
    assert "duration    2.0 s" in drawn
    assert "+0.004 s  9      dispatched  1        coordinator-1  to p1" in drawn


def test_last_words_of_a_process_are_shown_line_by_line_and_steer_no_terminal() -> None:
    died = Failure(
        error_class="crash-loop", code="SG1512", message="3 agents died",
        last_words="Fatal error\n\x1b[2J\tFile x.py, line 7",
    )  # fmt: skip
    wanted = [
        "LAST WORDS of the process that died", "  Fatal error", "  [2J    File x.py, line 7",
    ]  # fmt: skip
    task = plain(tasks.task(ROW, [], NOW, error=died)).splitlines()
    assert task[-3:] == wanted
    letter = plain(dead.letter(ROW, died, REDRIVE, [], NOW)).splitlines()
    assert letter[-5:-2] == wanted


def test_an_event_is_one_line() -> None:
    event = TaskEvent("progress", START, 1, "hello-1", "half\nway", fraction=0.5)
    assert tasks.event_lines(event, START).split() == [
        "+0.000", "s", "progress", "hello-1", "50%", "half", "way",
    ]  # fmt: skip


def test_a_timeline_is_relative_to_its_first_entry() -> None:
    moments = [
        Moment(task="01m8abcd", capability="greet", event="submitted", time=START, sequence=1),
        Moment(
            task="01m8abcd", capability="greet", event="completed",
            time=START + timedelta(seconds=1), sequence=2, writer="x", void="forged",
        ),
    ]  # fmt: skip
    lines = plain(tasks.timeline(moments)).splitlines()
    assert lines[1].startswith("+0.000 s  greet …abcd  submitted")
    assert lines[2].split() == ["+1.000", "s", "greet", "…abcd", "completed", "(void)", "x", "forged"]  # fmt: skip
    assert plain(tasks.timeline([])) == "no entries\n"


def test_an_explanation_names_the_losers_too() -> None:
    route = Route(
        reason="most free slots",
        candidates=(
            Candidate(pool="p1", version="1.0.0", instances=2, free=3),
            Candidate(pool="p2", version="0.9.0", instances=1, refused="the version does not fit"),
        ),
    )
    told = Explanation(
        task="01m8", capability="greet", state="held", sentences=("Running on hello-1.",),
        route=route, voids=("entry 7: forged",),
    )  # fmt: skip
    drawn = plain(tasks.explanation(told))
    assert drawn.startswith("greet 01m8 is held\n  Running on hello-1.\n")
    assert "chosen" in drawn
    assert "the version does not fit" in drawn
    assert "void: entry 7: forged" in drawn


def test_agents_show_load_and_place() -> None:
    assert plain(mesh.agents([INSTANCE], NOW)).splitlines()[1].split() == [
        "hello-1", "hello", "1.0.0", "busy", "1/4", "3", "min", "0", "s", "box:7", "greet",
    ]  # fmt: skip
    drawn = plain(mesh.agent(INSTANCE, NOW))
    assert "labels     zone=eu" in drawn
    assert "01m8     greet       ada    3 min 0 s" in drawn
    assert "agent run" in plain(mesh.agents([], NOW))


def test_a_capability_shows_schemas_and_a_call_to_try() -> None:
    drawn = plain(
        mesh.capability([CapabilityRow(offer=OFFER, agents=("hello",), instances=1, free=3)])
    )
    assert "Greet somebody." in drawn
    assert '"$ref": "#/$defs/Who"' in drawn
    expected = {"name": "…", "age": 7, "kind": "a", "maybe": None}
    assert json.loads(mesh.example(OFFER.input_schema)) == expected
    assert "try: switchgear task submit greet" in drawn
    assert "nothing is offered" in plain(mesh.capabilities([]))


def test_a_schema_that_refers_to_itself_still_has_an_example() -> None:
    loop = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert mesh.example(loop) == "null"


def test_a_report_groups_its_findings() -> None:
    found = Report(
        source="/src/x", commit="f" * 40, verdict="failing",
        findings=["test t::a: broke", "lint a.py:1: F401 unused", "secret? b.py:2: key"],
        checks={"python-test": Check(status="failing", summary="1 failed", seconds=1.25)},
        notes=["changes that are not committed were not checked"],
    )  # fmt: skip
    assert list(grouped(found.findings)) == ["test", "lint", "secret"]
    drawn = plain(report_screen.report(found))
    assert drawn.startswith("/src/x at ffffffffffff: failing\n")
    assert "python-test  failing  1.2 s  1 failed" in drawn
    assert "lint (1 shown)\n  a.py:1: F401 unused" in drawn
    assert "notes\n  changes that are not committed" in drawn


def test_the_doctor_tells_what_to_do() -> None:
    found = [
        checks.Check("a", "ok", "fine", "never shown"),
        checks.Check("b", "fail", "bad", "mend"),
    ]
    drawn = plain(doctor.report(found, {"ok": 1, "warn": 0, "fail": 1}))
    assert "fix: mend" in drawn
    assert "never shown" not in drawn
    assert drawn.endswith("1 ok, 0 warn, 1 fail\n")


def test_the_ready_line_says_where_and_what_next() -> None:
    told = dev.ready("nats://127.0.0.1:5", Path("s"), ["hello"], found_by_itself=True)
    assert "switchgear is ready at nats://127.0.0.1:5" in told
    assert "export" not in told
    other = dev.ready("nats://127.0.0.1:5", Path("s"), [], found_by_itself=False)
    assert "export SWITCHGEAR_URL=nats://127.0.0.1:5" in other


def test_log_lines_stand_before_the_report_that_brought_them() -> None:
    event = TaskEvent(
        "progress", NOW, 1, "hello-1", "half", fraction=0.5,
        lines=(LogLine(time=START, level="info", text="it\nbegan"),),
    )  # fmt: skip
    logged, told = tasks.event_lines(event, START).splitlines()
    assert logged.split() == ["+0.000", "s", "info", "it", "began"]
    assert told.split()[2:] == ["progress", "hello-1", "50%", "half"]


def test_a_report_that_only_brings_log_lines_is_no_line_itself() -> None:
    event = TaskEvent(
        "progress", NOW, 1, "hello-1", "", lines=(LogLine(time=START, level="stdout", text="one"),)
    )
    assert tasks.event_lines(event, START, again=True).split() == ["+0.000", "s", "stdout", "one"]


def test_a_chunk_is_one_line() -> None:
    text = tasks.chunk_line(Chunk("draft", 9, 3, "to\nbe"), NOW, START)
    assert text.split() == ["+180.000", "s", "chunk", "draft", "#3", "to", "be"]
    plain_data = tasks.chunk_line(Chunk("", 9, 0, {"a": 1}), NOW, START)
    assert plain_data.split()[3:] == ["-", "#0", '{"a":', "1}"]


def test_questions_say_who_may_answer_and_how() -> None:
    asked = Question("01m8", "release", "ada", "review", "", "ship\nit?", START, None)
    drawn = plain(tasks.questions([asked, asked._replace(sender="approvers")], NOW))
    lines = drawn.splitlines()
    assert lines[1].split() == ["01m8", "release", "review", "ada", "3", "min", "ago", "ship", "it?"]  # fmt: skip
    assert "approvers" in lines[2]
    assert "task approve ID" in lines[3]
    assert "nothing waits" in plain(tasks.questions([], NOW))


FAILED = Failure(error_class="bug", code="SG1510", message="it\nbroke", fingerprint="4f1c09")
REDRIVE: Redrive[Any] = Redrive(
    task="02m8", redrives="01m8", capability="greet", input={"name": "Ada"}, blob="",
    changed=False, options=submission.NO_OPTIONS, started=True, state="queued", handle=None,
)  # fmt: skip


def test_dead_tasks_are_listed_by_cause() -> None:
    group = DeadGroup(
        fingerprint="4f1c09", capability="greet", count=12, first=START, last=NOW, newest="01m8",
        error=FAILED, redriven=3,
    )  # fmt: skip
    drawn = plain(dead.groups(DeadGroups(groups=(group,), lag=2, more=True), NOW))
    lines = drawn.splitlines()
    assert lines[1].split() == [
        "4f1c09", "greet", "12", "3", "3", "min", "ago", "now", "01m8", "SG1510", "it", "broke",
    ]  # fmt: skip
    assert "narrow by --capability" in lines[2]
    assert "newest 2 ledger entries" in lines[3]
    assert plain(dead.groups(DeadGroups(groups=(), lag=0), NOW)) == "no dead tasks\n"


def test_a_dead_task_shows_who_tried_it_again_and_with_what() -> None:
    again = Try("02m8", "completed", "ada", "cli-1", START, changed=True, input={"name": "Bob"})
    drawn = plain(dead.letter(ROW, FAILED, REDRIVE, [again, again._replace(changed=False)], NOW))
    assert "fingerprint  4f1c09" in drawn
    assert 'input        {"name": "Ada"}' in drawn
    assert '3 min ago  ada  02m8  completed  {"name": "Bob"}' in drawn
    assert drawn.splitlines()[-1].endswith("as it was")
    assert "dead redrive 01m8" in plain(dead.letter(ROW, None, REDRIVE, [], NOW))


def test_redrives_say_what_was_or_would_be_started() -> None:
    runs = REDRIVE._replace(started=False, state="held", changed=True, blob="ab" * 32, input=None)
    would = REDRIVE._replace(started=False, state="none")
    told = [REDRIVE, runs]
    lines = plain(dead.redrives(told, dry_run=False)).splitlines()
    assert lines[1].split() == ["01m8", "02m8", "greet", "started", "as", "it", "was"]
    assert lines[2].split()[3:] == ["is", "held", "already", "stored", "as", "abababababab…"]
    assert "would start" in plain(dead.redrives([would], dry_run=True))
    assert plain(dead.redrives([], dry_run=False)) == "no dead tasks\n"
