"""One connection that appends, acks and pulls without a task, a future or a header dict a message.

Above it are the roles; below it is nats-py, which connects, authenticates, subscribes and answers
pings. This subclass takes over the hot path: frames are written as bytes and flushed once a loop
step, messages go from the parser to a plain function, raw header block and all.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Literal

from nats.aio.client import Client

from benchmarks.bare import wire
from benchmarks.bare.reader import Reader

Handler = Callable[[bytes, bytes, bytes], None]
"""Called with subject, reply subject and payload of a message."""
Variant = Literal["direct", "library", "public"]
"""Own parser on the socket; nats-py's parser and our dispatch; nats-py's public calls only."""


class Link(Client):
    """A nats-py client with a synchronous hot path."""

    def __init__(self, *, direct: bool = False) -> None:
        """`direct` also bypasses the library's parser."""
        super().__init__()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is closed; holds what went wrong in a handler."""
        self._direct = direct
        self._handlers: dict[int, Handler] = {}
        self._frames: list[bytes] = []
        self._tokens = count(1)
        self._unacked: dict[bytes, bytes] = {}
        self._following: dict[bytes, Callable[[int], None]] = {}
        self._answers = b""

    async def open(self, url: str) -> None:
        """Connect and listen for PubAcks."""
        await self.connect(
            url, skip_subject_validation=True, allow_reconnect=False, closed_cb=self._on_closed
        )
        if self._direct:
            Reader.install(self, self.deliver)
        self._answers = self.new_inbox().encode()
        await self.listen(f"{self._answers.decode()}.*", self._on_puback)

    async def listen(self, subject: str, handler: Handler) -> None:
        """Subscribe a plain function; the broker knows of it on return."""
        await self.subscribe(subject, cb=_unused)  # pyright: ignore[reportUnknownMemberType]
        self._handlers[self._sid] = handler
        await self.flush()

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes) -> bool:
        """Hand a message to its function; False if the library subscribed it for itself."""
        handler = self._handlers.get(sid)
        if handler is None:
            return False
        self.guarded(handler, subject, reply, data)
        return True

    def guarded(self, handler: Handler, subject: bytes, reply: bytes, data: bytes) -> None:
        """Call the function; what it raises ends the role."""
        try:
            handler(subject, reply, data)
        except Exception as error:  # noqa: BLE001  # a read loop that sees it would die in silence
            if not self.ended.done():
                self.ended.set_exception(error)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if not self.deliver(sid, subject, reply, data):
            await super()._process_msg(sid, subject, reply, data, headers)

    def append(self, to: bytes, scope: bytes, last: int, body: bytes, delivery: bytes) -> None:
        """Append if `last` is the newest sequence in `scope`; its PubAck acks `delivery`."""
        token = b"%d" % next(self._tokens)
        self._unacked[token] = delivery
        self.send_expecting(to, b"%b.%b" % (self._answers, token), last, scope, body)

    def append_then(
        self, to: bytes, scope: bytes, last: int, body: bytes, then: Callable[[int], None]
    ) -> None:
        """Append likewise; its PubAck calls `then` with the new sequence."""
        token = b"%d" % next(self._tokens)
        self._following[token] = then
        self.send_expecting(to, b"%b.%b" % (self._answers, token), last, scope, body)

    async def pull(self, consumer: str, batch: int, handler: Handler) -> None:
        """Pull without end: at most `batch` messages asked for, more when half of them came."""
        inbox = self.new_inbox()
        ask = f"$JS.API.CONSUMER.MSG.NEXT.{wire.STREAM}.{consumer}".encode()
        wanted = 0

        def request(more: int) -> None:
            nonlocal wanted
            wanted += more
            self.send(ask, inbox, b'{"batch":%d}' % more)

        def on_message(subject: bytes, reply: bytes, data: bytes) -> None:
            nonlocal wanted
            if not reply:
                raise ConnectionError(f"the broker ended the pull on {consumer}")
            wanted -= 1
            if wanted <= batch // 2:
                request(batch - wanted)
            handler(subject, reply, data)

        await self.listen(inbox, on_message)
        request(batch)

    def send(self, subject: bytes, reply: str, body: bytes) -> None:
        """Publish a message without headers."""
        self._emit(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply.encode(), len(body), body))

    def send_expecting(
        self, subject: bytes, reply: bytes, last: int, scope: bytes, body: bytes
    ) -> None:
        """Publish into the ledger if `last` is the newest sequence in `scope`."""
        headers = (
            b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\n"
            b"Nats-Expected-Last-Subject-Sequence-Subject: %b\r\n\r\n" % (last, scope)
        )
        size = len(headers)
        line = b"HPUB %b %b %d %d\r\n" % (subject, reply, size, size + len(body))
        self._emit(b"%b%b%b\r\n" % (line, headers, body))

    def _on_puback(self, subject: bytes, _reply: bytes, data: bytes) -> None:
        answer = wire.decode_ack(data)
        if answer.error is not None:
            raise ConnectionError(f"append refused: {answer.error}")
        token = subject[len(self._answers) + 1 :]
        then = self._following.pop(token, None) if self._following else None
        if then is not None:
            then(answer.seq)
            return
        delivery = self._unacked.pop(token)
        if delivery:
            self.send(delivery, "", b"")

    async def _on_closed(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _emit(self, frame: bytes) -> None:
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush_frames)
        self._frames.append(frame)

    def _flush_frames(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._frames))
        self._frames.clear()


async def _unused(_: object) -> None:
    """Satisfy `subscribe`: `Link.deliver` comes first."""
