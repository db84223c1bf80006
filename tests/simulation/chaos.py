"""A broker in memory that misbehaves: everything that a network, a server and a process may do to a mesh.

Connections keep their order, as TCP does; different ones overtake each other. What is decided is drawn from one
seed, so that a run can be repeated.
"""

# Faults act on the broker's insides.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

from switchgear.bus.port import Appended, Delivery, Refused
from switchgear.clock import Clock
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.errors import OutcomeUnknown, Unavailable
from switchgear.testing.memory import MemoryBroker, MemoryBus
from switchgear.testing.memory_consumer import Consumer, Handed, MemoryDelivery
from switchgear.testing.memory_core import Interests
from switchgear.testing.memory_ledger import MemoryLedger, MemoryWork
from switchgear.testing.memory_link import Link
from switchgear.testing.memory_services import MemoryCore
from switchgear.testing.memory_stream import Stream, check_message

RESEND = 1.0
"""Seconds after which an append without an answer is sent again, the same bytes."""
FORGOTTEN = 1.0
"""Seconds of acks that a killed server forgets."""

process: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
"""Name of the simulated process that runs."""


class Skewed:
    """A process' own clock, which may jump."""

    def __init__(self, true: Clock) -> None:
        self._true = true
        self.offset = timedelta()

    def now(self) -> datetime:
        """What this process takes for the time of day."""
        return self._true.now() + self.offset


class Wire:
    """One direction of a connection: keeps the order, takes its time, and can be held up."""

    def __init__(self, link: Link, random: Random, context: contextvars.Context | None) -> None:
        self.slow = 0.0
        """Seconds that a message takes at most."""
        self.held = False
        self._link = link
        self._random = random
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, Callable[..., object], tuple[Any, ...]]] = deque()
        self._pumping = False

    def send(self, act: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
        """Let this happen when the message has arrived, unless the connection has died by then."""
        at = self._loop.time() + self._random.random() * self.slow if self.slow else 0.0
        self._waiting.append((at, act, args))
        if not self._pumping:
            self.pump()

    def pump(self) -> None:
        """Look at the next message when it may have arrived."""
        if self._pumping or self.held or not self._waiting:
            return
        self._pumping = True
        at = self._waiting[0][0]
        if at <= self._loop.time():
            self._loop.call_soon(self._arrive, context=self._context)
        else:
            self._loop.call_at(at, self._arrive, context=self._context)

    def _arrive(self) -> None:
        self._pumping = False
        if not self.held and self._waiting:
            _, act, args = self._waiting.popleft()
            if self._link.alive:
                act(*args)
        if self._waiting:
            self.pump()


class ChaosLink(Link):
    """A connection over two wires."""

    def __init__(self, name: str, random: Random) -> None:
        super().__init__(name)
        self.context = contextvars.copy_context()
        self.context.run(process.set, name)
        self._down = Wire(self, random, self.context)
        self._up = Wire(self, random, None)

    def call(self, callback: Callable[..., None], *args: Any) -> None:
        """To the process, in its own context."""
        self._down.send(callback, args)

    def up(self, act: Callable[..., object], *args: Any) -> None:
        """To the broker; nothing of a process that has died meanwhile."""
        self._up.send(act, args)

    def slow(self, seconds: float) -> None:
        """Let each message take up to so long."""
        self._up.slow = self._down.slow = seconds

    def hold(self) -> None:
        """Let nothing through, either way."""
        self._up.held = self._down.held = True

    def heal(self) -> None:
        """Let everything through that was held up, and what comes at once."""
        for wire in (self._up, self._down):
            wire.held, wire.slow = False, 0.0
            wire.pump()


class Troubles:
    """What goes wrong from now on; the world's faults change it."""

    def __init__(self, random: Random, count: Callable[[str], None]) -> None:
        self.random = random
        self.count = count
        self.lost_answers = 0
        """How many of the next appends are stored and never answered."""
        self.in_flight = 0
        """How many of the next appends are refused without a word why (10164)."""
        self.lost_acks = 0
        self.lost_live = 0.0
        """Share of core messages that get lost."""
        self.stale_reads = 0

    def take(self, what: str) -> bool:
        """Whether the next one of these goes wrong."""
        left: int = getattr(self, what)
        if left <= 0:
            return False
        setattr(self, what, left - 1)
        self.count(what)
        return True


class ChaosLedger(MemoryLedger):
    """A ledger whose answers get lost, and whose direct reads may be stale."""

    def __init__(self, broker: MemoryBroker, link: ChaosLink, troubles: Troubles) -> None:
        super().__init__(broker, link)
        self._chaos = link
        self._troubles = troubles

    def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Awaitable[Appended | Refused]:
        """As the real bus: sent at once, the same bytes again without an answer (rule 2)."""
        link = self._chaos
        headers = header_block(expect_headers(expect, scope))
        check_message(subject, len(headers) + len(body))
        if not link.alive:
            return link.promise(Unavailable)
        answer = link.promise(OutcomeUnknown)

        def arrive() -> None:
            if self._troubles.take("in_flight"):
                link.call(link.complete, answer, Refused(None))
                return
            try:
                outcome = self._broker.store(subject, headers, body)
            except Unavailable as error:
                link.call(link.fail, answer, error)
                return
            if self._troubles.take("lost_answers"):
                asyncio.get_running_loop().call_later(RESEND, again)
            else:
                link.call(link.complete, answer, outcome)

        def again() -> None:
            if not answer.done():
                link.up(arrive)

        link.up(arrive)
        return answer

    async def tail(self, scope: str) -> Stored | None:
        """A direct get; a follower may answer that lags (R3)."""
        found = await super().tail(scope)
        if found is not None and self._troubles.take("stale_reads"):
            older = [one for one in self._broker.ledger.under(scope) if one is not found]
            return older[-1] if older else None
        return found


class ChaosWork(MemoryWork):
    """Consumers whose acks take time, or get lost."""

    def __init__(self, broker: MemoryBroker, link: ChaosLink, troubles: Troubles) -> None:
        super().__init__(broker, link)
        self._chaos = link
        self._troubles = troubles

    def _delivery(self, handed: Handed, settled: Callable[[], None]) -> Delivery:
        return MemoryDelivery(handed, self._settle, settled)

    def _settle(self, subject: str, data: bytes) -> None:
        if self._troubles.take("lost_acks"):
            return
        self._chaos.up(self._broker.publish, subject, data)


class ChaosCore(MemoryCore):
    """Core messages that take time."""

    def publish(self, subject: str, data: bytes) -> None:
        """Send."""
        link = self._link
        assert isinstance(link, ChaosLink)
        link.up(self._broker.publish, subject, data)


class ChaosInterests(Interests):
    """Loses core messages: nobody acknowledges them."""

    def __init__(self, random: Random, troubles: Troubles) -> None:
        super().__init__(random)
        self._troubles = troubles

    def send(self, message: Any) -> int:
        """Send, or not."""
        trouble = self._troubles
        droppable = message.subject.startswith(
            ("sg.live.", "sg.cancel.", "sg.control.", "sg.broker.")
        )
        if droppable and trouble.lost_live and trouble.random.random() < trouble.lost_live:
            trouble.count("lost_live")
            return 0
        return super().send(message)


class ChaosBroker(MemoryBroker):
    """The broker, with what can be done to it."""

    def __init__(self, clock: Clock, random: Random, troubles: Troubles, **settings: Any) -> None:
        super().__init__(clock=clock, seed=0, **settings)
        self.troubles = troubles
        self.interests = ChaosInterests(random, troubles)
        self.acked: deque[tuple[float, Consumer, int]] = deque(maxlen=200)
        """When, whose, which: for a server that forgets."""

    def _acknowledge(self, subject: str, verb: bytes, reply: str) -> int:
        tokens = subject.split(".")
        if verb.startswith(b"+ACK") and len(tokens) > 5 and tokens[5].isdigit():
            consumer = self._consumers.get((tokens[2], tokens[3]))
            if consumer is not None:
                now = asyncio.get_running_loop().time()
                self.acked.append((now, consumer, int(tokens[5])))
        return super()._acknowledge(subject, verb, reply)

    def redeliver(self) -> bool:
        """Hand something unsettled over again, though its lease has not ended."""
        held = [
            (consumer, sequence)
            for consumer in self._consumers.values()
            for sequence in consumer._deadlines
        ]
        if not held:
            return False
        consumer, sequence = self.troubles.random.choice(held)
        consumer._nak(sequence, b"")
        return True

    def restart(self) -> None:
        """As after kill -9: deliveries count from 1 again, and what was just acked comes again (measured)."""
        now = asyncio.get_running_loop().time()
        for consumer in self._consumers.values():
            consumer._counts.clear()
            for sequence in list(consumer._deadlines):
                consumer._nak(sequence, b"")
        for at, consumer, sequence in self.acked:
            there = consumer._stream.get(sequence) is not None
            if now - at <= FORGOTTEN and there and sequence not in consumer._deadlines:
                consumer._extend(sequence, consumer.settings.ack_wait.total_seconds())
                consumer._nak(sequence, b"")
        self.acked.clear()

    def fire_early(self) -> bool:
        """A timer comes before its time, and again at it."""
        return self._fire_one(also_later=True)

    def _fire_one(self, *, also_later: bool) -> bool:
        armed = [one for one in self._running if one.startswith("sg.timer.")]
        if not armed:
            return False
        timer = self.troubles.random.choice(armed)
        schedule = self.timers.get(self.timers.last_of(timer))
        if schedule is None:
            return False
        due = "sg.due." + timer.removeprefix("sg.timer.")
        self._store(self.timers, due, header_block({}), schedule.data)
        if not also_later:
            self.disarm(timer)
        return True

    def forget_lane(self) -> bool:
        """A lane's consumer is lost."""
        lanes = [name for name in self.consumer_names() if name.startswith("lane=")]
        if not lanes:
            return False
        self.remove_consumer(self.ledger, self.troubles.random.choice(lanes))
        return True


class ChaosBus(MemoryBus):
    """A connection with all that may befall it."""

    def __init__(self, broker: ChaosBroker, name: str, random: Random) -> None:
        link = ChaosLink(name, random)
        super().__init__(broker, name, link)
        self.link: ChaosLink = link
        self.ledger = ChaosLedger(broker, link, broker.troubles)
        self.work = ChaosWork(broker, link, broker.troubles)
        self.core = ChaosCore(broker, link)
        self._reconnected: list[Callable[[], None]] = []

    def on_reconnect(self, heard: Callable[[], None]) -> None:
        """Call `heard` after each restart of the broker."""
        self._reconnected.append(heard)

    def reconnect(self) -> None:
        """The broker is back."""
        for heard in self._reconnected:
            self.link.call(heard)


def entries_of(stream: Stream) -> list[Stored]:
    """Everything that a stream has, in order."""
    return list(stream.beyond(0))
