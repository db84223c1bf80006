"""What happens to a task, as its watcher sees it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from switchgear.contract import entries
from switchgear.contract.queries import Progress
from switchgear.lifecycle.history import Valid


class TaskEvent(NamedTuple):
    """A ledger entry of the task, or a progress report between two of them."""

    event: str
    """Name of the ledger event, such as `dispatched`; `progress` for a report."""
    time: datetime
    """The broker's store time; the agent's clock for a report."""
    attempt: int
    writer: str
    detail: str
    """A few words for people."""
    fraction: float | None = None
    """Of a progress report, 0 to 1."""
    counters: dict[str, float] = {}  # noqa: RUF012  # a NamedTuple's default; nobody writes to it
    sequence: int = 0
    """Of the ledger; 0 for a report."""


def of_entry(valid: Valid) -> TaskEvent:
    """The event of a ledger entry."""
    entry = valid.entry
    return TaskEvent(
        event=valid.subject.event,
        time=valid.stored.time,
        attempt=entry.status.attempt,
        writer=entry.writer,
        detail=detail(valid),
        sequence=valid.stored.sequence,
    )


def of_progress(report: Progress) -> TaskEvent:
    """The event of a progress report."""
    return TaskEvent(
        event="progress",
        time=report.time,
        attempt=report.attempt,
        writer=report.writer,
        detail=report.message,
        fraction=report.fraction,
        counters=dict(report.counters),
    )


def detail(valid: Valid) -> str:
    """What an entry says beyond its event, in a few words."""
    entry = valid.entry
    if isinstance(entry, entries.Dispatched):
        return f"to {valid.subject.pool}: {entry.route.reason}"
    if isinstance(entry, entries.AttemptFailed | entries.Dead):
        return f"{entry.error.code} {entry.error.message}"
    if isinstance(entry, entries.Rejected):
        return f"{entry.code} {entry.reason}"
    if isinstance(entry, entries.Waiting):
        return entry.detail or entry.reason
    if isinstance(entry, entries.TakenOver):
        return f"{entry.how}, from {entry.former or 'an unknown holder'}"
    if isinstance(entry, entries.Released):
        return entry.why
    if isinstance(entry, entries.CancelRequested | entries.Cancelled):
        return entry.reason
    if isinstance(entry, entries.Checkpoint):
        return entry.key
    return ""
