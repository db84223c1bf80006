"""The read model's SQLite file: its tables, and how it is opened. Nothing in it is worth a backup.

One process writes in one transaction a batch (WAL, so that readers never wait for it); readers have
connections of their own. A file of another layout is emptied and filled again from the ledger.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from switchgear import errors

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 5
"""Layout of the tables and meaning of the rows: raise it with any change of either."""
_APPLICATION = 0x53_47_48_31
"""Marks the file as ours, so that a mistyped path never empties somebody else's database."""
_BUSY_SECONDS = 10.0

_TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    capability TEXT NOT NULL,
    state TEXT NOT NULL,
    is_open INTEGER NOT NULL,
    root TEXT NOT NULL,
    parent TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    redrives TEXT NOT NULL,
    updated_ns INTEGER NOT NULL,
    text TEXT,
    row BLOB
);
CREATE UNIQUE INDEX tasks_by_scope ON tasks (owner, id, capability);
CREATE INDEX tasks_newest ON tasks (owner, number, text);
CREATE INDEX tasks_by_state ON tasks (owner, state);
CREATE INDEX tasks_by_capability ON tasks (owner, capability);
CREATE INDEX tasks_by_capability_state ON tasks (owner, capability, state);
CREATE INDEX tasks_by_root ON tasks (owner, root);
CREATE INDEX tasks_open ON tasks (owner) WHERE is_open = 1;
CREATE INDEX tasks_by_parent ON tasks (owner, parent) WHERE parent <> '';
CREATE INDEX tasks_by_fingerprint ON tasks (owner, fingerprint) WHERE fingerprint <> '';
CREATE INDEX tasks_by_redrives ON tasks (owner, redrives) WHERE redrives <> '';
CREATE INDEX tasks_dead ON tasks (owner, fingerprint, capability, number, updated_ns)
    WHERE state = 'dead';
CREATE TABLE moments (
    sequence INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    event TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    writer TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    detail TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    ok INTEGER,
    duration_us INTEGER,
    void TEXT NOT NULL
);
CREATE INDEX moments_by_task ON moments (number);
CREATE INDEX moments_ending ON moments (sequence, number)
    WHERE event IN ('cancelled', 'completed', 'dead', 'expired', 'rejected');
CREATE INDEX moments_ending_void ON moments (number, event, sequence)
    WHERE event IN ('cancelled', 'completed', 'dead', 'expired', 'rejected') AND void <> '';
CREATE TABLE kept (
    sequence INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    event TEXT NOT NULL,
    expected INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX kept_by_task ON kept (number);
CREATE TABLE decisions (
    sequence INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    capability TEXT NOT NULL,
    rule TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    executor TEXT NOT NULL,
    ok INTEGER NOT NULL,
    fell_back INTEGER NOT NULL,
    skipped TEXT,
    differences TEXT,
    ratio REAL
);
CREATE INDEX decisions_by_rule ON decisions (capability, rule, sequence);
CREATE INDEX decisions_by_task ON decisions (number);
INSERT INTO meta VALUES ('cursor', 0);
"""
# tasks: one row a scope. `number` is the sequence of the first entry seen in it, which orders
#   lists; `text` and `row` (an encoded TaskRow) are NULL while nothing valid stands in the scope;
#   `state` is then none or remnant. `fingerprint` is that of the error, empty where there is none;
#   `parent` and `redrives` are empty where there is none.
# moments: every entry of the ledger that stands in a scope, for timelines.
# decisions: where steps of a rollout ran. `skipped` and `differences` are NULL where nothing ran
#   beside them; empty for "not skipped" and "no difference".
# kept: what a fold needs of the valid entries of open tasks; it goes when the task ends.


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes; creates the file for its owner only, or empties an older layout.

    Raises ConfigError when the path cannot be used or holds something else.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = _connect(path)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, str(error)) from error
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(path, str(error)) from error
    except errors.ConfigError:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads a file that `open_writer` made."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def empty(connection: sqlite3.Connection) -> None:
    """Start over: no task, cursor 0, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _create(connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    # Calls come from threads of a pool; the callers see to it that one connection is used by one at
    # a time.
    return sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if objects and application != _APPLICATION:
        raise _unusable(path, "it holds a database of another program")
    connection.execute("PRAGMA journal_mode = WAL")
    # A power loss may take the newest batches: cursor and rows go together, so they are read again.
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not objects or version != VERSION:
        empty(connection)


def _create(connection: sqlite3.Connection) -> None:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in found:
        connection.execute(f'DROP TABLE "{name}"')
    for statement in filter(None, _TABLES.split(";\n")):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _unusable(path: Path, why: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"the read model cannot use {path}",
        why=why,
        fix="name another path; if the file is a damaged read model, delete it: it is rebuilt",
    )
