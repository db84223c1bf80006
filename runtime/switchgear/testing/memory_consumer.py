"""A durable consumer of the memory broker: who waits, what is handed over, and when it comes again.

Rules as in nats-server 2.15 (server/consumer.go): what is to be redelivered goes first, oldest
expiry first, and passes `max_ack_pending`; waiting pulls take turns, one message each; acks, naks
and extensions act on the message, whichever delivery of it they name, so a former holder's are as
good as the present one's.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from switchgear.bus.port import Backlog
from switchgear.testing.memory_stream import Stream, matcher

if TYPE_CHECKING:
    from switchgear.contract.stored import Stored
    from switchgear.testing.memory_link import Link

ACK_PREFIX = "$JS.ACK."
_ACK_TOKENS = 9
_NANOSECONDS = 1_000_000_000


class ConsumerSettings(NamedTuple):
    """What a durable consumer is created with."""

    filters: tuple[str, ...]
    ack_wait: timedelta
    """How long a delivery may stay unsettled before it is handed over again."""
    max_ack_pending: int
    """Unsettled messages at which nothing new is handed over."""
    ack_removes: bool
    """Whether the stream drops what is acked (work queue retention)."""
    start: int = 1
    """The first sequence that it hands over; fixed by whoever creates it."""


class AckSubject(NamedTuple):
    """What a delivery's ack subject says."""

    stream: str
    consumer: str
    sequence: int

    @classmethod
    def parse(cls, subject: str) -> AckSubject | None:
        """The parts, or None where it is no ack subject."""
        tokens = subject.split(".")
        if len(tokens) != _ACK_TOKENS or not tokens[5].isdigit():
            return None
        return cls(tokens[2], tokens[3], int(tokens[5]))


class Handed(NamedTuple):
    """A message as the consumer hands it over."""

    stored: Stored
    deliveries: int
    ack_subject: str


Publish = Callable[[str, bytes], None]
"""Sends a payload to a subject, as the holder's connection does."""


class MemoryDelivery:
    """A message that a consumer handed over: `port.Delivery`. The first settling verb counts."""

    def __init__(self, handed: Handed, publish: Publish, settled: Callable[[], None]) -> None:
        self.stored = handed.stored
        self.deliveries = handed.deliveries
        self.ack_subject = handed.ack_subject
        self._publish = publish
        self._settled: Callable[[], None] | None = settled

    def ack(self) -> None:
        """Done: never again, whoever holds it by now."""
        self._settle(b"+ACK")

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: hand it over again, at once or after `delay`."""
        if delay is None:
            self._settle(b"-NAK")
            return
        nanoseconds = delay // timedelta(microseconds=1) * 1000
        self._settle(b'-NAK {"delay": %d}' % nanoseconds)

    def in_progress(self) -> None:
        """Still at it: `ack_wait` begins anew."""
        if self._settled is not None:
            self._publish(self.ack_subject, b"+WPI")

    def term(self) -> None:
        """Never again, though not done."""
        self._settle(b"+TERM")

    def _settle(self, verb: bytes) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            self._publish(self.ack_subject, verb)
            settled()


class Pull:
    """Somebody's waiting pull on one consumer."""

    def __init__(self, link: Link, batch: int, receive: Callable[[Handed], None]) -> None:
        self.link = link
        self.wants = batch
        """How many more messages it takes."""
        self.ended = False
        self._receive = receive

    @property
    def gone(self) -> bool:
        """Whether nobody waits in it any more; whoever hung asks anew."""
        return self.ended or not self.link.alive or self.link.stalled

    def end(self) -> None:
        """Take nothing more; what was handed to it is still on its way."""
        self.ended = True
        self.wants = 0

    def send(self, handed: Handed) -> None:
        """Hand a message to it: received with the next turn of the loop."""
        self.wants -= 1
        self.link.call(self._receive, handed)


class Consumer:
    """A durable consumer: position, unsettled messages, and the pulls that wait."""

    def __init__(self, name: str, stream: Stream, settings: ConsumerSettings) -> None:
        self.name = name
        self._stream = stream
        self._position = max(0, settings.start - 1)
        self._ahead: deque[int] = deque()
        """Sequences beyond the position that it covers, so that nobody looks through the stream for them."""
        self._handed = 0
        self._deadlines: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._again: list[int] = []
        self._waiting: deque[Pull] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self.configure(settings)
        stream.heard.append(self._heard)
        stream.lost.append(self._lost)

    def configure(self, settings: ConsumerSettings) -> None:
        """Go on with these settings from where it is."""
        self.settings = settings
        self._covers = matcher(settings.filters)
        beyond = self._stream.beyond(self._position)
        self._ahead = deque(one.sequence for one in beyond if self._covers(one.subject))

    @property
    def unsettled(self) -> int:
        """Messages that were handed over and not settled."""
        return len(self._deadlines)

    @property
    def backlog(self) -> Backlog:
        """What is before it; the floor lies directly below the oldest unsettled message."""
        seen = max(self._position, self._stream.last_sequence)
        following = self._ahead[0] if self._ahead else seen + 1
        floor = min(self._deadlines, default=following) - 1
        return Backlog(len(self._ahead), len(self._deadlines), floor, self._position)

    def remove(self) -> list[Pull]:
        """End it; returns the pulls that waited."""
        self._stream.heard.remove(self._heard)
        self._stream.lost.remove(self._lost)
        if self._timer is not None:
            self._timer.cancel()
        waited, self._waiting = list(self._waiting), deque()
        return waited

    def pull(self, waiting: Pull) -> None:
        """Let a pull wait; it takes its turn behind those that wait already."""
        self._waiting = deque(each for each in self._waiting if not each.gone)
        self._waiting.append(waiting)
        self._wake()

    def renew(self, waiting: Pull) -> None:
        """Let a pull take one more message than it asked for so far."""
        waiting.wants += 1
        if waiting not in self._waiting:
            self._waiting.append(waiting)
        self._wake()

    def take(self, batch: int) -> list[Handed]:
        """Up to `batch` messages that nobody else waits for."""
        self._hand_out()
        taken: list[Handed] = []
        while len(taken) < batch and (handed := self._next()) is not None:
            taken.append(handed)
        return taken

    def settle(self, sequence: int, verb: bytes) -> None:
        """Act on an ack verb for the message with this sequence; unknown verbs are ignored."""
        if verb == b"" or verb.startswith((b"+ACK", b"+TERM")):
            self._done(sequence)
        elif sequence not in self._deadlines:
            return
        elif verb.startswith(b"-NAK"):
            self._nak(sequence, verb[len(b"-NAK") :].strip())
        elif verb.startswith(b"+WPI"):
            self._extend(sequence, self.settings.ack_wait.total_seconds())

    def _done(self, sequence: int) -> None:
        if sequence > self._position:
            return
        if sequence in self._again:
            self._again.remove(sequence)
        self._counts.pop(sequence, None)
        if self._deadlines.pop(sequence, None) is None:
            return
        if self.settings.ack_removes:
            self._stream.remove(sequence)
        self._wake()

    def _lost(self, sequence: int) -> None:
        if sequence <= self._position:
            self._done(sequence)
        elif sequence in self._ahead:
            self._ahead.remove(sequence)

    def _nak(self, sequence: int, argument: bytes) -> None:
        # The server reads Go's durations too, such as 5s; nobody here sends them.
        if argument.startswith(b"{"):
            if sequence in self._again:
                self._again.remove(sequence)
            self._extend(sequence, json.loads(argument).get("delay", 0) / _NANOSECONDS)
        elif sequence not in self._again:
            self._again.append(sequence)
            self._wake()

    def _extend(self, sequence: int, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        self._deadlines[sequence] = deadline
        self._expire_at(deadline)

    def _next(self) -> Handed | None:
        """The next message to hand over: an old one first."""
        while self._again:
            stored = self._stream.get(self._again.pop(0))
            if stored is not None:
                return self._hand(stored)
        if len(self._deadlines) >= self.settings.max_ack_pending:
            return None
        if not self._ahead:
            return None
        self._position = self._ahead.popleft()
        stored = self._stream.get(self._position)
        assert stored is not None, "what is lost is not ahead"
        return self._hand(stored)

    def _hand(self, stored: Stored) -> Handed:
        self._handed += 1
        count = self._counts.get(stored.sequence, 0) + 1
        self._counts[stored.sequence] = count
        self._extend(stored.sequence, self.settings.ack_wait.total_seconds())
        place = f"{self._stream.name}.{self.name}.{count}.{stored.sequence}.{self._handed}"
        return Handed(stored, count, f"{ACK_PREFIX}{place}.{stored.time_ns}.0")

    def _heard(self, stored: Stored) -> None:
        if stored.sequence > self._position and self._covers(stored.subject):
            self._ahead.append(stored.sequence)
            self._wake()

    def _wake(self) -> None:
        """Hand out with the next turn of the loop: whoever acts now acts on what it sees."""
        if self._waiting and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        self._hand_out()

    def _hand_out(self) -> None:
        """Give the pulls that wait one message each, in turns, while there are both."""
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.wants <= 0 or waiting.gone:
                self._waiting.popleft()
                continue
            handed = self._next()
            if handed is None:
                return
            self._waiting.rotate(-1)
            waiting.send(handed)

    def _expire_at(self, deadline: float) -> None:
        if self._timer is not None and self._timer.when() <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Queue what was not settled in time, and look again when the next one may be due."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        running = {s: at for s, at in self._deadlines.items() if s not in self._again}
        expired = sorted(sequence for sequence, deadline in running.items() if deadline <= now)
        self._again += expired
        if expired:
            self._wake()
        later = [deadline for deadline in running.values() if deadline > now]
        if later:
            self._expire_at(min(later))
