"""The last bytes of a stream, and the lines that pass: what is kept of an output of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE = 64 * 1024
"""Bytes of the longest line handed on in one piece; a longer one comes in pieces."""


class Tail:
    """Keeps the last `limit` bytes, counts the others, hands on each line when it is complete."""

    def __init__(self, limit: int, on_line: Callable[[str], None] | None = None) -> None:
        self._limit = limit
        self._on_line = on_line
        self._kept = bytearray()
        self.fed = 0
        """Bytes so far."""
        self._line = bytearray()

    @property
    def cut(self) -> int:
        """Bytes that were fed and not kept."""
        return self.fed - min(len(self._kept), self._limit)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.fed += len(data)
        self._kept += data
        # Trimming at twice the limit moves each byte at most once more.
        if len(self._kept) > 2 * self._limit:
            del self._kept[: len(self._kept) - self._limit]
        if self._on_line is not None:
            self._line += data
            self._pass_lines(self._on_line)

    def close(self) -> None:
        """Hand on the last line, if it has no end."""
        if self._on_line is not None and self._line:
            self._on_line(self._line.decode(errors="replace"))
            self._line.clear()

    def text(self, since: int = 0) -> str:
        """The kept bytes as text; a character cut in two at the beginning is left out.

        `since`: without so many that came first.
        """
        size = min(len(self._kept), self._limit, self.fed - since)
        kept = bytes(self._kept[len(self._kept) - size :])
        start = 0
        if self.cut:
            # A continuation byte is 10xxxxxx; a character has at most three.
            while start < min(3, len(kept)) and kept[start] & 0xC0 == 0x80:  # noqa: PLR2004 - bit pattern above
                start += 1
        return kept[start:].decode(errors="replace")

    def _pass_lines(self, on_line: Callable[[str], None]) -> None:
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            on_line(line.rstrip(b"\r").decode(errors="replace"))
        while len(rest) > MAX_LINE:
            on_line(rest[:MAX_LINE].decode(errors="replace"))
            rest = rest[MAX_LINE:]
        self._line = rest
