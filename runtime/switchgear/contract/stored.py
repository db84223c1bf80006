"""One message as the ledger keeps it, and the expectation that its headers prove."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SCOPE = "Nats-Expected-Last-Subject-Sequence-Subject"

_MAX_DIGITS = 19
_MENTIONS = 2
_NAME = EXPECTED.lower().encode()
_NUMBER_LINE = f"\r\n{EXPECTED}:".encode()
_SCOPE_LINE = f"\r\n{EXPECTED_SCOPE}:".encode()


class Stored(NamedTuple):
    """A message of the ledger: what the broker vouches for, beside the writer's bytes."""

    subject: str
    sequence: int
    """The stream's sequence, from 1."""
    time_ns: int
    """The broker's store time, nanoseconds since 1970."""
    headers: bytes
    """The raw header block, as stored: never a parsed one, which hides repeats (rule 1)."""
    data: bytes

    @property
    def time(self) -> datetime:
        """The broker's store time, in UTC, to the microsecond."""
        return datetime.fromtimestamp(self.time_ns / 1e9, UTC)


def expectation(headers: bytes, scope: str) -> int | None:
    """The sequence that this message's compare-and-set expected, or None where it proves nothing.

    Rule 1 (a): both headers stand in the block once, in exact case, a plain decimal number and the own scope.
    Of repeated headers the broker checks the first, and lower-case ones not at all: both prove nothing.
    It searches the block for the names, and gives up where one stands on the first line, or twice in a row
    inside another header (measured on 2.15.1): so they may stand nowhere else.
    """
    if headers.lower().count(_NAME) != _MENTIONS:
        return None
    if _value(headers, _SCOPE_LINE) != scope.encode():
        return None
    return _decimal(_value(headers, _NUMBER_LINE))


def _value(headers: bytes, line: bytes) -> bytes:
    """What stands on the line that begins so; empty where none does, or nothing ends it."""
    start = headers.find(line)
    if start < 0:
        return b""
    start += len(line)
    end = max(headers.find(b"\r\n", start), start)
    return headers[start:end].removeprefix(b" ")


def _decimal(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > _MAX_DIGITS or (text[:1] == b"0" and text != b"0"):
        return None
    return int(text)


def expect_headers(sequence: int, scope: str) -> dict[str, str]:
    """The headers of an append that lands only if `sequence` is the last one in the scope."""
    return {EXPECTED: str(sequence), EXPECTED_SCOPE: scope}


def header_block(headers: dict[str, str]) -> bytes:
    """The raw block of these headers, as a NATS client sends it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()
