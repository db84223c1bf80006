"""What the read model says of a task in lists and timelines, and keeps for a later fold.

Pure functions over a folded history. Texts are cut: whole errors, payloads and identity tokens stay
in the ledger; a task's own token is kept while the task is open.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import msgspec

from switchgear.contract import codec, entries, queries, subjects
from switchgear.contract.stored import Stored, expect_headers, expectation, header_block
from switchgear.contract.values import Awaited, Failure
from switchgear.lifecycle import suspension
from switchgear.lifecycle.history import History, Valid
from switchgear.resilience.fingerprint import fingerprint as fingerprint_of
from switchgear.tasks import events, waits

MAX_ROW_TEXT = 1000
"""Characters of a message, reason or fix in a task's row."""
MAX_DETAIL = 200
"""Characters of a moment's detail."""
MAX_KEY = 128
"""Characters of a step's key, or of a fingerprint."""
MAX_ASKS = 4
"""Questions that a task's row shows."""
_MAX_WORD = 64
_NULL = msgspec.Raw(b"null")
_E = TypeVar("_E", bound=entries.Entry)

_LEFT_OUT: dict[type[entries.Entry], dict[str, Any]] = {
    entries.Submitted: {"input": _NULL, "token": None},
    entries.Dispatched: {"input": _NULL},  # its token shows who may append
    entries.Checkpoint: {"result": _NULL, "decision": None},
    entries.Signalled: {"payload": _NULL, "token": None},
    entries.CancelRequested: {"token": None},
}
"""Fields that no fold looks at: payloads, and tokens of who submits, signals and cancels."""


class Recorded(NamedTuple):
    """What a checkpoint or a signal tells on a timeline."""

    key: str = ""
    kind: str = ""
    ok: bool | None = None
    duration_us: int | None = None


class Kept(NamedTuple):
    """A valid entry of an open task, kept so that the task can be folded again."""

    sequence: int
    time_ns: int
    event: str
    """The end of its subject, beyond the scope."""
    expected: int
    """What its compare-and-set expected: it was checked before."""
    data: bytes
    """The entry without payloads; empty for a submission that cannot be read."""


def cut(text: str, length: int) -> str:
    """The text, or its beginning with a mark."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def keep(stored: Stored, scope: str, entry: entries.Entry | None) -> Kept:
    """What a later fold needs of this valid entry; None: a submission that cannot be read."""
    data = b"" if entry is None else codec.encode(_slim(entry))
    expected = expectation(stored.headers, scope) or 0
    event = stored.subject[len(scope) - 1 :]
    return Kept(stored.sequence, stored.time_ns, event, expected, data)


def restore(kept: Kept, scope: str) -> Stored:
    """An entry to fold again, from what was kept of it."""
    headers = header_block(expect_headers(kept.expected, scope))
    return Stored(scope[:-1] + kept.event, kept.sequence, kept.time_ns, headers, kept.data)


def slim(history: History) -> None:
    """Let go of payloads and of entries that the next fold does not look at, to bound memory."""
    if history.submitted is not None:
        history.submitted = _slim(history.submitted)
    if history.submitted_stored is not None:
        history.submitted_stored = history.submitted_stored._replace(headers=b"", data=b"")
    if history.dispatched is not None:
        history.dispatched = _slim(history.dispatched)
    if history.waiting is not None:
        history.waiting = _slim(history.waiting)
    for key, undo in history.open_undos.items():
        history.open_undos[key] = _slim(undo)
    history.valid[:] = [_slim_valid(valid) for valid in history.valid[:1]]
    history.voids.clear()


def _slim_valid(valid: Valid) -> Valid:
    return Valid(valid.stored._replace(headers=b"", data=b""), valid.subject, _slim(valid.entry))


def _slim(entry: _E) -> _E:
    if isinstance(entry, entries.Waiting) and (entry.waits or entry.waits_blob):
        # Of the waits only the questions are shown; the reason is told while they are all there.
        detail = waits.told(entry)
        return msgspec.structs.replace(entry, detail=detail, waits=_asks(entry), waits_blob=None)
    left_out = _LEFT_OUT.get(type(entry))
    return entry if left_out is None else msgspec.structs.replace(entry, **left_out)


def task_row(history: History, opened: Stored, updated: Stored, agent: str) -> queries.TaskRow:
    """The task's row; `opened` is its submission, `updated` its newest valid entry."""
    submitted = history.submitted
    error = _error(history)
    root, parent = "", ""
    waiting = history.ended is None and history.position == "waiting"
    if submitted is not None:
        root = submitted.root if subjects.is_token(submitted.root) else ""
        parent = submitted.parent.task if submitted.parent else ""
    return queries.TaskRow(
        id=history.task,
        capability=history.capability,
        owner=history.owner,
        state=history.state,
        submitted_at=opened.time,
        updated_at=updated.time,
        priority=cut(submitted.priority, _MAX_WORD) if submitted else "normal",
        attempt=history.attempt,
        failures=history.failures,
        root=root,
        parent=parent,
        agent=agent,
        reason=cut(_reason(history), MAX_ROW_TEXT),
        error=_cut_failure(error) if error else None,
        deadline=submitted.deadline if submitted else None,
        redrives=(submitted.redrives or "") if submitted else "",
        asks=_asks(history.waiting) if waiting and history.waiting else (),
    )


def _asks(waiting: entries.Waiting) -> tuple[Awaited, ...]:
    """The signals that the task waits for, with what a screen shows of them."""
    return tuple(
        msgspec.structs.replace(
            wait,
            key=cut(wait.key, MAX_KEY),
            signal=cut(wait.signal, _MAX_WORD),
            sender=cut(wait.sender, _MAX_WORD),
            question=cut(wait.question, MAX_ROW_TEXT),
            together=cut(wait.together, _MAX_WORD),
        )
        for wait in waits.signals(waiting.waits)[:MAX_ASKS]
    )


def fingerprint(row: queries.TaskRow) -> str:
    """Of the row's error: its own, or where its writer gave none the one that we would; empty without an error."""
    if row.error is None:
        return ""
    return cut(row.error.fingerprint or fingerprint_of(row.error), MAX_KEY)


def search_text(row: queries.TaskRow) -> str:
    """What a search looks through: id, capability and error message, without regard to case."""
    message = row.error.message if row.error else ""
    return f"{row.id}\n{row.capability}\n{message}".casefold()


def _reason(history: History) -> str:
    """Why the task waits, is being cancelled, or ended; empty where its state says it all."""
    if history.ended:
        return _end_reason(history)
    if history.cancelling is not None:
        return history.cancelling.reason
    if history.position == "waiting" and history.waiting is not None:
        return waits.told(history.waiting)
    if history.position == "failed" and history.failure is not None:
        return history.failure.error.message
    if history.position == "queued" and history.malformed is not None:
        return history.malformed.what
    return ""


def _end_reason(history: History) -> str:
    end = history.end
    if isinstance(end, entries.Rejected):
        return end.reason
    if isinstance(end, entries.Dead):
        return end.reason or end.error.message
    if isinstance(end, entries.Cancelled):
        return end.reason or (history.cancelling.reason if history.cancelling else "")
    return end.status.reason if isinstance(end, entries.Expired) else ""


def _error(history: History) -> Failure | None:
    """The newest failure; none for a task that succeeded in the end."""
    end, malformed = history.end, history.malformed
    if isinstance(end, entries.Completed):
        return None
    if isinstance(end, entries.Dead):
        return end.error
    if isinstance(end, entries.Rejected):
        return Failure(
            error_class="invalid", code=end.code, message=end.reason, fix=end.fix, path=end.path
        )
    if malformed is not None:
        return Failure(error_class="invalid", code=malformed.code, message=malformed.what)
    return history.failure.error if history.failure else None


def _cut_failure(error: Failure) -> Failure:
    return msgspec.structs.replace(
        error,
        code=cut(error.code, _MAX_WORD),
        message=cut(error.message, MAX_ROW_TEXT),
        why=cut(error.why, MAX_ROW_TEXT),
        fix=cut(error.fix, MAX_ROW_TEXT),
        path=cut(error.path, _MAX_WORD),
        step=None if error.step is None else cut(error.step, _MAX_WORD),
        fingerprint=cut(error.fingerprint, MAX_KEY),
        dependency=cut(error.dependency, MAX_KEY),
        last_words=cut(error.last_words, MAX_ROW_TEXT),
    )


def detail(subject_pool: str, entry: entries.Entry) -> str:
    """The entry in a few words, for a timeline."""
    return cut(_said(subject_pool, entry), MAX_DETAIL)


def recorded(entry: entries.Entry | None) -> Recorded:
    """What a timeline tells of a checkpoint or a signal beyond its detail."""
    if isinstance(entry, entries.Signalled):
        return Recorded(key=entry.name)
    if not isinstance(entry, entries.Checkpoint):
        return Recorded()
    took = None if entry.duration is None else round(entry.duration.total_seconds() * 1e6)
    return Recorded(cut(entry.key, MAX_KEY), entry.kind, entry.ok, took)


def _said(pool: str, entry: entries.Entry) -> str:
    match entry:
        case entries.Dispatched():
            return f"{pool}: {entry.route.reason}"
        case entries.Checkpoint() if suspension.refuses(entry):
            return events.of_refusal(entry)
        case entries.Checkpoint():
            said = f"{entry.kind} {entry.key}{events.of_place(entry)}{events.of_decision(entry)}"
            return f"{said}: {entry.error.message}" if entry.error else said
        case entries.Waiting():
            return waits.told(entry)
        case entries.AttemptFailed():
            return f"{entry.error.code}: {entry.error.message}"
        case entries.Rejected():
            return f"{entry.code}: {entry.reason}"
        case entries.Dead():
            return entry.reason or entry.error.message
        case _:
            return _said_briefly(entry)


def _said_briefly(entry: entries.Entry) -> str:
    match entry:
        case entries.Submitted():
            if entry.redrives:
                return f"again, after {entry.redrives}"
            return f"{entry.parent.capability}: {entry.parent.key}" if entry.parent else ""
        case entries.TakenOver():
            return f"{entry.how}, from {entry.former}" if entry.former else entry.how
        case entries.Released():
            return f"{entry.why} of {entry.dependency}" if entry.dependency else entry.why
        case entries.Signalled():
            return events.of_signal(entry)
        case entries.CancelRequested() | entries.Cancelled():
            return entry.reason
        case _:
            return ""
