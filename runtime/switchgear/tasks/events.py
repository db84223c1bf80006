"""What happens to a task, as its watcher sees it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from switchgear.contract import entries
from switchgear.contract.queries import LogLine, Progress
from switchgear.lifecycle import suspension
from switchgear.lifecycle.history import Valid
from switchgear.tasks import waits


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
    lines: tuple[LogLine, ...] = ()
    """What the handler logged since the report before, oldest first; cut to the newest few."""


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
        lines=report.lines,
    )


def detail(valid: Valid) -> str:
    """What an entry says beyond its event, in a few words."""
    match valid.entry:
        case entries.Dispatched() as entry:
            undoing = ", to run its undos" if entry.undoing else ""
            return f"to {valid.subject.pool}: {entry.route.reason}{undoing}"
        case entries.AttemptFailed() | entries.Dead() as entry:
            return f"{entry.error.code} {entry.error.message}"
        case entries.Rejected() as entry:
            return f"{entry.code} {entry.reason}"
        case entries.Waiting() as entry:
            return waits.told(entry)
        case entries.TakenOver() as entry:
            return f"{entry.how}, from {entry.former or 'an unknown holder'}"
        case entries.Checkpoint() as entry:
            return of_checkpoint(entry)
        case _:
            return _briefly(valid.entry)


def of_checkpoint(entry: entries.Checkpoint) -> str:
    """Kind, key and time of a recorded end; the error of a failed one, and all of a refused signal's."""
    if suspension.refuses(entry):
        return of_refusal(entry)
    took = f" in {entry.duration.total_seconds():.3f} s" if entry.duration is not None else ""
    failed = f": {entry.error.message}" if entry.error is not None else ""
    return f"{entry.kind} {entry.key}{took}{of_place(entry)}{of_decision(entry)}{failed}"


def of_refusal(entry: entries.Checkpoint) -> str:
    """Which signal did not fit, where, and what to send instead."""
    error = entry.error
    told = f": {error.code} at {error.path}: {error.message}. Fix: {error.fix}" if error else ""
    return f"refused entry {entry.signal}{told}"


def of_place(entry: entries.Checkpoint) -> str:
    """What ran a command, and how it was isolated; empty for what is no command."""
    if not entry.isolation:
        return ""
    isolated = "not isolated" if entry.isolation == "none" else entry.isolation
    return f" ({entry.executor}, {isolated})"


def of_decision(entry: entries.Checkpoint) -> str:
    """Where a command of a rollout ran and why, with what came of a run beside it; empty without a rollout."""
    decision = entry.decision
    if decision is None:
        return ""
    beside = decision.comparison
    if decision.fell_back:
        told = f"after dagger failed: {decision.fell_back}"
    elif beside is None:
        told = decision.why
    elif beside.skipped:
        told = f"not compared with {beside.executor}: {beside.skipped}"
    elif beside.differences:
        what = ", ".join(one.what for one in beside.differences)
        told = f"{beside.executor} differs in {what}"
    else:
        told = f"the same on {beside.executor}"
    return f" [{decision.mode}: ran on {decision.executor}; {told}]"


def of_signal(entry: entries.Signalled) -> str:
    """Name and sender of a signal."""
    sender = f" from {entry.sender}" if entry.sender else ""
    return f"{entry.name}{sender}" + (f" for {entry.group}" if entry.group else "")


def _briefly(entry: entries.Entry) -> str:
    match entry:
        case entries.Submitted(redrives=str(dead)):
            return f"again, after {dead}"
        case entries.Signalled():
            return of_signal(entry)
        case entries.Released():
            return f"{entry.why} of {entry.dependency}" if entry.dependency else entry.why
        case entries.CancelRequested() | entries.Cancelled():
            return entry.reason
        case _:
            return ""
