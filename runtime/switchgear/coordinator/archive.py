"""What the janitor deletes, written to files first. Blocking: for a thread of its own.

JSON lines have a file a day, Parquet has a file a batch. What was archived and not deleted, since the replica died in
between, is archived again: the sequence tells.
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

from switchgear import ids
from switchgear.contract.stored import Stored
from switchgear.errors import ExtraMissing

Format = Literal["jsonl", "parquet"]

_NS: Final = 1_000_000_000


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the ledger in an archive."""

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
    """Where entries go before they are deleted."""

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Add them to what the day has: they are on the disk when this returns. Raises OSError."""
        ...


def made(folder: Path, kind: Format) -> Archive:
    """The archive of this kind. Raises ExtraMissing."""
    return Parquet(folder) if kind == "parquet" else JsonLines(folder)


class JsonLines:
    """`<folder>/<day>.jsonl`: one line an entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Add them to the day's file: they are on the disk when this returns. Raises OSError."""
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
    """`<folder>/day=<day>/*.parquet`: one row an entry, the columns those of a line; readers find `day` as well."""

    def __init__(self, folder: Path) -> None:
        """Raises ExtraMissing."""
        try:
            self._arrow: Any = import_module("arro3.core")
            self._io: Any = import_module("arro3.io")
        except ImportError as error:
            raise ExtraMissing("archives in Parquet", "parquet") from error
        self._folder = folder

    def write(self, entries: Sequence[Stored], now: datetime) -> None:
        """Write a file with them: it is on the disk when this returns. Raises OSError."""
        folder = self._folder / f"day={now:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = sorted(one.sequence for one in entries)
        # A batch that comes again has the same name; one that overlaps it has another.
        mark = ids.short_digest(",".join(map(str, numbers)).encode())
        path = folder / f"{numbers[0]}-{numbers[-1]}-{mark}.parquet"
        part = folder / f".{path.name}.part"  # readers pass over what begins with a dot
        with part.open("wb") as file:
            self._io.write_parquet(self._table(entries), file, compression="zstd(3)")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(folder)
        _sync_folder(self._folder)

    def _table(self, entries: Sequence[Stored]) -> Any:
        array, kinds = self._arrow.Array, self._arrow.DataType
        lines, text = [_line(one) for one in entries], kinds.utf8()
        columns = {
            "subject": array([line.subject for line in lines], text),
            "sequence": array([line.sequence for line in lines], kinds.int64()),
            "time": array([one.time_ns for one in entries], kinds.int64()).cast(
                kinds.timestamp("ns", tz="UTC")
            ),
            "headers": array([line.headers for line in lines], text),
            "body": array([bytes(line.body).decode() or None for line in lines], text),
            "body_base64": array([line.body_base64 or None for line in lines], text),
        }
        return self._arrow.Table.from_pydict(columns)


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
