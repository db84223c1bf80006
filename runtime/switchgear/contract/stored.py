"""One message as the ledger keeps it, and the expectation that its headers prove."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SCOPE = "Nats-Expected-Last-Subject-Sequence-Subject"

_MAX_DIGITS = 19
_LINES = 2
_NAME = EXPECTED.lower().encode()
_NUMBER_LINE = f"\r\n{EXPECTED}: ".encode()
_SCOPE_LINE = f"\r\n{EXPECTED_SCOPE}: ".encode()
_NAMES = EXPECTED.lower().encode()


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
    if headers.lower().count(_NAMES) != len((EXPECTED, EXPECTED_SCOPE)):
        return None
    if (
        headers.lower().count(_NAME) != _LINES
    ):  # a repeat, a missing one, or a scope with the name in it
        return _careful_expectation(headers, scope)
    start = headers.find(_NUMBER_LINE)
    subject = headers.find(_SCOPE_LINE)
    if start < 0 or subject < 0:
        return _careful_expectation(headers, scope)
    start += len(_NUMBER_LINE)
    subject += len(_SCOPE_LINE)
    if headers[subject : headers.find(b"\r\n", subject)] != scope.encode():
        return None
    return _decimal(headers[start : headers.find(b"\r\n", start)])


def _careful_expectation(headers: bytes, scope: str) -> int | None:
    number: bytes | None = None
    subject: bytes | None = None
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if not name.lower().startswith(_NAME):
            continue
        if name == EXPECTED.encode() and number is None:
            number = value.removeprefix(b" ")
        elif name == EXPECTED_SCOPE.encode() and subject is None:
            subject = value.removeprefix(b" ")
        else:
            return None
    if number is None or subject != scope.encode():
        return None
    return _decimal(number)


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
