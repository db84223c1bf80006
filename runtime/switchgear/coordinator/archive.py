"""What the janitor deletes, written to files first. Blocking: for a thread of its own.

A file a day, one line an entry. What was archived and not deleted, since the replica died in between, is archived
again: the sequence tells.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from switchgear.contract.stored import Stored

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


class Archive:
    """`<folder>/<day>.jsonl`: JSON lines."""

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
