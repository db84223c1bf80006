"""Publishing into streams: sent at once and in call order, answered through one ack inbox, never left in doubt.

Above it: the ledger, timers, announcements and blobs. Rule 2 of the protocol is kept here: without an answer the
outcome is unknown, so the same bytes are sent again, after 2 s and after a reconnect, until the broker answers or
the bus is closed. A compare-and-set makes the repeat harmless; other messages here may be stored twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from switchgear.bus import frames
from switchgear.bus.asking import Problem, forbidden
from switchgear.bus.port import Appended, Refused
from switchgear.bus.raw import RawClient
from switchgear.errors import (
    OutcomeUnknown,
    ProtocolError,
    ServerUnfit,
    SwitchgearError,
    Unavailable,
)

RESEND_AFTER: Final = 2.0
"""Seconds without an answer after which the same bytes are sent again."""
RETRY_AFTER: Final = 0.1
"""Seconds until a send that nobody took (no leader yet, JetStream starting) is repeated."""
NOBODY_PATIENCE: Final = 10.0
"""Seconds after which an append that was never taken fails: no stream. An election takes 4-8 s (measured)."""
FULL_RETRY: Final = 1.0
"""Seconds that a caller is told to wait when the stream is full."""
WINDOW: Final = 4096
"""Messages without an answer; what is published beyond them waits, in order, for an answer to one."""
WINDOW_BYTES: Final = 32 * 1024 * 1024
"""Bytes without an answer; one message may always go."""

_WRONG_LAST: Final = 10071
_IN_FLIGHT: Final = 10164
_STORE_FAILED: Final = 10077
_TOO_LARGE: Final = 10054
_SAME_IN_FLIGHT: Final = 10158
"""Another message with this id is being stored."""

Outcome = Appended | Refused


class Repeated(Appended):
    """The stream had a message with this Nats-Msg-Id already: ours, if an earlier send of it was stored."""

    __slots__ = ()


class _PubAck(msgspec.Struct, frozen=True, gc=False):
    """What a stream answers to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: Problem | None = None


_decode = msgspec.json.Decoder(_PubAck).decode


class _Sent:
    """A message that was sent, or waits for its turn."""

    __slots__ = ("answers", "command", "future", "nobody_since", "sends", "sent_at", "subject")

    def __init__(self, subject: str, command: bytes, future: asyncio.Future[Outcome]) -> None:
        self.subject = subject
        self.command = command
        self.future = future
        self.sent_at = 0.0
        self.sends = 0
        self.answers = 0
        self.nobody_since = 0.0


class Publisher:
    """All messages of one connection that go into streams."""

    def __init__(self, client: RawClient, inbox: str, *, window: int = WINDOW) -> None:
        """`inbox` is the private prefix that ends in a dot; everything below `<inbox>a.` is used here."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._prefix = f"{inbox}a."
        self._cut = len(self._prefix)
        self._window = window
        self._last = 0
        self._bytes = 0
        # In the order of sending, repeats included: the oldest is always the first.
        self._open: dict[bytes, _Sent] = {}
        self._queue: deque[tuple[bytes, _Sent]] = deque()
        self._later: dict[bytes, asyncio.TimerHandle] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._closed = False
        client.subscribe_direct(f"{self._prefix}*", self._answered)
        client.on_back(self._resend_all)
        client.on_forbidden(self._forbidden)

    def publish(self, subject: str, headers: str, body: bytes) -> asyncio.Future[Outcome]:
        """Send now, without awaiting; the future ends with the stream's answer.

        `headers` is a whole block, ASCII. The future raises Unavailable (`retry_after` set) when the stream is full
        or missing, OutcomeUnknown when the bus is closed before an answer. Cancelling it harms nobody.
        Raises ProtocolError SG1103 when the message is larger than the broker takes, SG1107 for a bad subject.
        """
        size = len(headers) + len(body)
        if size > self._client.max_payload:
            raise ProtocolError(
                f"a message of {size} bytes on {subject}",
                code="SG1103",
                why=f"the broker takes {self._client.max_payload}",
                fix="store large values as blobs",
            )
        # A space or line break would end the command early and let the rest speak to the broker.
        if not subject.isascii() or not subject.isprintable() or " " in subject or not subject:
            raise ProtocolError(f"{subject[:200]!r} cannot be a subject", code="SG1107")
        future: asyncio.Future[Outcome] = self._loop.create_future()
        if self._closed:
            _fail(future, Unavailable("the bus is closed"))
            return future
        self._last = number = self._last + 1
        head = f"HPUB {subject} {self._prefix}{number} {len(headers)} {size}\r\n{headers}"
        sent = _Sent(subject, b"%b%b\r\n" % (head.encode("ascii"), body), future)
        token = b"%d" % number
        if self._queue or not self._fits(sent):
            self._queue.append((token, sent))
        else:
            self._transmit(token, sent)
        return future

    @property
    def unanswered(self) -> int:
        """Messages without an answer, those that wait for their turn included."""
        return len(self._open) + len(self._queue)

    async def settle(self, seconds: float) -> None:
        """Wait until everything is answered, at most this long."""
        waiting = [sent.future for sent in self._open.values() if not sent.future.done()]
        if waiting and self._client.ready:
            await asyncio.wait(waiting, timeout=seconds)

    def close(self) -> None:
        """End what has no answer with OutcomeUnknown; what was never sent with Unavailable."""
        self._closed = True
        self._client.forget_listener(self._resend_all)
        if self._tick is not None:
            self._tick.cancel()
        for handle in self._later.values():
            handle.cancel()
        for sent in self._open.values():
            unknown = OutcomeUnknown(
                f"the answer to an append on {sent.subject} did not come", why="the bus was closed"
            )
            _fail(sent.future, unknown)
        for _, sent in self._queue:
            _fail(sent.future, Unavailable("the bus was closed before the append was sent"))
        self._open.clear()
        self._queue.clear()

    def _fits(self, sent: _Sent) -> bool:
        count = len(self._open)
        return count == 0 or (
            count < self._window and self._bytes + len(sent.command) <= WINDOW_BYTES
        )

    def _transmit(self, token: bytes, sent: _Sent) -> None:
        alone = not self._open
        self._open[token] = sent
        self._bytes += len(sent.command)
        self._write(sent)
        if alone:
            self._client.hurry()
        if self._tick is None:
            self._tick = self._loop.call_later(RESEND_AFTER / 4, self._look)

    def _write(self, sent: _Sent) -> None:
        sent.sent_at = self._loop.time()
        # While the connection is down nothing is written: all of it is sent when it is back.
        if self._client.ready and self._client.send(sent.command):
            sent.sends += 1

    def _done(self, token: bytes) -> _Sent | None:
        sent = self._open.pop(token, None)
        if sent is None:
            return None
        self._bytes -= len(sent.command)
        handle = self._later.pop(token, None) if self._later else None
        if handle is not None:
            handle.cancel()
        while self._queue and self._fits(self._queue[0][1]):
            following = self._queue.popleft()
            # Nobody waits for it any more, and it was never sent.
            if not following[1].future.done():
                self._transmit(*following)
        return sent

    def _answered(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002 - Direct
        token = subject[self._cut :]
        sent = self._open.get(token)
        if sent is None:
            return
        sent.answers += 1
        result: Outcome | SwitchgearError | None = None
        if not headers or frames.status(headers) != frames.NOBODY:
            ack = _decode(data)
            if ack.error is not None:
                result = self._meaning(sent, ack.error)
            else:
                result = Repeated(ack.seq) if ack.duplicate else Appended(ack.seq)
        if result is None:
            self._not_taken(token, sent)
            return
        self._done(token)
        if isinstance(result, SwitchgearError):
            _fail(sent.future, result)
        elif not sent.future.done():
            sent.future.set_result(result)

    def _meaning(self, sent: _Sent, problem: Problem) -> Outcome | SwitchgearError | None:
        """What an error says; None: nothing was decided, send again."""
        match problem.err_code:
            case number if number == _WRONG_LAST:
                digits = problem.description.rpartition(":")[2].strip()
                return Refused(int(digits) if digits.isdigit() else None)
            case number if number == _IN_FLIGHT:
                return Refused(None)
            case number if number == _STORE_FAILED:
                if sent.sends > sent.answers:
                    return None  # an earlier send may be stored: "full" would deny it
                return Unavailable(
                    "the stream is full",
                    why=problem.description,
                    fix="raise the stream's max_bytes, or let the janitor delete finished tasks sooner",
                    retry_after=FULL_RETRY,
                    full=True,
                )
            case number if number == _TOO_LARGE:
                return ProtocolError(
                    f"a message on {sent.subject} is too large",
                    code="SG1103",
                    why=problem.description,
                )
            case number if number == _SAME_IN_FLIGHT or problem.code == frames.NOBODY:
                return None
            case number:
                return ServerUnfit(
                    f"the broker refused a message on {sent.subject}",
                    why=f"{problem.description} (JetStream error {number})",
                )

    def _not_taken(self, token: bytes, sent: _Sent) -> None:
        """Nobody took this send: again soon, but not for ever if no earlier one can have been stored."""
        now = self._loop.time()
        sent.nobody_since = sent.nobody_since or now
        if now - sent.nobody_since > NOBODY_PATIENCE and sent.sends <= sent.answers:
            self._done(token)
            _fail(
                sent.future,
                Unavailable(
                    f"no stream takes {sent.subject}",
                    why="JetStream or the stream is missing",
                    fix="start a coordinator (`switchgear dev`); it creates the streams",
                    retry_after=FULL_RETRY,
                ),
            )
            return
        if token not in self._later:
            self._later[token] = self._loop.call_later(RETRY_AFTER, self._again, token)

    def _again(self, token: bytes) -> None:
        self._later.pop(token, None)
        sent = self._open.pop(token, None)
        if sent is None:
            return
        self._open[token] = sent
        self._write(sent)

    def _look(self) -> None:
        """Send again what has had no answer for too long; forget what nobody waits for."""
        self._tick = None
        due = self._loop.time() - RESEND_AFTER
        for token, sent in list(self._open.items()):
            if sent.sent_at > due:
                break
            if sent.future.done():
                self._done(token)
            elif token not in self._later:
                self._again(token)
        if self._open:
            self._tick = self._loop.call_later(RESEND_AFTER / 4, self._look)

    def _resend_all(self) -> None:
        for token, sent in list(self._open.items()):
            if sent.future.done():
                self._done(token)
            else:
                self._write(sent)

    def _forbidden(self, subject: str) -> None:
        for token, sent in list(self._open.items()):
            if sent.subject.lower() == subject:
                self._done(token)
                _fail(sent.future, forbidden(sent.subject))


def _fail(future: asyncio.Future[Outcome], error: SwitchgearError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: a caller that went away is no fault worth a warning
