"""The read model's readers: lists and timelines of one owner, each of one state of the file."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from switchgear import errors
from switchgear.contract import codec, queries
from switchgear.contract.dead_letters import DeadGroup, DeadQuery
from switchgear.contract.rollout import RolloutCounts, RolloutCountsQuery
from switchgear.projections import decisions, tables

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAX_PAGE_BYTES = 768 * 1024
"""Bytes of the rows in one page; with long errors it ends early and says that there is more."""
MAX_MOMENTS = 5_000
"""Entries in one page of a timeline at most; its size is usually reached before."""
MAX_GROUPS = 500
"""Groups of dead letters in one answer."""
_GROUP = (
    "fingerprint, capability, count(*), min(updated_ns), max(updated_ns), max(number),"
    " sum(EXISTS (SELECT 1 FROM tasks AS r WHERE r.owner = d.owner AND r.redrives <> ''"
    " AND r.redrives = CASE d.redrives WHEN '' THEN d.id ELSE d.redrives END"
    " AND r.number > d.number))"
)
"""Of further tries all name the first dead task, so one that is newer than a dead task is a try of it."""
_TICK = 100_000
_MAX_TICKS = 5_000
"""Together 500 million steps of SQLite, some seconds: where a query is given up."""


class Page(NamedTuple):
    """Tasks, newest first, and what was read of the ledger when they were found."""

    tasks: tuple[queries.TaskRow, ...]
    more: bool
    cursor: int


class Moments(NamedTuple):
    """A run's entries in ledger order, and what was read of the ledger when they were found."""

    moments: tuple[queries.Moment, ...]
    more: bool
    """Whether the run has more entries than these."""
    cursor: int


class Groups(NamedTuple):
    """Dead tasks by cause, and what was read of the ledger when they were found."""

    groups: tuple[DeadGroup, ...]
    more: bool
    cursor: int


class Reader:
    """A connection that reads, for one caller at a time. An owner sees its own tasks only."""

    def __init__(self, path: Path) -> None:
        self._connection = tables.open_reader(path)
        self._ticks = 0
        self._connection.set_progress_handler(self._tick, _TICK)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def tasks(self, owner: str, query: queries.ListQuery) -> Page:
        """The owner's tasks that the query asks for.

        Raises NotFound when `before` is no task of the owner, and UsageError when it would take too
        long.
        """
        with self._snapshot() as cursor:
            where, arguments = self._conditions(owner, query)
            # Only constants of this module are put together; every value is bound.
            statement = (
                f"SELECT row FROM tasks INDEXED BY {_index(query)}"  # noqa: S608
                f" WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
            )
            found = self._connection.execute(statement, (*arguments, query.limit + 1))
            tasks: list[queries.TaskRow] = []
            size = 0
            for (row,) in found:
                size += len(row)
                if len(tasks) == query.limit or size > MAX_PAGE_BYTES:
                    return Page(tuple(tasks), more=True, cursor=cursor)
                tasks.append(codec.decode(row, queries.TaskRow))
            return Page(tuple(tasks), more=False, cursor=cursor)

    def timeline(self, owner: str, root: str, after: int = 0) -> Moments:
        """The entries of the owner's run beyond a sequence, void ones too; none for a run that is not known."""
        with self._snapshot() as cursor:
            found = self._connection.execute(
                "SELECT id, capability, event, time_ns, sequence, writer, attempt, detail, key, kind,"
                " ok, duration_us, void FROM tasks JOIN moments USING (number)"
                " WHERE owner = ? AND root = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (owner, root, after, MAX_MOMENTS + 1),
            )
            moments: list[queries.Moment] = []
            size = 0
            for columns in found:
                moment = _moment(columns)
                size += len(codec.encode(moment))
                if len(moments) == MAX_MOMENTS or (moments and size > MAX_PAGE_BYTES):
                    return Moments(tuple(moments), more=True, cursor=cursor)
                moments.append(moment)
            return Moments(tuple(moments), more=False, cursor=cursor)

    def dead(self, owner: str, query: DeadQuery) -> Groups:
        """The owner's dead tasks by fingerprint and capability, the largest group first."""
        where, arguments = ["owner = ?", "state = 'dead'"], [owner]
        for condition, value in (
            ("fingerprint = ?", query.fingerprint),
            ("capability = ?", query.capability),
        ):
            if value is not None:
                where.append(condition)
                arguments.append(value)
        with self._snapshot() as cursor:
            # Only constants of this module are put together; every value is bound.
            found = self._connection.execute(
                f"SELECT {_GROUP} FROM tasks AS d INDEXED BY tasks_dead"  # noqa: S608
                f" WHERE {' AND '.join(where)} GROUP BY fingerprint, capability"
                " ORDER BY count(*) DESC, fingerprint, capability LIMIT ?",
                (*arguments, MAX_GROUPS + 1),
            ).fetchall()
            groups: list[DeadGroup] = []
            size = 0
            for columns in found:
                group = self._group(columns)
                size += len(codec.encode(group))
                if len(groups) == MAX_GROUPS or size > MAX_PAGE_BYTES:
                    return Groups(tuple(groups), more=True, cursor=cursor)
                groups.append(group)
            return Groups(tuple(groups), more=False, cursor=cursor)

    def decisions(self, asker: str, query: RolloutCountsQuery) -> tuple[RolloutCounts, int]:
        """What came of the decisions under one pattern, and the cursor; examples are the asker's own tasks."""
        since = 0 if query.since is None else round(query.since.timestamp() * 1e9)
        with self._snapshot() as cursor:
            found = self._connection.execute(
                decisions.FIND, (asker, query.capability, query.pattern, since, decisions.MOST)
            ).fetchall()
            return decisions.counted(found), cursor

    def _group(self, columns: tuple[Any, ...]) -> DeadGroup:
        fingerprint, capability, count, first, last, number, redriven = columns
        found = self._connection.execute("SELECT row FROM tasks WHERE number = ?", (number,))
        newest = codec.decode(found.fetchone()[0], queries.TaskRow)
        assert newest.error is not None  # as of every dead task
        return DeadGroup(
            fingerprint=fingerprint,
            capability=capability,
            count=count,
            first=_time(first),
            last=_time(last),
            newest=newest.id,
            error=newest.error,
            redriven=redriven,
        )

    @contextmanager
    def _snapshot(self) -> Generator[int]:
        """Give the cursor; all that is read meanwhile is of the same moment."""
        self._ticks = 0
        self._connection.execute("BEGIN")
        try:
            found = self._connection.execute("SELECT value FROM meta WHERE name = 'cursor'")
            yield int(found.fetchone()[0])
        except sqlite3.OperationalError as error:
            if self._ticks > _MAX_TICKS:
                raise errors.UsageError(
                    "the query takes too long", fix="narrow it by capability, state or run"
                ) from error
            raise
        finally:
            self._connection.execute("COMMIT")

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks > _MAX_TICKS

    def _conditions(
        self, owner: str, query: queries.ListQuery
    ) -> tuple[list[str], list[str | int]]:
        # Scopes without a valid submission have no text, and are no tasks.
        where, arguments = ["owner = ?", "text IS NOT NULL"], list[str | int]([owner])
        for condition, value in (
            ("root = ?", query.root),
            ("parent = ? AND parent <> ''", query.parent),
            ("redrives = ? AND redrives <> ''", query.redrives),
            ("fingerprint = ? AND fingerprint <> ''", query.fingerprint),
            ("capability = ?", query.capability),
            ("state = ?", query.state),
            ("instr(text, ?) > 0", query.search.casefold() or None),
        ):
            if value is not None:
                where.append(condition)
                arguments.append(value)
        if query.open_only:
            where.append("is_open = 1")
        if query.before is not None:
            where.append("number < ?")
            arguments.append(self._number(owner, query.before))
        return where, arguments

    def _number(self, owner: str, task: str) -> int:
        """Where the task stands in the order of lists."""
        found = self._connection.execute(
            "SELECT min(number) FROM tasks INDEXED BY tasks_by_scope WHERE owner = ? AND id = ?",
            (owner, task),
        ).fetchone()
        if found[0] is None:
            raise errors.NotFound(
                f"no task {task[:64]!r} to go on from",
                why="it was deleted, or the read model is being rebuilt",
                fix="begin with the first page again",
            )
        return int(found[0])


def _index(query: queries.ListQuery) -> str:
    """The index that leaves the fewest rows, in order; SQLite could only guess."""
    for name in ("parent", "redrives", "root", "fingerprint"):
        if getattr(query, name) is not None:
            return f"tasks_by_{name}"
    if query.state is not None:
        return "tasks_by_state" if query.capability is None else "tasks_by_capability_state"
    if query.open_only:
        return "tasks_open"
    return "tasks_newest" if query.capability is None else "tasks_by_capability"


def _moment(columns: tuple[Any, ...]) -> queries.Moment:
    """A row of `moments`, with its task's id and capability."""
    task, capability, event, time_ns, sequence, writer, attempt, detail = columns[:8]
    key, kind, ok, duration_us, void = columns[8:]
    return queries.Moment(
        task=task,
        capability=capability,
        event=event,
        time=_time(time_ns),
        sequence=sequence,
        writer=writer,
        attempt=attempt,
        detail=detail,
        key=key,
        kind=kind,
        ok=None if ok is None else bool(ok),
        duration=None if duration_us is None else timedelta(microseconds=duration_us),
        void=void,
    )


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)
