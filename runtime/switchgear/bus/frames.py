"""Bytes that the server makes, taken apart: delivery metadata, appended headers, statuses, times.

Whatever a publisher can write is told apart from what the server adds: the server appends its headers at the end of
the stored block (measured on 2.15.1), so only the last ones count, and they are cut off before anybody reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from switchgear.contract.stored import Stored

_STREAM: Final = b"Nats-Stream: "
_SIZE: Final = b"Nats-Msg-Size: "
_END: Final = b"\r\n\r\n"
_NS: Final = 1_000_000_000

LONG_FORM: Final = 11
"""Tokens from which a delivery's reply subject has the long form (`$JS.ACK.<domain>.<account>.…`)."""
HEARTBEAT: Final = 100
NOTHING: Final = 404
"""No message is there."""
OVER: Final = 408
"""A pull request's time is over."""
NOBODY: Final = 503
"""Nobody listens there."""


class Handed(NamedTuple):
    """What a delivery's reply subject says."""

    consumer: str
    deliveries: int
    sequence: int
    """The stream's sequence."""
    consumer_sequence: int
    time_ns: int
    pending: int
    """Messages that the consumer still has after this one."""


def handed(reply: bytes) -> Handed:
    """Parse `$JS.ACK.…`, in the form of 9 tokens or the one of 12 (domain, account, … and a random last token)."""
    part = reply.split(b".")
    at = 4 if len(part) >= LONG_FORM else 2
    return Handed(
        part[at + 1].decode(),
        int(part[at + 2]),
        int(part[at + 3]),
        int(part[at + 4]),
        int(part[at + 5]),
        int(part[at + 6]),
    )


def whole(headers: bytes) -> bytes:
    """The stored block as every reader may judge it, or nothing where it is cut off in the middle.

    The server accepts any bytes as headers, and where it appends its own it overwrites the last two. A verdict may
    not depend on them, or a direct get and a delivery of one entry would be judged differently.
    """
    if headers[-4:] == _END or not headers:
        return headers
    return headers[:-2] + b"\r\n" if headers[-4:-2] == b"\r\n" else b""


def appended(headers: bytes, stream: str) -> tuple[bytes, str, int, int] | None:
    """Split a direct get's block: the stored headers, then subject, sequence and time as the server appended them.

    Also for republished messages. None where the block does not end in what the server appends.
    """
    # The server's block is the last one, and none of its own values can hold this name.
    at = headers.rfind(_STREAM)
    if at < 0:
        return None
    fields: dict[bytes, bytes] = {}
    for line in headers[at:-4].split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name in fields:
            return None
        fields[name] = value
    try:
        if fields[b"Nats-Stream"] != stream.encode():
            return None
        subject = fields[b"Nats-Subject"].decode()
        sequence = int(fields[b"Nats-Sequence"])
        time = time_ns(fields[b"Nats-Time-Stamp"].decode())
    except (KeyError, ValueError):
        return None
    if headers[at - 2 : at] != b"\r\n":
        return b"", subject, sequence, time
    stored = headers[:at]
    return (b"" if stored == b"NATS/1.0\r\n" else stored + b"\r\n"), subject, sequence, time


def without_size(headers: bytes) -> bytes:
    """The stored block of a message whose data the server left out, telling its size in a header of its own."""
    at = headers.rfind(_SIZE)
    if at < 0:
        return headers
    stored = headers[:at]
    # Cut off in the middle, or the server's own line alone: as `whole` judges it.
    if stored[-2:] != b"\r\n" or stored == b"NATS/1.0\r\n":
        return b""
    return stored + b"\r\n"


def stored_directly(headers: bytes, data: bytes, stream: str) -> Stored | None:
    """The entry in a direct get's answer, or in a republished message; None where it is not in the server's form."""
    found = appended(headers, stream)
    if found is None:
        return None
    block, subject, sequence, time = found
    return Stored(subject, sequence, time, block, data)


def status(headers: bytes) -> int:
    """The status of a block such as `NATS/1.0 404 No Messages`; 0 where it has none."""
    if headers[:9] != b"NATS/1.0 ":
        return 0
    digits = headers[9:12]
    return int(digits) if digits.isdigit() else 0


def description(headers: bytes) -> str:
    """The text behind a status."""
    return headers[13 : headers.find(b"\r\n")].decode("utf-8", "replace")


def pending_messages(headers: bytes) -> int | None:
    """What a pull request that ended was still owed, where the status says it."""
    return _number(headers, b"\r\nNats-Pending-Messages: ")


def last_delivered(headers: bytes) -> int | None:
    """The consumer sequence of the newest delivery, as a heartbeat tells it."""
    return _number(headers, b"\r\nNats-Last-Consumer: ")


def _number(headers: bytes, name: bytes) -> int | None:
    at = headers.find(name)
    if at < 0:
        return None
    start = at + len(name)
    digits = headers[start : headers.find(b"\r\n", start)]
    return int(digits) if digits.isdigit() else None


def time_ns(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time in UTC, as Go writes it (up to 9 digits). Raises ValueError."""
    if text[-1:] != "Z":
        msg = f"{text!r} is not a time in UTC"
        raise ValueError(msg)
    whole_seconds, _, fraction = text[:-1].partition(".")
    return _seconds(whole_seconds) * _NS + int(fraction.ljust(9, "0")[:9] or 0)


@lru_cache(maxsize=16)
def _seconds(text: str) -> int:
    """Messages come by the thousand within one second."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def rfc3339(at: datetime) -> str:
    """A time as the server reads it, to the microsecond: cut to seconds a timer would come early. Needs a zone."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
