"""What the janitor deletes, written to files first. Blocking: for a thread of its own.

A file a day as JSON lines, one line an entry; or a Parquet file a batch. What was archived and not deleted, since the
replica died in between, is archived again: the sequence tells.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from switchgear.contract.stored import Stored
from switchgear.errors import ExtraMissing

_NS: Final = 1_000_000_000


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the ledger in an archive of JSON lines."""

    subject: str
    sequence: int
    time: str
    """When the broker stored it: RFC 3339, in UTC, to the nanosecond."""
    headers: str
    """The raw header block, as Latin-1."""
    body: msgspec.Raw = msgspec.Raw(b"")
    """The entry's JSON; left out where it is none."""
    body_base64: str = ""
    """The entry's bytes where they are no JSON."""


class Archive(Protocol):
    """Where deleted entries are kept."""

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Keep them: they are on the disk when this returns. Raises OSError."""
        ...


class JsonLines:
    """`<folder>/<day>.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Add them to the day's file. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{now:%Y-%m-%d}.jsonl"
        lines = b"".join(msgspec.json.encode(_line(one)) + b"\n" for one in entries)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a power loss cut short
                    lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._folder)


class Parquet:
    """`<folder>/<day>-<first sequence>.parquet`. Raises ExtraMissing without the extra `archive`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._arrow: Any = import_module("pyarrow")
            self._parquet: Any = import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise ExtraMissing("an archive in Parquet", "archive") from error

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Write them as a file of their own, whole or not at all. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        arrow = self._arrow
        schema = arrow.schema(
            [
                ("subject", arrow.string()),
                ("sequence", arrow.int64()),
                ("time", arrow.timestamp("ns", tz="UTC")),
                ("headers", arrow.binary()),
                ("body", arrow.binary()),
            ]
        )
        rows = {
            "subject": [one.subject for one in entries],
            "sequence": [one.sequence for one in entries],
            "time": [one.time_ns for one in entries],
            "headers": [one.headers for one in entries],
            "body": [one.data for one in entries],
        }
        first = min(one.sequence for one in entries)
        path = self._folder / f"{now:%Y-%m-%d}-{first}.parquet"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            self._parquet.write_table(arrow.table(rows, schema=schema), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(self._folder)


def opened(folder: Path | None, form: Literal["jsonl", "parquet"]) -> Archive | None:
    """The archive in this folder; None without one. Raises ExtraMissing."""
    if folder is None:
        return None
    return Parquet(folder) if form == "parquet" else JsonLines(folder)


def read(path: Path) -> list[Line]:
    """The entries of a file of JSON lines; a line that was cut short is left out. Raises OSError."""
    found: list[Line] = []
    with path.open("rb") as file:
        for text in file:
            try:
                found.append(msgspec.json.decode(text, type=Line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
    return found


def _line(stored: Stored) -> Line:
    seconds, rest = divmod(stored.time_ns, _NS)
    moment = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    headers = stored.headers.decode("latin-1")
    line = Line(stored.subject, stored.sequence, moment, headers)
    try:
        # Written anew, so that no body can break the line.
        body = msgspec.json.encode(msgspec.json.decode(stored.data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        coded = base64.b64encode(stored.data).decode()
        return msgspec.structs.replace(line, body_base64=coded)
    return msgspec.structs.replace(line, body=msgspec.Raw(body))


def _sync_folder(folder: Path) -> None:
    """Let the file's name survive a power loss too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
