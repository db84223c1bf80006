"""Examples of what crosses the bus beside the ledger: announcements, queries, answers, commands."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Raw, Struct

from switchgear.contract import announcement, queries
from switchgear.contract.crash_report import CrashReport
from switchgear.contract.dead_letters import DeadGroup, DeadGroups, DeadQuery
from switchgear.contract.export.examples_rollout import rollouts
from switchgear.contract.export.scene import (
    AGENT,
    CHILD,
    CLIENT,
    COORDINATOR,
    DIGEST,
    DISPATCHED,
    FAILURE,
    INPUT,
    OTHER,
    OTHER_DIGEST,
    REDRIVE,
    ROUTE,
    START,
    SUBMITTED,
    TASK,
    at,
)
from switchgear.contract.trigger import Trigger
from switchgear.contract.values import Awaited

CRON = announcement.CronTrigger(
    expression="30 6 * * 1-5",
    input=INPUT,
    timezone="Europe/Berlin",
    missed="all",
    overlap="queue",
)
OFFER = announcement.Offer(
    name="check-repo",
    version="1.2.0",
    pool="check-repo-4f1c09d2ab",
    input_digest=DIGEST,
    output_digest=OTHER_DIGEST,
    input_schema={
        "type": "object",
        "properties": {"source": {"type": "string"}, "ref": {"type": "string", "default": "HEAD"}},
        "required": ["source"],
    },
    output_schema={
        "type": "object",
        "properties": {"passed": {"type": "boolean"}, "findings": {"type": "integer"}},
        "required": ["passed", "findings"],
    },
    description="Check a git repository.",
    timeout=timedelta(minutes=10),
    calls=("python-lint", "secret-scan"),
    crons=(CRON,),
    topics=(announcement.TopicTrigger(topic="pushed"),),
)
ANNOUNCED = announcement.Announcement(
    v=1,
    agent="check-repo",
    instance=AGENT,
    version="1.2.0",
    started=at(-600),
    time=at(1),
    offers=(OFFER,),
    labels={"region": "eu"},
    running=(
        announcement.Running(
            task=TASK,
            owner="ana",
            capability="check-repo",
            since=at(0.012),
            ack="$JS.ACK.SG_LEDGER.lane=check-repo=check-repo-4f1c09d2ab=high."
            "1.4712.310.1772443800003000000.0",
        ),
    ),
    busy={"check-repo": 1},
    host="runner-3",
    process=4180,
    sdk="switchgear 0.1.0",
)
ROW = queries.TaskRow(
    id=TASK,
    capability="check-repo",
    owner="ana",
    state="held",
    submitted_at=START,
    updated_at=at(0.003),
    priority="high",
    attempt=1,
    agent=AGENT,
    deadline=at(3600),
)
DEAD_ROW = queries.TaskRow(
    id=CHILD,
    capability="python-lint",
    owner="ana",
    state="dead",
    submitted_at=at(0.4),
    updated_at=at(9),
    attempt=1,
    failures=1,
    root=TASK,
    parent=TASK,
    reason="the policy does not retry step failures",
    error=FAILURE,
)
ASKS_ROW = queries.TaskRow(
    id=REDRIVE,
    capability="release",
    owner="ana",
    state="waiting",
    submitted_at=at(60),
    updated_at=at(75),
    attempt=1,
    reason="signal review of approvers: Release v1.2?",
    redrives=TASK,
    asks=(
        Awaited(
            key="review",
            kind="signal",
            begun=at(61),
            signal="review",
            sender="approvers",
            question="Release v1.2?",
        ),
    ),
)
SCHEDULED = queries.Schedule(
    name="nightly",
    owner="ana",
    capability="check-repo",
    cron=CRON,
    created=at(-86_400),
    fired=at(-10_800),
    last=TASK,
    priority="low",
)


def _of_coordinators() -> dict[str, Struct]:
    return {
        "agents": queries.Agents(instances=(ANNOUNCED,)),
        "capabilities": queries.Capabilities(
            rows=(queries.CapabilityRow(offer=OFFER, agents=("check-repo",), instances=2, free=7),)
        ),
        "drain-query": queries.DrainQuery(agent="check-repo", instance=AGENT),
        "drained": queries.Drained(instances=(AGENT,)),
        "explain-query": queries.ExplainQuery(task=TASK),
        "explanation": queries.Explanation(
            task=TASK,
            capability="check-repo",
            state="held",
            sentences=("held by check-repo-01kjp8c4xd since 2026-03-02 09:30:00",),
            route=ROUTE,
        ),
        "holder": queries.Holder(instance=AGENT),
        "holder.died": queries.Holder(
            instance="", ended="was ended by SIGSEGV", last_words="Segmentation fault"
        ),
        "holder.none": queries.Holder(instance=""),
        "holder-query": queries.HolderQuery(task=TASK),
        "lane-query": queries.LaneQuery(
            agent="check-repo", instance=AGENT, lanes=(("check-repo", "check-repo-4f1c09d2ab"),)
        ),
        "lanes": queries.Lanes(
            consumers=(
                "lane=check-repo=check-repo-4f1c09d2ab=high",
                "lane=check-repo=check-repo-4f1c09d2ab=normal",
                "lane=check-repo=check-repo-4f1c09d2ab=low",
            )
        ),
        "nothing": queries.Nothing(),
        "problem": queries.Problem(
            code="SG1401",
            what=f"no task {TASK}",
            why="it never existed, or retention has deleted it",
            fix="switchgear task ls",
        ),
    }


def _steering() -> dict[str, Struct]:
    return {
        "retried": queries.Retried(state="held"),
        "retry-query": queries.RetryQuery(task=TASK),
        "schedule": SCHEDULED,
        "schedule-command": queries.ScheduleCommand(
            verb="put", name="nightly", capability="check-repo", cron=CRON
        ),
        "schedules": queries.Schedules(
            rows=(queries.ScheduleRow(schedule=SCHEDULED, next=at(75_600)),)
        ),
        "schedules-query": queries.SchedulesQuery(agent="check-repo"),
        "signal-query": queries.SignalQuery(
            task=TASK, name="review", payload=Raw(b'{"approved":true,"note":"fine"}')
        ),
        "signal-sent": queries.Signalled(sequence=4718),
    }


def _of_the_read_model() -> dict[str, Struct]:
    return {
        "dead-groups": DeadGroups(
            groups=(
                DeadGroup(
                    fingerprint=FAILURE.fingerprint,
                    capability="python-lint",
                    count=12,
                    first=at(-3600),
                    last=at(9),
                    newest=CHILD,
                    error=FAILURE,
                    redriven=3,
                ),
            ),
            lag=0,
        ),
        "dead-query": DeadQuery(capability="python-lint"),
        "list-query": queries.ListQuery(capability="check-repo", state="held", limit=20),
        "list-query.all": queries.ListQuery(),
        "list-query.tries": queries.ListQuery(redrives=TASK),
        "task-list": queries.TaskList(tasks=(ASKS_ROW, ROW, DEAD_ROW), lag=0, more=True),
        "timeline": queries.Timeline(moments=_moments(), lag=3, more=True),
        "timeline-query": queries.TimelineQuery(root=TASK, after=4710),
    }


def asked() -> dict[str, Struct]:
    """Queries and their answers."""
    return _of_coordinators() | _steering() | _of_the_read_model() | rollouts()


def _moments() -> tuple[queries.Moment, ...]:
    def moment(
        sequence: int, event: str, seconds: float, writer: str, **more: Any
    ) -> queries.Moment:
        return queries.Moment(
            task=TASK,
            capability="check-repo",
            event=event,
            time=at(seconds),
            sequence=sequence,
            writer=writer,
            **more,
        )

    return (
        moment(SUBMITTED, "submitted", 0, CLIENT),
        moment(DISPATCHED, "dispatched", 0.003, COORDINATOR, attempt=1, detail=ROUTE.reason),
        moment(
            4713,
            "checkpoint",
            0.4,
            AGENT,
            attempt=1,
            detail="run clone",
            key="clone",
            kind="run",
            ok=True,
            duration=timedelta(seconds=0.35),
        ),
        moment(
            4714,
            "completed",
            0.5,
            OTHER,
            void="it does not prove that it was appended with compare-and-set",
        ),
    )


def told() -> dict[str, Struct]:
    """What is said without being asked."""
    return {
        "announcement": ANNOUNCED,
        "cancel": queries.Cancel(task=TASK, reason="no longer needed"),
        "chunk": queries.Chunk(step="draft", run=DISPATCHED, number=3, value=Raw(b'"to be"')),
        "command": queries.Command(verb="drain"),
        "crash-report": CrashReport(
            agent="check-repo",
            instance=AGENT,
            time=at(12),
            ended="was ended by SIGSEGV",
            last_words="Segmentation fault",
        ),
        "progress": queries.Progress(
            task=TASK,
            time=at(3),
            attempt=1,
            fraction=0.4,
            message="linting",
            counters={"files": 120},
            lines=(queries.LogLine(time=at(2.9), level="info", text="cloned main"),),
            writer=AGENT,
        ),
        "topic-message": queries.TopicMessage(
            id="01kjp9e2r0m7x3v5bqz8mtd4wb",
            sender="ana",
            time=at(0),
            value=INPUT,
            expires=at(600),
        ),
        "trigger": Trigger(
            capability="check-repo",
            agent="check-repo",
            version="1.2.0",
            started=at(-600),
            crons=(CRON,),
            topics=(announcement.TopicTrigger(topic="pushed"),),
        ),
    }
