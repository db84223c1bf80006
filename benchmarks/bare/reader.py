"""A reader that parses whole chunks as they arrive: no stream reader, no regular expressions.

`Link` is above it, the socket below. What `Link` does not want goes on, unchanged and in order, to
the library's protocol that it stands before. It knows neither TLS upgrades nor reconnects.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import Client

Deliver = Callable[[int, bytes, bytes, bytes], bool]
"""Called with subscription id, subject, reply subject and payload; False if it is not wanted."""


class Reader(asyncio.Protocol):
    """Stands between the socket and nats-py."""

    @classmethod
    def install(cls, client: Client, deliver: Deliver) -> None:
        """Take over the client's socket, to which the library has no public way."""
        socket = cast("Any", client)._transport._io_writer.transport  # noqa: SLF001
        socket.set_protocol(cls(deliver, socket.get_protocol()))

    def __init__(self, deliver: Deliver, library: asyncio.Protocol) -> None:
        self._deliver = deliver
        self._library = library
        self._rest = b""
        """The start of a line or message whose end has not arrived."""
        self.eof_received = library.eof_received
        self.connection_lost = library.connection_lost
        self.pause_writing = library.pause_writing
        self.resume_writing = library.resume_writing

    def data_received(self, data: bytes) -> None:
        """Deliver every complete message."""
        chunk = self._rest + data if self._rest else data
        start = 0
        while (eol := chunk.find(b"\r\n", start)) >= 0:
            fields = chunk[start:eol].split(b" ")
            taken, end = False, eol + 2
            if fields[0] in (b"MSG", b"HMSG"):  # subject sid [reply] [header size] size
                end += int(fields[-1]) + 2
                if end > len(chunk):
                    break
                headers = int(fields[-2]) if fields[0] == b"HMSG" else 0
                reply = fields[3] if len(fields) == (6 if headers else 5) else b""
                payload = chunk[eol + 2 + headers : end - 2]
                taken = self._deliver(int(fields[2]), fields[1], reply, payload)
            if not taken:
                self._library.data_received(chunk[start:end])
            start = end
        self._rest = chunk[start:]
