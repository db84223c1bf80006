"""Where NATS frames begin and end in a stream of bytes; pure, and fed in pieces of any size."""

from __future__ import annotations

from dataclasses import dataclass

END = b"\r\n"
WITH_PAYLOAD = frozenset({b"PUB", b"HPUB", b"MSG", b"HMSG"})
"""The commands after whose line a payload follows; its size is the line's last word."""
LONGEST_LINE = 65536
"""Bytes of one line; more without an end is no NATS."""


@dataclass(frozen=True)
class Piece:
    """A run of bytes that belongs to one frame, as far as it was there."""

    verb: bytes
    """The frame's command in capitals; empty while its line is not complete."""
    data: bytes
    starts: bool
    """Whether the frame begins with this piece."""
    ends: bool
    """Whether the frame ends with this piece."""

    @property
    def is_whole(self) -> bool:
        """Whether the frame lies in this piece from its first to its last byte."""
        return self.starts and self.ends


class Scanner:
    """Divides one direction of a connection into pieces of frames; keeps only an unfinished line."""

    def __init__(self) -> None:
        self._line = b""
        self._verb = b""
        self._left = 0

    @property
    def is_between(self) -> bool:
        """Whether the last frame fed is complete."""
        return not self._line and not self._left

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes and divide them; joined, the pieces are what was fed.

        Raises ValueError where this cannot be NATS.
        """
        pieces = list[Piece]()
        position = 0
        while position < len(data):
            piece = self._payload(data, position) if self._left else self._control(data, position)
            pieces.append(piece)
            position += len(piece.data)
        return pieces

    def _payload(self, data: bytes, position: int) -> Piece:
        part = data[position : position + self._left]
        self._left -= len(part)
        return Piece(self._verb, part, starts=False, ends=not self._left)

    def _control(self, data: bytes, position: int) -> Piece:
        """The rest of a line, and of its payload as much as there is."""
        known = self._line
        # The line's end may itself have been cut in two.
        at = (known[-1:] + data[position:]).find(END) if known else data.find(END, position)
        if at < 0:
            self._line += data[position:]
            if len(self._line) > LONGEST_LINE:
                raise ValueError(f"a line of more than {LONGEST_LINE} bytes: this is no NATS")
            return Piece(b"", data[position:], starts=not known, ends=False)
        end = position + at + len(END) - 1 if known else at + len(END)
        words = (known + data[position:end]).split()
        self._line = b""
        self._verb = words[0].upper() if words else b""
        self._left = _payload_size(self._verb, words)
        whole = end + min(self._left, len(data) - end)
        self._left -= whole - end
        return Piece(self._verb, data[position:whole], starts=not known, ends=not self._left)


def _payload_size(verb: bytes, words: list[bytes]) -> int:
    """Return the bytes that follow the line, the payload's own line end included."""
    if verb not in WITH_PAYLOAD:
        return 0
    return int(words[-1]) + len(END)
