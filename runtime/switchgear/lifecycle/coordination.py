"""What a coordinator does about a task: one pure decision from its history, the mesh as seen now, and the time.

Whatever led here (a consumed entry, a due timer, a refusal, a redelivery) asks the same question and gets the
same answer, so repeating it is harmless (rules 2, 4 and 11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from switchgear.contract import entries, limits, subjects
from switchgear.contract.values import Awaited, Route
from switchgear.lifecycle import admission, retrying, routing, suspension, writing
from switchgear.lifecycle.history import History
from switchgear.lifecycle.writing import Stamp, Written, later, utc

__all__ = ["Decision", "Stamp", "View", "decide"]

_WAKES = frozenset({"child", "turn"})
_NO_WAKES = frozenset({"", "capacity", "deadline", "cleanup"})
"""Timers that say nothing about a wait for a child, a signal or a time."""


class View(NamedTuple):
    """The mesh as the deciding coordinator sees it."""

    pools: Sequence[routing.Pool]
    """Of the task's capability."""
    check: admission.SchemaCheck
    input: bytes | None
    """The submission's input, fetched if it is a blob; None where the blob is missing or damaged."""
    due: str = ""
    """Kind of the timer that led here, `now` for somebody's order; empty for an entry."""
    rechecks: int = 0
    """Re-checks of this wait so far."""
    last_offered: str = ""
    """Who offered the capability last and until when, for people; empty where unknown."""
    lane_gone: bool = False
    """The dispatch cannot be pulled: its pool has been gone for long (rule 16), or its message was lost (rule 23)."""
    settling_until: datetime | None = None
    """Until then nobody counts as absent: the reader or the broker has just come back (rule 15)."""
    overload: admission.Refusal | None = None
    """Why nothing new of this capability and owner is admitted now; None where it is."""
    parent_ended: bool = False
    """The task that submitted this one has ended, and this one does not outlive it."""
    before_open: bool = False
    """The task that this one comes after is still open."""
    over_budget: timedelta | None = None
    """How long the capability's next retry has to wait for its budget; None: not at all."""
    waits: tuple[Awaited, ...] = ()
    """What the suspended handler waits for, fetched if it is a blob."""
    children: Mapping[str, suspension.Condition] = {}  # a NamedTuple's default; nobody writes to it
    """How its waits for children stand, by key."""


class Arm(NamedTuple):
    """Arm the task's timer of this kind."""

    kind: str
    at: datetime
    rechecks: int = 0


class TellHolder(NamedTuple):
    """Tell the instances of the capability that the task is being cancelled."""

    reason: str


class Wake(NamedTuple):
    """Let another task be looked at: it may wait for the end of this one."""

    scope: str
    kind: str
    """`child`: it is the parent; `turn`: it comes after this one."""


class CancelChildren(NamedTuple):
    """Cancel the open children that do not outlive this task."""

    reason: str


Effect = Arm | TellHolder | Wake | CancelChildren


class Decision(NamedTuple):
    """What to append (with its subject), what to do beyond the scope, and why, for the log."""

    note: str
    entry: entries.Entry | None = None
    subject: str = ""
    effects: tuple[Effect, ...] = ()
    """Done before the append."""
    then: tuple[Effect, ...] = ()
    """Done after it, before what led here is acked."""


def decide(history: History, view: View, stamp: Stamp) -> Decision:
    """The next transition of this task, if a coordinator owes it one."""
    if history.remnant or history.position == "none":
        return Decision("nothing to do: the task does not exist, or ended long ago")
    if history.ended is not None:
        # A holder's own delivery repeats the effects: else one late wake would pass through a whole chain.
        repeated = view.due in _WAKES and getattr(history.end, "hold", 0)
        effects = () if repeated else end_effects(history)
        return Decision(f"it has ended as {history.ended}", effects=effects)
    if history.cancelling is not None:
        return _cancelling(history, view, stamp)
    deadline = history.submitted.deadline if history.submitted else None
    if deadline is not None and history.position != "queued" and stamp.now >= deadline:
        return _past_deadline(history, stamp)
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


def end_effects(history: History) -> tuple[Effect, ...]:
    """What the end of this task calls for beyond its scope; repeated by whoever meets it ended (rule 3)."""
    found: list[Effect] = []
    if history.parent is not None:
        found.append(Wake(history.parent, "child"))
    submission = history.submitted
    if submission is not None and submission.then is not None:
        after = subjects.scope(history.capability, history.owner, submission.then)
        found.append(Wake(after, "turn"))
    if history.attempt:
        found.append(CancelChildren("its parent has ended"))
    return tuple(found)


def _append(
    note: str,
    written: Written,
    *,
    effects: tuple[Effect, ...] = (),
    then: tuple[Effect, ...] = (),
) -> Decision:
    return Decision(note, written.entry, written.subject, effects, then)


def _end(history: History, note: str, written: Written) -> Decision:
    return _append(note, written, then=end_effects(history))


def _queued(history: History, view: View, stamp: Stamp) -> Decision:
    refused = _refused(history, view)
    if refused is not None:
        return _reject(history, refused, stamp)
    submission = history.submitted
    assert submission is not None
    if submission.deadline is not None and stamp.now >= submission.deadline:
        return _past_deadline(history, stamp)
    if submission.start is not None and stamp.now < submission.start and view.due != "now":
        at = utc(submission.start)
        written = writing.waiting(
            history, stamp, "start", f"starts at {at:%Y-%m-%d %H:%M:%S} UTC", at
        )
        return _append(
            "starts later", written, effects=(Arm("wait", at), *_deadline_timer(history))
        )
    if submission.after is not None and view.before_open:
        written = writing.waiting(history, stamp, "turn", f"comes after {submission.after}", None)
        recheck = Arm("wait", stamp.now + _recheck_after(0), 1)
        return _append("not its turn", written, effects=(recheck, *_deadline_timer(history)))
    return _place(history, view, stamp)


def _refused(history: History, view: View) -> admission.Refusal | None:
    if history.malformed is not None:
        return admission.unreadable(history.malformed)
    submission, stored = history.submitted, history.submitted_stored
    assert submission is not None
    assert stored is not None
    if len(stored.data) > admission.MAX_SUBMISSION:
        return admission.too_large(len(stored.data))
    if view.parent_ended:
        return admission.refusal("SG1213", submission.parent.task if submission.parent else "")
    # Children belong to running tasks, which can always end; what waited for its time was admitted before.
    if history.position == "queued" and view.overload is not None and submission.parent is None:
        return view.overload
    return admission.examine(submission, stored.time)


def _reject(history: History, refused: admission.Refusal, stamp: Stamp) -> Decision:
    return _end(history, refused.reason, writing.rejected(history, refused, stamp))


def _waiting(history: History, view: View, stamp: Stamp) -> Decision:
    waiting = history.waiting
    assert waiting is not None
    if waiting.reason == "capacity":
        return _capacity(history, view, stamp)
    due = waiting.until is None or stamp.now >= waiting.until
    if waiting.reason in ("start", "retry"):
        if not due and view.due != "now":
            return _waits_on(history, view, stamp)
        if not history.attempt:
            return _queued(history, view, stamp)
        return (
            _retry(history, view, stamp)
            if waiting.reason == "retry"
            else _place(history, view, stamp)
        )
    if waiting.reason == "turn":
        if view.before_open:
            return _waits_on(history, view, stamp)
        return _place(history, view, stamp)
    if view.waits:
        resumed = bool(suspension.met(history, view.waits, view.children, stamp.now))
    else:
        # Nobody knows what it waits for: its time ends it, or without one any wake.
        resumed = due and (waiting.until is not None or view.due not in _NO_WAKES)
    return _place(history, view, stamp) if resumed else _waits_on(history, view, stamp)


def _capacity(history: History, view: View, stamp: Stamp) -> Decision:
    """Whatever was to be dispatched when nobody was there: the first attempt, a retry, an undo run."""
    if history.failed_time is None:
        return _place(history, view, stamp)
    final = _final(history)[0]
    return _failed(history, view, stamp) if final else _retry(history, view, stamp)


def _retry(history: History, view: View, stamp: Stamp) -> Decision:
    """Dispatch again, unless the capability's retries have used up their budget."""
    if view.over_budget is None or view.due == "now":
        return _place(history, view, stamp)
    # Not by rule 11's re-check, which doubles: the budget says when.
    again = Arm("retry", stamp.now + view.over_budget)
    return Decision("over the retry budget", effects=(again, *_deadline_timer(history)))


def _waits_on(history: History, view: View, stamp: Stamp) -> Decision:
    """Every wait has a timer: its own, or a re-check, since a wake may get lost (rule 13)."""
    waiting = history.waiting
    assert waiting is not None
    recheck = stamp.now + _recheck_after(view.rechecks)
    # With several waits the first time may have passed while the others are open.
    until = suspension.next_time(view.waits, stamp.now) if view.waits else waiting.until
    at = recheck if until is None else utc(until)
    if suspension.waits_children(view.waits):
        at = min(at, recheck)
    kind = "retry" if waiting.reason == "retry" else "wait"
    timers = (Arm(kind, at, view.rechecks + 1), *_deadline_timer(history))
    return Decision(f"waits: {waiting.reason}", effects=timers)


def _failed(history: History, view: View, stamp: Stamp) -> Decision:
    failed = history.failure
    assert failed is not None
    final, at = _final(history)
    if not final:
        if view.over_budget is None and at <= stamp.now:
            return _place(history, view, stamp)
        note = f"attempt {history.attempt + 1} follows at {at:%H:%M:%S} UTC"
        written = writing.waiting(history, stamp, "retry", note, at)
        return _append(note, written, effects=(Arm("retry", at), *_deadline_timer(history)))
    if history.undos and not _undoes(history):
        return _place(history, view, stamp, undoing=True)
    return _end(history, final, writing.dead(history, failed.error, final, stamp))


def _final(history: History) -> tuple[str, datetime]:
    """Why the failure of the newest attempt is its task's last (empty when it is not), and when the next may begin."""
    failed, dispatched, since = history.failure, history.dispatched, history.failed_time
    assert failed is not None
    assert dispatched is not None
    assert since is not None
    pause = retrying.pause(failed.error, dispatched.retry, history.task, history.failures)
    at = later(since, pause)
    final = retrying.why_final(failed.error, dispatched.retry, history.failures)
    final = final or retrying.too_late(at, dispatched.deadline)
    if not final and (dispatched.undoing or history.undoing is not None):
        final = "its undos have run"
    return final, at


def _undoes(history: History) -> bool:
    """Whether the newest dispatch is an undo run: whatever becomes of it, the handler is not run after it."""
    return history.dispatched is not None and history.dispatched.undoing


def _place(history: History, view: View, stamp: Stamp, *, undoing: bool = False) -> Decision:
    """Dispatch to the best pool; with none, wait for capacity or reject."""
    submission = history.submitted
    assert submission is not None
    wanted = routing.Wanted(submission.task, submission.version, dict(submission.labels))
    found = routing.choose(view.pools, wanted)
    if isinstance(found, Route):
        return _unplaced(history, view, stamp, found)
    if not history.attempt:
        if view.input is None:
            return _reject(history, admission.refusal("SG1207"), stamp)
        misfit = view.check(found.pool.offer, view.input)
        if misfit is not None:
            detail = f"{misfit.message} at {misfit.path}"
            refused = admission.refusal("SG1203", detail, path=misfit.path)
            return _reject(history, refused, stamp)
    undoing = undoing or _undoes(history)
    written = writing.dispatched(history, found, stamp, undoing=undoing)
    return _append(found.route.reason, written, effects=_deadline_timer(history))


def _deadline_timer(history: History) -> tuple[Effect, ...]:
    deadline = history.submitted.deadline if history.submitted else None
    return () if deadline is None else (Arm("deadline", utc(deadline)),)


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
            return _reject(history, admission.refusal("SG1204", reason), stamp)
        recheck = view.settling_until
    timers = (Arm("capacity", recheck, view.rechecks + 1), *_deadline_timer(history))
    waiting = history.waiting
    if waiting is not None and waiting.reason == "capacity":
        return Decision(reason, effects=timers)
    written = writing.waiting(history, stamp, "capacity", reason, None)
    return _append(reason, written, effects=timers)


def _recheck_after(rechecks: int) -> timedelta:
    return min(limits.CAPACITY_RECHECK * 2 ** min(rechecks, 20), limits.CAPACITY_RECHECK_MAX)


def _past_deadline(history: History, stamp: Stamp) -> Decision:
    """A held task, or one with undos to run, is cancelled with reason `deadline`; any other expires at once."""
    note = "its deadline has passed"
    if history.position in ("held", "loose") or history.undos:
        return _append(note, writing.cancel_requested(history, "deadline", stamp))
    return _end(history, note, writing.ended(history, stamp, "deadline"))


def _cancelling(history: History, view: View, stamp: Stamp) -> Decision:
    """Unheld: the end, now. Held: tell the holder, and end it here when its time to clean up is over.

    One that was handed back is held by nobody, and ends at once unless its next holder has undos to run. One
    that waits with undos is dispatched to run them, as long as there is time (rule 14).
    """
    cancel = history.cancelling
    assert cancel is not None
    over = _cleaned_up_at(history)
    stop: tuple[Effect, ...] = (
        TellHolder(cancel.reason),
        CancelChildren("its parent was cancelled"),
    )
    timer = Arm("cleanup", over)
    offered = history.position == "loose" and history.undos > 0
    if (history.position == "held" or offered) and stamp.now < over:
        return Decision("its holder is told to stop", effects=(*stop, timer))
    submission = history.submitted
    if submission is not None and _undos_wait(history) and stamp.now < over:
        wanted = routing.Wanted(submission.task, submission.version, dict(submission.labels))
        found = routing.choose(view.pools, wanted)
        if isinstance(found, Route):
            # Announcements wake those that have this timer.
            recheck = stamp.now + _recheck_after(view.rechecks)
            capacity = Arm("capacity", min(recheck, over), view.rechecks + 1)
            return Decision(f"its undos wait: {found.reason}", effects=(*stop, timer, capacity))
        written = writing.dispatched(history, found, stamp, undoing=True)
        return _append("its undos are run", written, effects=(*stop, timer))
    reason = cancel.reason
    return _end(history, f"cancelled: {reason}", writing.ended(history, stamp, reason))


def _undos_wait(history: History) -> bool:
    """Whether nobody holds the task, and no undo run has failed to run its undos."""
    tried = history.position == "failed" and _undoes(history)
    return history.undos > 0 and history.position in ("failed", "waiting") and not tried


def _cleaned_up_at(history: History) -> datetime:
    """When the time to undo and leave is over: counted from the cancel, or from the undo run that followed it."""
    since = history.cancelling_since
    assert since is not None
    dispatched, at = history.dispatched, history.dispatched_time
    cleanup = dispatched.cleanup if dispatched is not None else limits.CLEANUP
    if at is not None and at > since:
        since = at
    return later(later(since, cleanup), timedelta(seconds=1))
