"""Ledger entries as watchers receive them: republished, with the broker's own headers added."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from switchgear.bus.port import Message
from switchgear.contract import subjects
from switchgear.contract.stored import Stored

_SEQUENCE = b"\r\nNats-Sequence: "
_TIME = b"\r\nNats-Time-Stamp: "


def stored_of(message: Message) -> Stored | None:
    """The entry behind a live message; None where its headers leave doubt: then read the ledger.

    The broker adds its headers to whatever the writer sent, so a repeated one may be a forgery.
    """
    headers = message.headers
    if headers.count(b"Nats-Sequence:") != 1 or headers.count(b"Nats-Time-Stamp:") != 1:
        return None
    sequence = _value(headers, _SEQUENCE)
    stamp = _value(headers, _TIME)
    try:
        time_ns = _nanoseconds(stamp.decode())
        number = int(sequence)
    except ValueError:
        return None
    return Stored(subjects.ledger_of_live(message.subject), number, time_ns, headers, message.data)


def _value(headers: bytes, name: bytes) -> bytes:
    start = headers.find(name)
    if start < 0:
        return b""
    start += len(name)
    return headers[start : headers.find(b"\r\n", start)]


def _nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time in UTC with up to nine decimals."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return _seconds(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)


@lru_cache(maxsize=16)
def _seconds(whole: str) -> int:
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
