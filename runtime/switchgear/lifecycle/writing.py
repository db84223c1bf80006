"""The entries that coordinators append: each built from the task's history and the writer's stamp. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict

import msgspec

from switchgear.contract import entries, limits, subjects
from switchgear.contract.values import Failure, State, Status
from switchgear.lifecycle import admission, routing
from switchgear.lifecycle.history import History

_MAX_REASON = 512
"""Characters of a status' reason: "a few words"."""
MAX_FIELD = 1024
"""Characters of those fields of a failure or refusal that no type bounds."""
_MAX_NAMES = 8
"""Undos that an end names, each by so many characters of its key."""
_MAX_NAME = 40


class Stamp(NamedTuple):
    """What makes an entry this writer's: given by the shell, so that decisions stay pure."""

    id: str
    writer: str
    now: datetime


class Written(NamedTuple):
    """An entry and where it goes."""

    subject: str
    entry: entries.Entry


def dispatched(
    history: History, chosen: routing.Chosen, stamp: Stamp, *, undoing: bool = False
) -> Written:
    """Give the task to this pool; `undoing`: only to run its recorded undos."""
    submission, stored = history.submitted, history.submitted_stored
    assert submission is not None
    assert stored is not None
    offer = chosen.pool.offer
    entry = entries.Dispatched(
        v=entries.VERSION,
        **_stamped(history, stamp, "held", attempt=history.attempt + 1),
        attempt=history.attempt + 1,
        input=submission.input,
        input_blob=submission.input_blob,
        route=chosen.route,
        retry=submission.retry or offer.retry,
        submitted=stored.sequence,
        root=submission.root,
        parent=submission.parent,
        depth=submission.depth,
        then=submission.then,
        deadline=submission.deadline,
        scheduled_for=submission.scheduled_for,
        cleanup=offer.cleanup,
        undoing=undoing,
    )
    return Written(subjects.dispatched(history.scope, offer.pool, submission.priority), entry)


def waiting(
    history: History, stamp: Stamp, reason: entries.Reason, detail: str, until: datetime | None
) -> Written:
    """Let the task wait, without a slot."""
    detail = detail[: limits.MAX_TEXT]
    entry = entries.Waiting(
        v=entries.VERSION,
        **_stamped(history, stamp, "waiting", detail),
        reason=reason,
        detail=detail,
        until=until,
        attempt=history.attempt,
    )
    return Written(subjects.task_event(history.scope, "waiting"), entry)


def rejected(history: History, refused: admission.Refusal, stamp: Stamp) -> Written:
    """End the task before it ever ran."""
    entry = entries.Rejected(
        v=entries.VERSION,
        **_stamped(history, stamp, "rejected", refused.reason),
        code=refused.code,
        reason=refused.reason[: limits.MAX_TEXT],
        fix=refused.fix,
        path=refused.path[:MAX_FIELD],
        retry_after=refused.retry_after,
    )
    return Written(subjects.task_event(history.scope, "rejected"), entry)


def dead(history: History, error: Failure, reason: str, stamp: Stamp) -> Written:
    """End a task whose failure is final."""
    entry = entries.Dead(
        v=entries.VERSION,
        **_stamped(history, stamp, "dead", error.message),
        error=_bounded(error),
        reason=_with_unrun(history, reason),
    )
    return Written(subjects.task_event(history.scope, "dead"), entry)


def cancel_requested(history: History, reason: str, stamp: Stamp) -> Written:
    """Ask for the end of the task."""
    entry = entries.CancelRequested(
        v=entries.VERSION, **_stamped(history, stamp, "cancelling", reason), reason=reason
    )
    return Written(subjects.task_event(history.scope, "cancel-requested"), entry)


def ended(history: History, stamp: Stamp, reason: str) -> Written:
    """The end of a task that was cancelled; `deadline` makes it `expired`."""
    submission = history.submitted
    if reason == "deadline":
        expired = entries.Expired(
            v=entries.VERSION,
            **_stamped(history, stamp, "expired", _with_unrun(history, "its deadline passed")),
            deadline=submission.deadline if submission else None,
        )
        return Written(subjects.task_event(history.scope, "expired"), expired)
    text = _with_unrun(history, reason)
    cancelled = entries.Cancelled(
        v=entries.VERSION, **_stamped(history, stamp, "cancelled", text), reason=text
    )
    return Written(subjects.task_event(history.scope, "cancelled"), cancelled)


def _with_unrun(history: History, reason: str) -> str:
    """The reason of an end, with the undos that it leaves undone in front: people have to see to them."""
    if not history.undos:
        return reason[: limits.MAX_TEXT]
    names = ", ".join(key[:_MAX_NAME] for key in list(history.open_undos)[:_MAX_NAMES])
    return f"{history.undos} undos were not run ({names}): {reason}"[: limits.MAX_TEXT]


def later(at: datetime, by: timedelta) -> datetime:
    """The moment in UTC that is so much later; one beyond the calendar's end is its end."""
    try:
        return utc(at + by)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def utc(at: datetime) -> datetime:
    """The moment in UTC; one beyond the calendar's end there is its end."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _bounded(error: Failure) -> Failure:
    """A failure that fits into another entry whatever its own had room for."""
    return msgspec.structs.replace(
        error,
        code=error.code[:MAX_FIELD],
        path=error.path[:MAX_FIELD],
        fingerprint=error.fingerprint[:MAX_FIELD],
        dependency=error.dependency[:MAX_FIELD],
        step=error.step and error.step[:MAX_FIELD],
    )


class Common(TypedDict):
    """The fields that every entry of a coordinator carries."""

    id: str
    task: str
    time: datetime
    writer: str
    prev: int
    trace: str | None
    status: Status


def _stamped(
    history: History, stamp: Stamp, state: State, reason: str = "", *, attempt: int | None = None
) -> Common:
    stored = history.submitted_stored
    assert stored is not None
    return {
        "id": stamp.id,
        "task": history.task,
        "time": stamp.now,
        "writer": stamp.writer,
        "prev": history.last_valid,
        "trace": _trace(history),
        "status": Status(
            state=state,
            submitted_at=stored.time,
            attempt=history.attempt if attempt is None else attempt,
            failures=history.failures,
            reason=reason[:_MAX_REASON],
        ),
    }


def _trace(history: History) -> str | None:
    """The submission's traceparent; one that is none is not repeated in every entry."""
    trace = history.submitted.trace if history.submitted else None
    return trace if trace is not None and len(trace) <= MAX_FIELD else None
