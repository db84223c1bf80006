"""Ids: lower-case, 26 characters, safe as one subject token; random ones sort by the time they were made."""

from __future__ import annotations

import hashlib
import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_LENGTH = 26


def _encode(value: int) -> str:
    """130 bits as 26 characters of Crockford's base 32, two at a time."""
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def new_id(now_ms: int) -> str:
    """A fresh id: 48 bits of time in milliseconds, then 80 random bits (the ULID layout).

    80 random bits keep ids unguessable for other principals of the same mesh (docs/adr/0002).
    """
    return _encode((now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big"))


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
