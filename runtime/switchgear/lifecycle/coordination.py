"""What a coordinator does about a task: one pure decision from its history, the mesh as seen now, and the time.

Whatever led here (a consumed entry, a due timer, a refusal, a redelivery) asks the same question and gets the
same answer, so repeating it is harmless (rules 2, 4 and 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NamedTuple, TypedDict

import msgspec

from switchgear.contract import entries, limits, subjects
from switchgear.contract.values import Failure, Retry, Route, State, Status
from switchgear.errors import FAILURES
from switchgear.lifecycle import admission, routing
from switchgear.lifecycle.history import History

_MAX_REASON = 512
"""Characters of a status' reason: "a few words"."""
_MAX_FIELD = 1024
"""Characters of those fields of a failure or refusal that no type bounds."""
_NO_WAKES = frozenset({"", "capacity", "deadline", "cleanup"})
"""Timers that say nothing about a wait for a child, a signal or a time."""


class Stamp(NamedTuple):
    """What makes an entry this writer's: given by the shell, so that decisions stay pure."""

    id: str
    writer: str
    now: datetime


class View(NamedTuple):
    """The mesh as the deciding coordinator sees it."""

    pools: Sequence[routing.Pool]
    """Of the task's capability."""
    check: admission.SchemaCheck
    input: bytes | None
    """The submission's input, fetched if it is a blob; None where the blob is missing or damaged."""
    due: str = ""
    """Kind of the timer that led here; empty for an entry."""
    rechecks: int = 0
    """Re-checks of this wait so far."""
    last_offered: str = ""
    """Who offered the capability last and until when, for people; empty where unknown."""
    lane_gone: bool = False
    """The task's pool has been gone for so long that its lane is emptied (rule 16)."""
    settling_until: datetime | None = None
    """Until then nobody counts as absent: the reader or the broker has just come back (rule 15)."""


class Arm(NamedTuple):
    """Arm the task's timer of this kind."""

    kind: str
    at: datetime
    rechecks: int = 0


class TellHolder(NamedTuple):
    """Tell the instances of the capability that the task is being cancelled."""

    reason: str


Effect = Arm | TellHolder


class Decision(NamedTuple):
    """What to append (with its subject), what to do beyond the scope, and why, for the log."""

    note: str
    entry: entries.Entry | None = None
    subject: str = ""
    effects: tuple[Effect, ...] = ()


def decide(history: History, view: View, stamp: Stamp) -> Decision:
    """The next transition of this task, if a coordinator owes it one."""
    if history.remnant or not history.is_open:
        return Decision("nothing to do: the task has ended or does not exist")
    if history.cancelling is not None:
        return _cancelling(history, stamp)
    deadline = history.submitted.deadline if history.submitted else None
    if deadline is not None and history.position != "queued" and stamp.now >= deadline:
        return _past_deadline(history, stamp, deadline)
    if history.position in ("held", "loose"):
        if view.lane_gone:
            return _place(history, view, stamp)
        # A deadline's timer that fired early is spent, so it is armed again (rule 11).
        return Decision(
            "nothing to do: an agent holds the task, or its lane offers it",
            effects=_deadline_timer(history),
        )
    if history.position == "failed":
        return _failed(history, view, stamp)
    if history.position == "waiting":
        return _waiting(history, view, stamp)
    return _queued(history, view, stamp)


def _queued(history: History, view: View, stamp: Stamp) -> Decision:
    refused = _refused(history)
    if refused is not None:
        return reject(history, refused, stamp)
    deadline = history.submitted.deadline if history.submitted else None
    if deadline is not None and stamp.now >= deadline:
        return _past_deadline(history, stamp, deadline)
    return _place(history, view, stamp)


def _refused(history: History) -> admission.Refusal | None:
    if history.malformed is not None:
        return admission.unreadable(history.malformed)
    assert history.submitted is not None
    assert history.submitted_stored is not None
    if len(history.submitted_stored.data) > admission.MAX_SUBMISSION:
        return admission.too_large(len(history.submitted_stored.data))
    return admission.examine(history.submitted, history.submitted_stored.time)


def _waiting(history: History, view: View, stamp: Stamp) -> Decision:
    waiting = history.waiting
    assert waiting is not None
    if waiting.reason == "capacity":
        return _place(history, view, stamp)
    due = waiting.until is not None and stamp.now >= waiting.until
    signalled = waiting.reason == "signal" and _signalled_since(history)
    if due or signalled or (waiting.until is None and view.due not in _NO_WAKES):
        return _place(history, view, stamp)
    at = _utc(waiting.until) if waiting.until else stamp.now + _recheck_after(view.rechecks)
    kind = "retry" if waiting.reason == "retry" else "wait"
    timers = (Arm(kind, at, view.rechecks + 1), *_deadline_timer(history))
    return Decision(f"waits: {waiting.reason}", effects=timers)


def _signalled_since(history: History) -> bool:
    """Whether the signal that the task waits for came after its wait began."""
    signal = history.waiting.signal if history.waiting else None
    newest = (valid.entry for valid in reversed(history.valid))
    since = takewhile(lambda entry: not isinstance(entry, entries.Waiting), newest)
    return any(isinstance(entry, entries.Signalled) and entry.name == signal for entry in since)


def _failed(history: History, view: View, stamp: Stamp) -> Decision:
    failed, dispatched = history.failure, history.dispatched
    assert failed is not None
    assert dispatched is not None
    final = why_final(failed.error, dispatched.retry, history.failures)
    if not final:
        return _place(history, view, stamp)
    dead = entries.Dead(
        v=entries.VERSION,
        **_stamped(history, stamp, "dead", failed.error.message),
        error=_bounded(failed.error),
        reason=final,
    )
    return Decision(final, dead, subjects.task_event(history.scope, "dead"))


def _bounded(error: Failure) -> Failure:
    """A failure that fits into another entry whatever its own had room for."""
    return msgspec.structs.replace(
        error,
        code=error.code[:_MAX_FIELD],
        path=error.path[:_MAX_FIELD],
        step=error.step and error.step[:_MAX_FIELD],
    )


def why_final(error: Failure, retry: Retry, failures: int) -> str:
    """Why a failed attempt is not followed by another; empty when it is."""
    if not error.retryable:
        return f"{error.error_class} failures of this kind are final"
    if error.error_class not in retry.on:
        return f"the policy does not retry {error.error_class} failures"
    if failures >= retry.max_attempts:
        return f"{FAILURES['SG1514'][0]}: {failures} of {retry.max_attempts}"
    return ""


def _place(history: History, view: View, stamp: Stamp) -> Decision:
    """Dispatch to the best pool; with none, wait for capacity or reject."""
    submission, stored = history.submitted, history.submitted_stored
    assert submission is not None
    assert stored is not None
    wanted = routing.Wanted(submission.task, submission.version, dict(submission.labels))
    found = routing.choose(view.pools, wanted)
    if isinstance(found, Route):
        return _unplaced(history, view, stamp, found)
    if not history.attempt:
        if view.input is None:
            return reject(history, admission.refusal("SG1207"), stamp)
        misfit = view.check(found.pool.offer, view.input)
        if misfit is not None:
            detail = f"{misfit.message} at {misfit.path}"
            return reject(history, admission.refusal("SG1203", detail, path=misfit.path), stamp)
    return dispatch(history, found, stamp)


def dispatch(history: History, chosen: routing.Chosen, stamp: Stamp) -> Decision:
    """Give the task to this pool."""
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
        deadline=submission.deadline,
        scheduled_for=submission.scheduled_for,
    )
    subject = subjects.dispatched(history.scope, offer.pool, submission.priority)
    return Decision(chosen.route.reason, entry, subject, _deadline_timer(history))


def _deadline_timer(history: History) -> tuple[Effect, ...]:
    deadline = history.submitted.deadline if history.submitted else None
    return () if deadline is None else (Arm("deadline", _utc(deadline)),)


def _utc(at: datetime) -> datetime:
    """The moment in UTC; one beyond the calendar's end there is its end."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _unplaced(history: History, view: View, stamp: Stamp, route: Route) -> Decision:
    submission = history.submitted
    assert submission is not None
    reason = route.reason
    if view.last_offered:
        reason = f"{reason} (last offered by {view.last_offered})"
    reason = reason[: limits.MAX_TEXT]
    recheck = stamp.now + _recheck_after(view.rechecks)
    if submission.require_agent and not history.attempt:
        if view.settling_until is None:
            return reject(history, admission.refusal("SG1204", reason), stamp)
        recheck = view.settling_until
    timers = (Arm("capacity", recheck, view.rechecks + 1), *_deadline_timer(history))
    waiting = history.waiting
    if waiting is not None and waiting.reason == "capacity":
        return Decision(reason, effects=timers)
    entry = entries.Waiting(
        v=entries.VERSION,
        **_stamped(history, stamp, "waiting", reason),
        reason="capacity",
        detail=reason,
        attempt=history.attempt,
    )
    return Decision(reason, entry, subjects.task_event(history.scope, "waiting"), timers)


def _recheck_after(rechecks: int) -> timedelta:
    return min(limits.CAPACITY_RECHECK * 2 ** min(rechecks, 20), limits.CAPACITY_RECHECK_MAX)


def reject(history: History, refused: admission.Refusal, stamp: Stamp) -> Decision:
    """End the task before it ever ran."""
    entry = entries.Rejected(
        v=entries.VERSION,
        **_stamped(history, stamp, "rejected", refused.reason),
        code=refused.code,
        reason=refused.reason[: limits.MAX_TEXT],
        fix=refused.fix,
        path=refused.path[:_MAX_FIELD],
    )
    return Decision(refused.reason, entry, subjects.task_event(history.scope, "rejected"))


def _past_deadline(history: History, stamp: Stamp, deadline: datetime) -> Decision:
    """A held task is cancelled with reason `deadline` (rule 14); any other expires at once."""
    if history.position in ("held", "loose"):
        entry = entries.CancelRequested(
            v=entries.VERSION,
            **_stamped(history, stamp, "cancelling", "deadline"),
            reason="deadline",
        )
        subject = subjects.task_event(history.scope, "cancel-requested")
        return Decision("its deadline has passed", entry, subject)
    return _end(history, stamp, "deadline", deadline)


def _cancelling(history: History, stamp: Stamp) -> Decision:
    """Unheld: the end, now. Held: tell the holder, and end it here when its time to clean up is over.

    One that was handed back is held by nobody, and ends at once unless its next holder has undos to run.
    """
    cancel, since = history.cancelling, history.cancelling_since
    assert cancel is not None
    assert since is not None
    over = since + limits.CLEANUP + timedelta(seconds=1)
    offered = history.position == "loose" and history.undos > 0
    if (history.position == "held" or offered) and stamp.now < over:
        return Decision(
            "its holder is told to stop",
            effects=(TellHolder(cancel.reason), Arm("cleanup", over)),
        )
    deadline = history.submitted.deadline if history.submitted else None
    return _end(history, stamp, cancel.reason, deadline)


def _end(history: History, stamp: Stamp, reason: str, deadline: datetime | None) -> Decision:
    if reason == "deadline":
        expired = entries.Expired(
            v=entries.VERSION,
            **_stamped(history, stamp, "expired", "its deadline passed"),
            deadline=deadline,
        )
        return Decision(
            "its deadline has passed", expired, subjects.task_event(history.scope, "expired")
        )
    cancelled = entries.Cancelled(
        v=entries.VERSION, **_stamped(history, stamp, "cancelled", reason), reason=reason
    )
    return Decision(
        f"cancelled: {reason}", cancelled, subjects.task_event(history.scope, "cancelled")
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
    return trace if trace is not None and len(trace) <= _MAX_FIELD else None
