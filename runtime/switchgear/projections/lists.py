"""The read model's readers: lists and timelines of one owner, each of one state of the file."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from switchgear import errors
from switchgear.contract import codec, queries
from switchgear.projections import tables

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAX_PAGE_BYTES = 768 * 1024
"""Bytes of the rows in one page; with long errors it ends early and says that there is more."""
MAX_MOMENTS = 10_000
"""Entries that a timeline is made of at most; the size of one message is usually reached before."""
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

    def timeline(self, owner: str, root: str) -> Moments:
        """The entries of the owner's run, void ones included; none for a run that is not known."""
        with self._snapshot() as cursor:
            found = self._connection.execute(
                "SELECT id, capability, event, time_ns, sequence, writer, attempt, detail, void"
                " FROM tasks JOIN moments USING (number) WHERE owner = ? AND root = ?"
                " ORDER BY sequence LIMIT ?",
                (owner, root, MAX_MOMENTS + 1),
            ).fetchall()
        moments = tuple(
            queries.Moment(
                task=task,
                capability=capability,
                event=event,
                time=datetime.fromtimestamp(time_ns / 1e9, UTC),
                sequence=sequence,
                writer=writer,
                attempt=attempt,
                detail=detail,
                void=void,
            )
            for task, capability, event, time_ns, sequence, writer, attempt, detail, void in found
        )
        return Moments(moments[:MAX_MOMENTS], len(moments) > MAX_MOMENTS, cursor)

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
    if query.root is not None:
        return "tasks_by_root"
    if query.state is not None:
        return "tasks_by_state" if query.capability is None else "tasks_by_capability_state"
    if query.open_only:
        return "tasks_open"
    return "tasks_newest" if query.capability is None else "tasks_by_capability"
