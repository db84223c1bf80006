"""The parser of what the server sends: messages by slicing, everything else by nats-py's parser.

nats-py matches each message against two regular expressions over a growing buffer. Messages are nearly all there is,
and their line has one form: taking them apart by hand halves the cost of receiving (measured, see benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import MAX_CONTROL_LINE_SIZE, Parser

Direct = Callable[[bytes, bytes, bytes, bytes], None]
"""What takes a message at once: subject, reply subject, payload, raw header block (the last three may be empty)."""

_M: Final = ord("M")
_H: Final = ord("H")
_WITH_REPLY: Final = 5
"""Parts of a MSG line that has a reply subject; one more where headers come."""
_LONGEST_LINE: Final = 16 * MAX_CONTROL_LINE_SIZE
"""Bytes without a line's end after which this is no NATS server; the longest line is INFO's."""
_LINE_END: Final = 2


class Receiver(Protocol):
    """The client, as far as the parser knows it."""

    def hand_over(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Take a message. Never raises."""
        ...


class MessageParser(Parser):
    """Hands each message to the client as soon as it is whole."""

    buf: bytearray

    def __init__(self, client: Receiver) -> None:
        self._client = client
        self._rest: list[bytes] = []
        self._have = 0
        self._need = 0
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType] - untyped in nats-py

    def reset(self) -> None:
        """Forget what was begun: a new connection starts."""
        super().reset()
        self._rest = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take the next bytes of the connection. Raises ProtocolError for what no server sends."""
        if self._rest:
            self._rest.append(data)
            self._have += len(data)
            # A large message comes in many pieces: they are joined once, when it is whole.
            if self._have < self._need:
                return
            data = b"".join(self._rest)
        rest: list[bytes] = []
        self._rest = rest
        at, end = 0, len(data)
        self._need = 0
        while at < end:
            if data[at] in {_M, _H}:
                done = self._message(data, at, end)
                if not done:
                    break
                at = done
                continue
            line_end = data.find(b"\r\n", at) + 2
            if line_end < _LINE_END:
                if end - at > _LONGEST_LINE:
                    raise ProtocolError("nats: endless line")
                break
            await self._line(data[at:line_end])
            if self._rest is not rest:
                return  # the connection was reset meanwhile: what is left belongs to the old one
            at = line_end
        if at < end:
            rest.append(data[at:])
            self._have = end - at

    async def _line(self, line: bytes) -> None:
        """Have nats-py's parser take a line that is no message."""
        try:
            await super().parse(line)
        except ProtocolError:
            raise
        except Exception as error:
            # Anything else would end nats-py's read loop for good, without a reconnect.
            raise ProtocolError(f"nats: {error!r} on {line[:80]!r}") from error
        if self.buf:
            raise ProtocolError("nats: unknown protocol")

    def _message(self, data: bytes, at: int, end: int) -> int:
        """Hand over the message that begins here; returns where it ends, 0 if it is not whole yet."""
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return 0
        part = data[at:line_end].split(b" ")
        start = line_end + 2
        try:
            sid, body_end = int(part[2]), start + int(part[-1])
            headed = part[0] == b"HMSG"
            body = start + int(part[-2]) if headed else start
        except (ValueError, IndexError):
            raise ProtocolError("nats: malformed message") from None
        if body_end + 2 > end:
            self._need = body_end + 2 - at
            return 0
        reply = part[3] if len(part) == (_WITH_REPLY + headed) else b""
        self._client.hand_over(sid, part[1], reply, data[body:body_end], data[start:body])
        return body_end + 2
