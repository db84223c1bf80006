"""Ids: lower-case, 26 characters, safe as one subject token; random ones sort by the time they were made."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_LENGTH = 26
_RANDOM = range(70, -1, -10)


def _encode(value: int) -> str:
    """130 bits as 26 characters of Crockford's base 32, two at a time."""
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def new_id(now_ms: int) -> str:
    """A fresh id: 48 bits of time in milliseconds, then 80 random bits (the ULID layout).

    80 random bits keep ids unguessable for other principals of the same mesh (docs/adr/0002).
    """
    drawn = int.from_bytes(os.urandom(10), "big")
    return _moment(now_ms) + "".join([_PAIRS[(drawn >> shift) & 1023] for shift in _RANDOM])


@lru_cache(maxsize=4)
def _moment(now_ms: int) -> str:
    """The first 10 characters: the same for all ids of a millisecond."""
    return _encode((now_ms & 0xFFFF_FFFF_FFFF) << 80)[:10]


class _Serial:
    """What entry ids are made of: 60 random bits for this process, then a counter."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin a series of its own, as a forked child must."""
        self.prefix = _encode(int.from_bytes(os.urandom(8), "big") << 66)[:13]
        self.number = 0


_serial = _Serial()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial.renew)


def entry_id() -> str:
    """A fresh id of a ledger entry: unique, and a tenth of the cost of one that nobody can guess."""
    _serial.number += 1
    return f"{_serial.prefix}{_serial.number:013x}"


def derived_id(*parts: str) -> str:
    """The id that the same parts always give: for keyed submissions, children and triggers."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return _encode(int.from_bytes(digest, "big") >> 126)


def digest(data: bytes) -> str:
    """SHA-256 in lower-case hex: the name of a blob or a schema."""
    return hashlib.sha256(data).hexdigest()


def short_digest(data: bytes, length: int = 10) -> str:
    """The first characters of the digest, for names that people read."""
    return digest(data)[:length]


def is_id(text: str) -> bool:
    """Whether the text has the shape of an id of ours."""
    return len(text) == _LENGTH and all(char in _ALPHABET for char in text)
