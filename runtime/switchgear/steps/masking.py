"""Takes the texts of secrets out of a stream of bytes, also where one comes in pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MASK = b"***"

_SHORTEST = 3
"""Bytes of the shortest text that is masked: a shorter one would garble what it is no part of."""
_LINE = 8
"""Bytes of the shortest line of a longer secret that is masked for itself."""


class Mask:
    """One stream's. Holds back what may be the beginning of a secret until more comes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        texts: set[bytes] = set()
        for secret in secrets:
            whole = secret.encode(errors="surrogateescape")
            texts.add(whole)
            texts.update(line for line in whole.splitlines() if len(line) >= _LINE)
        # Longest first: a line must not break up the whole.
        self._texts = sorted((text for text in texts if len(text) >= _SHORTEST), key=len)[::-1]
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown by now."""
        if not self._texts:
            return data
        data = self._masked(self._held + data)
        keep = max((_overlap(data, text) for text in self._texts), default=0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def close(self) -> bytes:
        """What was held back: the stream has ended, so it is no secret."""
        held, self._held = self._held, b""
        return held

    def text(self, text: str) -> str:
        """A whole text without its secrets."""
        return self._masked(text.encode(errors="surrogateescape")).decode(errors="replace")

    def _masked(self, data: bytes) -> bytes:
        for text in self._texts:
            data = data.replace(text, MASK)
        return data


def _overlap(data: bytes, text: bytes) -> int:
    """How many bytes at the end of the data could begin the text."""
    longest = min(len(data), len(text) - 1)
    return next((size for size in range(longest, 0, -1) if data.endswith(text[:size])), 0)
