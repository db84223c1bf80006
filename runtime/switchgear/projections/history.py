"""The read model's writer: folds the ledger's entries, batch by batch, into SQLite (rule 20).

Above it, `service` feeds it from the bus; below it, `tables` is the file and `lifecycle.history`
the one rule of what counts. Rows and cursor change in one transaction, so a batch given twice, or
by two writers, counts once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from switchgear.contract import codec, entries, queries, subjects
from switchgear.contract.stored import Stored, expectation
from switchgear.lifecycle.history import History
from switchgear.projections import decisions, rows, tables

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from switchgear.contract.values import State

MAX_FOLDED = 4096
"""Open tasks whose history is held in memory, some 3 KB each; others are folded when needed."""
TIME_TOLERANCE_NS = 1_000_000
"""Store times of one entry, read in two ways, may differ by their rounding: 1 ms."""
_WITNESSES = 8
_MAX_EVENT = 64
_REMNANT = "remnant"

_PUT_TASK = """
INSERT INTO tasks (number, owner, id, capability, state, is_open, root, parent, fingerprint,
    redrives, updated_ns, text, row)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET
    state = excluded.state, is_open = excluded.is_open, root = excluded.root,
    parent = excluded.parent, fingerprint = excluded.fingerprint, redrives = excluded.redrives,
    updated_ns = excluded.updated_ns, text = excluded.text, row = excluded.row
"""
_PUT_MOMENT = "INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_DECISION = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND_TASK = "SELECT number, state, row FROM tasks WHERE owner = ? AND id = ? AND capability = ?"
_ENDING = f"event IN ({', '.join(repr(event) for event in sorted(subjects.TERMINAL))})"
_ENDS = f"moments INDEXED BY moments_ending WHERE {_ENDING}"
_REPEATED = f"""
moments AS one INDEXED BY moments_ending_void WHERE {_ENDING} AND void <> '' AND EXISTS (
    SELECT 1 FROM moments WHERE number = one.number AND event = one.event
    AND (void = '' OR sequence < one.sequence))
"""  # noqa: S608 - a constant, as below
_COUNT_ENDS = f"SELECT (SELECT count(*) FROM {_ENDS}) - (SELECT count(*) FROM {_REPEATED})"  # noqa: S608
_FIND_ENDS = f"SELECT sequence, number FROM {_ENDS} AND sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608
_DELETE_VOID = "DELETE FROM moments WHERE sequence = ?"
_FIND_KEPT = (
    "SELECT sequence, time_ns, event, expected, data FROM kept WHERE number = ? ORDER BY sequence"
)


class Diverged(Exception):
    """The ledger is not the one that was read: rolled back, or made anew. Start over."""


class Applied(NamedTuple):
    """What a batch brought."""

    cursor: int
    """Sequence up to which the read model has read."""
    voids: int
    """Entries in the batch that count for nothing."""


class End(NamedTuple):
    """A terminal entry, valid or void."""

    sequence: int
    number: int
    """Of its task."""


@dataclass(slots=True)
class _Task:
    """A scope being folded."""

    number: int
    history: History
    agent: str = ""
    updated: Stored | None = None
    """Newest valid entry since the last write."""
    is_new: bool = False
    """Not written yet."""
    is_kept: bool = False
    """Entries of it may stand in `kept`."""
    fresh: list[tuple[Stored, entries.Entry | None]] = field(
        default_factory=list[tuple[Stored, entries.Entry | None]]
    )
    """Valid entries since the last write."""


class Index:
    """The read model's file, for writing. Calls from several threads run one after another."""

    def __init__(self, path: Path, *, max_folded: int = MAX_FOLDED) -> None:
        """Open or create the file. Raises ConfigError when the path cannot be used."""
        self._lock = threading.Lock()
        self._connection = tables.open_writer(path)
        self._max_folded = max_folded
        self._cursor = 0
        self._folded: OrderedDict[str, _Task] = OrderedDict()
        self._touched: dict[int, _Task] = {}
        self._moments: list[tuple[object, ...]] = []
        self._decisions: list[tuple[object, ...]] = []
        self._voids = 0

    @property
    def cursor(self) -> int:
        """Sequence up to which the ledger has been read."""
        with self._lock:
            return self._read_cursor()

    def witnesses(self, upto: int) -> tuple[tuple[int, int], ...]:
        """Sequence and store time in ns of the newest entries up to this sequence, newest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT sequence, time_ns FROM moments WHERE sequence <= ?"
                " ORDER BY sequence DESC LIMIT ?",
                (upto, _WITNESSES),
            )
            return tuple(found.fetchall())

    def apply(self, batch: Sequence[Stored]) -> Applied:
        """Take the next entries in, oldest first; those at or below the cursor are skipped.

        Raises Diverged when one of these is not the entry that was read under its sequence, and
        sqlite3.Error when the file cannot be written; the file is then as before the batch.
        """
        with self._lock:
            try:
                with self._transaction():
                    return self._apply(batch)
            except BaseException:
                self._forget_memory()
                raise

    def count_ends(self) -> int:
        """How many terminal entries stand in the file; those of one task and event count once."""
        with self._lock:
            return int(self._connection.execute(_COUNT_ENDS).fetchone()[0])

    def ends(self, after: int, most: int) -> list[End]:
        """The next terminal entries beyond this sequence, the oldest first."""
        with self._lock:
            return [
                End(*columns) for columns in self._connection.execute(_FIND_ENDS, (after, most))
            ]

    def forget(self, ends: Sequence[End]) -> None:
        """Retention has deleted these: their tasks go with them, where they counted."""
        with self._lock, self._transaction():
            for end in ends:
                if end.sequence == self._last_valid(end.number):
                    self._remove(end.number)
                else:
                    self._connection.execute(_DELETE_VOID, (end.sequence,))

    def reset(self) -> None:
        """Forget everything: the ledger is read again from its beginning."""
        with self._lock:
            self._forget_memory()
            tables.empty(self._connection)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _forget_memory(self) -> None:
        self._folded.clear()
        self._touched.clear()
        self._moments.clear()
        self._decisions.clear()

    def _read_cursor(self) -> int:
        found = self._connection.execute("SELECT value FROM meta WHERE name = 'cursor'")
        return int(found.fetchone()[0])

    def _apply(self, batch: Sequence[Stored]) -> Applied:
        cursor = self._read_cursor()
        if cursor != self._cursor:  # another writer, or a start over: what memory holds is old
            self._forget_memory()
        self._voids = 0
        for stored in batch:
            if stored.sequence > cursor:
                self._take(stored)
                cursor = stored.sequence
            else:
                self._compare(stored)
        self._write()
        self._connection.execute("UPDATE meta SET value = ? WHERE name = 'cursor'", (cursor,))
        self._cursor = cursor
        while len(self._folded) > self._max_folded:
            self._folded.popitem(last=False)
        return Applied(cursor, self._voids)

    def _compare(self, stored: Stored) -> None:
        """An entry below the cursor must be the one that was read."""
        known = self._connection.execute(
            "SELECT time_ns FROM moments WHERE sequence = ?", (stored.sequence,)
        ).fetchone()
        if known is not None and abs(known[0] - stored.time_ns) > TIME_TOLERANCE_NS:
            raise Diverged(f"entry {stored.sequence} is not the one that was read before")

    def _take(self, stored: Stored) -> None:
        scope = scope_of(stored.subject)
        if scope is None:
            return  # stands in no task's scope: nobody reads it
        task = self._task(scope, stored)
        reason = task.history.add(stored)
        if reason and _is_anew(task.history, stored):
            self._delete(task)
            task = self._begin(scope, stored)
            reason = task.history.add(stored)
        valid = None
        if not reason:
            if task.history.valid and task.history.valid[-1].stored is stored:
                valid = task.history.valid[-1]
            entry = valid.entry if valid else None
            task.updated = stored
            task.fresh.append((stored, entry))
            if getattr(entry, "hold", 0):
                task.agent = entry.writer if entry else ""
        if task.is_new or task.updated is not None or _is_left(task.history):
            self._touched[task.number] = task
        self._voids += bool(reason)
        if valid is not None:
            self._decisions += decisions.row(stored, task.number, task.history, valid.entry)
        said = rows.detail(valid.subject.pool, valid.entry) if valid else ""
        self._moments.append(
            (
                stored.sequence,
                task.number,
                rows.cut(stored.subject[len(scope) - 1 :].partition(".")[0], _MAX_EVENT),
                stored.time_ns,
                valid.entry.writer if valid else "",
                (getattr(valid.entry, "attempt", 0) or task.history.attempt) if valid else 0,
                said,
                *rows.recorded(valid.entry if valid else None),
                rows.cut(reason, rows.MAX_DETAIL),
            )
        )

    def _task(self, scope: str, stored: Stored) -> _Task:
        """The scope's task: from memory, folded again from the file, or begun."""
        task = self._folded.get(scope)
        if task is not None:
            self._folded.move_to_end(scope)
            return task
        capability, owner, name = scope.split(".")[2:5]
        found = self._connection.execute(_FIND_TASK, (owner, name, capability)).fetchone()
        if found is None:
            return self._begin(scope, stored)
        number, state, row = found
        # Whatever stands before this entry in the scope has been seen.
        history = self._refold(scope, number, state)
        history.last = stored.sequence - 1
        agent = codec.decode(row, queries.TaskRow).agent if row else ""
        task = self._folded[scope] = _Task(number, history, agent, is_kept=True)
        return task

    def _refold(self, scope: str, number: int, state: str) -> History:
        if state == _REMNANT:
            return History(scope, remnant=True)
        if state in subjects.TERMINAL:
            # Any position but none: the scope is opened, whatever comes.
            ended = History(scope, position="queued", ended=cast("State", state))
            ended.last_valid = self._last_valid(number)
            return ended
        history = History(scope)
        for columns in self._connection.execute(_FIND_KEPT, (number,)):
            kept = rows.Kept(*columns)
            history.last = kept.sequence - 1  # void entries between are not kept, but were seen
            history.add(rows.restore(kept, scope))
        return history

    def _last_valid(self, number: int) -> int:
        found = self._connection.execute(
            "SELECT max(sequence) FROM moments WHERE number = ? AND void = ''", (number,)
        )
        return int(found.fetchone()[0] or 0)

    def _begin(self, scope: str, stored: Stored) -> _Task:
        task = self._folded[scope] = _Task(stored.sequence, History(scope), is_new=True)
        return task

    def _delete(self, task: _Task) -> None:
        """Take the ended task out: retention has deleted it, and its id begins anew."""
        self._write()
        self._remove(task.number)

    def _remove(self, number: int) -> None:
        for statement in (
            "DELETE FROM tasks WHERE number = ?",
            "DELETE FROM moments WHERE number = ?",
            "DELETE FROM kept WHERE number = ?",
            "DELETE FROM decisions WHERE number = ?",
        ):
            self._connection.execute(statement, (number,))

    def _write(self) -> None:
        """Bring what was folded into the file."""
        touched = list(self._touched.values())
        execute = self._connection.executemany
        execute(_PUT_MOMENT, self._moments)
        execute(_PUT_DECISION, self._decisions)
        execute(_PUT_TASK, [_columns(task) for task in touched])
        still_open = [task for task in touched if task.history.is_open]
        execute(
            "INSERT INTO kept (number, sequence, time_ns, event, expected, data)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (task.number, *rows.keep(stored, task.history.scope, entry))
                for task in still_open
                for stored, entry in task.fresh
            ],
        )
        ended = [task for task in touched if task.history.ended]
        execute(
            "DELETE FROM kept WHERE number = ?", [(task.number,) for task in ended if task.is_kept]
        )
        self._moments.clear()
        self._decisions.clear()
        self._touched.clear()
        for task in ended:
            del self._folded[task.history.scope]
        for task in touched:
            task.is_new, task.is_kept, task.updated = False, True, None
            task.fresh.clear()
            rows.slim(task.history)


def scope_of(subject: str) -> str | None:
    """The scope that a message of the ledger stands in, whatever its event; None for none."""
    parts = subject.split(".", 5)
    if len(parts) != 6 or parts[:2] != ["sg", "task"]:  # noqa: PLR2004 - as the subject is written
        return None
    capability, owner, task, event = parts[2:]
    if not event or not all(map(subjects.is_token, (capability, owner, task))):
        return None
    return subjects.scope(capability, owner, task)


def _is_left(history: History) -> bool:
    """Whether the scope is what retention left of a task: nothing in it can count."""
    return history.remnant and history.submitted_stored is None


def _is_anew(history: History, stored: Stored) -> bool:
    """Whether the scope had been deleted by retention before this submission (rules 5 and 18).

    The broker let it expect 0, so nothing stood there any more; whoever reads the ledger now sees a
    new task.
    """
    if not (history.ended or history.remnant) or not stored.subject.endswith(".submitted"):
        return False
    return expectation(stored.headers, history.scope) == 0


def _columns(task: _Task) -> tuple[object, ...]:
    """The task's row, as `_PUT_TASK` wants it."""
    history = task.history
    key = (task.number, history.owner, history.task, history.capability)
    opened, updated = history.submitted_stored, task.updated
    if opened is None or updated is None:
        state = _REMNANT if _is_left(history) else "none"
        return (*key, state, 0, history.task, "", "", "", 0, None, None)
    row = rows.task_row(history, opened, updated, task.agent)
    text = rows.search_text(row)
    root = row.root or row.id
    found = (row.parent, rows.fingerprint(row), row.redrives, updated.time_ns)
    return (*key, row.state, int(history.is_open), root, *found, text, codec.encode(row))
