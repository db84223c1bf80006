"""Examples of what crosses the bus beside the ledger: announcements, queries, answers, commands."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Struct

from switchgear.contract import announcement, queries
from switchgear.contract.export.scene import (
    AGENT,
    CHILD,
    CLIENT,
    COORDINATOR,
    DIGEST,
    DISPATCHED,
    FAILURE,
    OTHER,
    OTHER_DIGEST,
    ROUTE,
    START,
    SUBMITTED,
    TASK,
    at,
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


def asked() -> dict[str, Struct]:
    """Queries and their answers."""
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
        "list-query": queries.ListQuery(capability="check-repo", state="held", limit=20),
        "list-query.all": queries.ListQuery(),
        "nothing": queries.Nothing(),
        "problem": queries.Problem(
            code="SG1401",
            what=f"no task {TASK}",
            why="it never existed, or retention has deleted it",
            fix="switchgear task ls",
        ),
        "task-list": queries.TaskList(tasks=(ROW, DEAD_ROW), lag=0, more=True),
        "timeline": queries.Timeline(moments=_moments(), lag=3),
        "timeline-query": queries.TimelineQuery(root=TASK),
    }


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
        "command": queries.Command(verb="drain"),
        "progress": queries.Progress(
            task=TASK,
            time=at(3),
            attempt=1,
            fraction=0.4,
            message="linting",
            counters={"files": 120},
            writer=AGENT,
        ),
    }
