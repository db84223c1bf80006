"""What is published: every message of the protocol, its name, size limit and place on the bus.

The names are the file names in `schemas/`. A struct that is left out here fails tests/contract.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from switchgear.contract import dead_letters, limits, queries
from switchgear.contract.announcement import Announcement
from switchgear.contract.breaker_orders import (
    BreakerCommand,
    BreakerOrder,
    BreakerOrders,
    BreakerOrdersQuery,
)
from switchgear.contract.crash_report import CrashReport
from switchgear.contract.entries import ENTRIES
from switchgear.contract.rollout import (
    Rollout,
    RolloutCommand,
    RolloutCounts,
    RolloutCountsQuery,
    Rollouts,
    RolloutsQuery,
)
from switchgear.contract.trigger import Trigger


class Message(NamedTuple):
    """One message: its published name, its type, and how large its body may be."""

    name: str
    kind: type[Struct]
    limit: int | None = None
    """Bytes; None where only the broker's `max_payload` bounds it."""


class Verb(NamedTuple):
    """A question that is asked on `sg.api.<verb>.<principal>`."""

    name: str
    query: Message
    answer: Message
    by: str
    """Who answers: `coordinator` or `observer`, the read model."""


def _query(name: str, kind: type[Struct]) -> Message:
    return Message(name, kind, limits.MAX_QUERY)


ENTRY_MESSAGES = tuple(Message(event, kind, limits.MAX_ENTRY) for event, kind in ENTRIES.items())
ANNOUNCEMENT = Message("announcement", Announcement, limits.MAX_ANNOUNCEMENT)
COMMAND = _query("command", queries.Command)
CANCEL = _query("cancel", queries.Cancel)
PROGRESS = Message("progress", queries.Progress, limits.MAX_PROGRESS)
CHUNK = Message("chunk", queries.Chunk, 2 * limits.MAX_CHUNK)
TOPIC_MESSAGE = Message("topic-message", queries.TopicMessage, limits.MAX_ENTRY)
CRASH_REPORT = _query("crash-report", CrashReport)
TRIGGER = Message("trigger", Trigger, limits.MAX_ENTRY)
SCHEDULE = Message("schedule", queries.Schedule)
PROBLEM = Message("problem", queries.Problem)
NOTHING = _query("nothing", queries.Nothing)

VERBS = (
    Verb(
        "list",
        _query("list-query", queries.ListQuery),
        Message("task-list", queries.TaskList),
        "observer",
    ),
    Verb(
        "timeline",
        _query("timeline-query", queries.TimelineQuery),
        Message("timeline", queries.Timeline),
        "observer",
    ),
    Verb(
        "dead",
        _query("dead-query", dead_letters.DeadQuery),
        Message("dead-groups", dead_letters.DeadGroups),
        "observer",
    ),
    Verb(
        "capabilities",
        NOTHING,
        Message("capabilities", queries.Capabilities),
        "coordinator",
    ),
    Verb(
        "agents",
        NOTHING,
        Message("agents", queries.Agents),
        "coordinator",
    ),
    Verb(
        "explain",
        _query("explain-query", queries.ExplainQuery),
        Message("explanation", queries.Explanation),
        "coordinator",
    ),
    Verb(
        "signal",
        _query("signal-query", queries.SignalQuery),
        Message("signal-sent", queries.Signalled),
        "coordinator",
    ),
    Verb(
        "retry",
        _query("retry-query", queries.RetryQuery),
        Message("retried", queries.Retried),
        "coordinator",
    ),
    Verb(
        "schedules",
        _query("schedules-query", queries.SchedulesQuery),
        Message("schedules", queries.Schedules),
        "coordinator",
    ),
    Verb(
        "schedule",
        _query("schedule-command", queries.ScheduleCommand),
        SCHEDULE,
        "coordinator",
    ),
    Verb(
        "rollouts",
        _query("rollouts-query", RolloutsQuery),
        Message("rollouts", Rollouts),
        "coordinator",
    ),
    Verb(
        "rollout",
        _query("rollout-command", RolloutCommand),
        Message("rollout", Rollout),
        "coordinator",
    ),
    Verb(
        "rollout-counts",
        _query("rollout-counts-query", RolloutCountsQuery),
        Message("rollout-counts", RolloutCounts),
        "observer",
    ),
    Verb(
        "breaker",
        _query("breaker-command", BreakerCommand),
        Message("breaker-order", BreakerOrder),
        "coordinator",
    ),
    Verb(
        "breaker-orders",
        _query("breaker-orders-query", BreakerOrdersQuery),
        Message("breaker-orders", BreakerOrders),
        "coordinator",
    ),
    Verb(
        "drain",
        _query("drain-query", queries.DrainQuery),
        Message("drained", queries.Drained),
        "coordinator",
    ),
    Verb(
        "lanes",
        _query("lane-query", queries.LaneQuery),
        Message("lanes", queries.Lanes),
        "coordinator",
    ),
    Verb(
        "holder",
        _query("holder-query", queries.HolderQuery),
        Message("holder", queries.Holder),
        "coordinator",
    ),
)


def messages() -> tuple[Message, ...]:
    """Every message of the protocol once, by name."""
    found = [*ENTRY_MESSAGES, ANNOUNCEMENT, COMMAND, CANCEL, PROGRESS, CHUNK]
    found += [TOPIC_MESSAGE, CRASH_REPORT, TRIGGER, PROBLEM]
    for verb in VERBS:
        found += [verb.query, verb.answer]
    unique = {message.name: message for message in found}
    return tuple(unique[name] for name in sorted(unique))
