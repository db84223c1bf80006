"""The state of a broker in memory: streams, consumers, timers, registry, core messages, blobs.

Buses (`memory.MemoryBus`) are its connections. It decides at once and synchronously, in the order
of the calls; what follows from a decision reaches its receivers with later turns of the event loop,
in the order of the decisions.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

from switchgear.bus.losses import loss_event
from switchgear.bus.port import Appended, Message, Refused
from switchgear.contract import limits
from switchgear.contract.stored import EXPECTED, Stored, header_block
from switchgear.contract.subjects import (
    ANNOUNCE_SUBJECTS,
    CONFIG_SUBJECTS,
    CRASH_SUBJECTS,
    DUE_SUBJECTS,
    LEDGER_SUBJECTS,
    LIVE_PREFIX,
    LOSSES,
    PROGRESS_SUBJECTS,
    TIMER_SUBJECTS,
    TOPIC_SUBJECTS,
)
from switchgear.errors import UsageError
from switchgear.testing.memory_consumer import (
    ACK_PREFIX,
    AckSubject,
    Consumer,
    ConsumerSettings,
    Pull,
)
from switchgear.testing.memory_core import Interests
from switchgear.testing.memory_link import Link, LoopClock
from switchgear.testing.memory_stream import (
    MESSAGE_ID,
    Stream,
    matcher,
    timestamp,
    with_headers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchgear.clock import Clock

Args = TypeVarTuple("Args")

MAX_ACK_PENDING = 5000
"""Deliveries of one consumer that may be unsettled, over all who share it; as in `bus/`."""
MARKER_TTL = timedelta(seconds=60)
"""How long the mark of an announcement that ended, or a removed document, is kept."""
DUPLICATES = timedelta(minutes=2)
"""How long a topic's message with the same id is a repeat."""


class Linked(Protocol):
    """A bus, as the broker sees it."""

    @property
    def link(self) -> Link:
        """Its connection."""
        ...


class MemoryBroker:
    """One broker for any number of memory buses, which share its ledger, lanes and registry."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        lane_ack_wait: timedelta = limits.LANE_ACK_WAIT,
        intake_ack_wait: timedelta = limits.INTAKE_ACK_WAIT,
        max_ack_pending: int = MAX_ACK_PENDING,
        ledger_max_bytes: int | None = None,
        topics_max_bytes: int | None = None,
    ) -> None:
        """Create an empty broker with all its streams.

        `clock` gives store times and when timers are due; without one the time of day runs with the
        event loop's clock. `seed` decides who of a queue group gets a message.
        `max_ack_pending` bounds what a lane or an intake has handed out and nobody settled. Above
        `ledger_max_bytes` the ledger is full (None: never), and so are the topics.
        """
        self.clock = clock or LoopClock()
        self.ledger = Stream("SG_LEDGER", self.clock, max_bytes=ledger_max_bytes)
        self.timers = Stream("SG_TIMERS", self.clock)
        self.registry = Stream("SG_REGISTRY", self.clock, newest_only=True)
        self.progress = Stream("SG_PROGRESS", self.clock, newest_only=True)
        self.config = Stream("SG_CONFIG", self.clock, newest_only=True)
        self.topics = Stream(
            "SG_TOPICS", self.clock, max_bytes=topics_max_bytes, remembers_ids=DUPLICATES
        )
        self.interests = Interests(Random(seed))  # noqa: S311 - repeatable on purpose
        self.blobs: dict[str, bytes] = {}
        self.descriptions = Stream("OBJ_SG_BLOBS", self.clock, newest_only=True)
        self.lane_ack_wait = lane_ack_wait
        self.intake_ack_wait = intake_ack_wait
        self._max_ack_pending = max_ack_pending
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._early: dict[tuple[str, str], list[Pull]] = {}
        self._running: dict[str, asyncio.TimerHandle] = {}
        captured = (
            (LEDGER_SUBJECTS, self.ledger),
            (TIMER_SUBJECTS, self.timers),
            (DUE_SUBJECTS, self.timers),
            (ANNOUNCE_SUBJECTS, self.registry),
            (PROGRESS_SUBJECTS, self.progress),
            (CRASH_SUBJECTS, self.progress),
            (CONFIG_SUBJECTS, self.config),
            (TOPIC_SUBJECTS, self.topics),
        )
        self._captured = [(matcher((subjects,)), stream) for subjects, stream in captured]

    def leave(self, link: Link) -> None:
        """End a connection: its interests vanish, what it holds stays unsettled till `ack_wait`.

        The others hear of it, as by the server's DISCONNECT event.
        """
        if not link.alive:
            return
        link.drop()
        self.interests.drop(link)
        self.interests.send(Message(LOSSES, loss_event(link.name), "", b""))

    def crash(self, bus: Linked) -> None:
        """Let a bus die at once, as a killed process does.

        Nothing that was on its way to it arrives, and what it still sends goes nowhere.
        """
        self.leave(bus.link)

    def store(self, subject: str, headers: bytes, data: bytes) -> Appended | Refused:
        """Append as a raw NATS client can: the header block as it is, under the server's own check.

        Raises UsageError for a subject outside every stream or a scope without sequence,
        Unavailable when full.
        """
        stream = self._stream_of(subject)
        if stream is None:
            raise UsageError(f"no stream holds {subject}", fix="use a subject of the protocol")
        self.interests.send(Message(subject, data, "", headers))
        return self._store(stream, subject, headers, data)

    def publish(self, subject: str, data: bytes, *, reply: str = "") -> int:
        """Send a core message; returns how many get it, counting a stream that stores it."""
        if subject.startswith(ACK_PREFIX):
            return self._acknowledge(subject, data, reply)
        heard = self.interests.send(Message(subject, data, reply, b""))
        stream = self._stream_of(subject)
        if stream is None:
            return heard
        self._store(stream, subject, b"", data)
        return heard + 1

    def ensure_consumer(
        self,
        stream: Stream,
        name: str,
        filters: tuple[str, ...],
        *,
        lane: bool = False,
        start: int | None = None,
    ) -> None:
        """Create a durable consumer from `start` (None: the first) on, or give it these filters."""
        settings = ConsumerSettings(
            filters=filters,
            ack_wait=self.lane_ack_wait if lane else self.intake_ack_wait,
            max_ack_pending=self._max_ack_pending,
            ack_removes=stream is self.timers,
            start=start or 1,
        )
        key = (stream.name, name)
        if key in self._consumers:
            self._consumers[key].configure(settings)
            return
        self._consumers[key] = Consumer(name, stream, settings)
        for waiting in self._early.pop(key, []):
            self._consumers[key].pull(waiting)

    def consumer(self, stream: Stream, name: str) -> Consumer | None:
        """The durable consumer of this name."""
        return self._consumers.get((stream.name, name))

    def remove_consumer(self, stream: Stream, name: str) -> None:
        """Delete a durable consumer; pulls that wait on it wait for the next one of its name."""
        consumer = self._consumers.pop((stream.name, name), None)
        if consumer is not None:
            for waiting in consumer.remove():
                self.pull(stream, name, waiting)

    def consumer_names(self) -> list[str]:
        """Names of all consumers of the ledger."""
        return [name for stream, name in self._consumers if stream == self.ledger.name]

    def pull(self, stream: Stream, name: str, waiting: Pull) -> None:
        """Let a pull wait on a consumer, from its creation on if there is none yet."""
        consumer = self.consumer(stream, name)
        if consumer is None:
            early = self._early.get((stream.name, name), [])
            still = [each for each in early if not each.gone and each is not waiting]
            self._early[stream.name, name] = [*still, waiting]
        else:
            consumer.pull(waiting)

    def arm(self, timer: str, due: str, at: datetime, data: bytes) -> None:
        """Store a schedule, in place of the one that the subject holds."""
        self.disarm(timer)
        headers = {
            "Nats-Schedule": f"@at {at.isoformat().replace('+00:00', 'Z')}",
            "Nats-Schedule-Target": due,
        }
        self._store(self.timers, timer, header_block(headers), data)
        self._run(timer, due, at)

    def disarm(self, timer: str) -> None:
        """Delete a schedule."""
        self._cancel(timer)
        self.timers.purge(timer)

    def announce(self, subject: str, data: bytes, ttl: timedelta) -> None:
        """Store an announcement, which ends after `ttl` (whole seconds, rounded up)."""
        self._cancel(subject)
        seconds = max(1, -(-ttl // timedelta(seconds=1)))
        headers = header_block({"Nats-TTL": f"{seconds}s"})
        self._store(self.registry, subject, headers, data)
        self._later(subject, timedelta(seconds=seconds), self._end_announcement, subject, "MaxAge")

    def withdraw(self, subject: str) -> None:
        """End an announcement now; the mark is left even where there was none."""
        self._end_announcement(subject, "Remove")

    def _end_announcement(self, subject: str, reason: str) -> None:
        """Leave a mark, empty as the server's own marks are."""
        self._cancel(subject)
        seconds = MARKER_TTL // timedelta(seconds=1)
        headers = {"Nats-Marker-Reason": reason, "Nats-TTL": f"{seconds}s", "Nats-Rollup": "sub"}
        self._store(self.registry, subject, header_block(headers), b"")
        self._later(subject, MARKER_TTL, self._forget, self.registry, subject)

    def keep(self, subject: str, data: bytes, expect: int | None) -> Appended | Refused:
        """Store a document, or without data the mark of its removal, which ends by itself."""
        newest = self.config.newest(subject)
        if expect == 0 and newest is not None and not newest.data:
            expect = newest.sequence
        headers = {} if expect is None else {EXPECTED: str(expect)}
        if not data:
            headers |= {
                "Nats-Marker-Reason": "Remove",
                "Nats-TTL": f"{MARKER_TTL // timedelta(seconds=1)}s",
            }
        outcome = self.store(subject, header_block(headers), data)
        if isinstance(outcome, Appended):
            self._cancel(subject)
            if not data:
                self._later(subject, MARKER_TTL, self._forget, self.config, subject)
        return outcome

    def tell(self, subject: str, data: bytes, name: str, ttl: timedelta | None) -> bool:
        """Store a topic's message, which ends after `ttl`; False: one of this name is there.

        Raises Unavailable when full.
        """
        headers = {MESSAGE_ID: name}
        if ttl is not None:
            ttl = timedelta(seconds=max(1, -(-ttl // timedelta(seconds=1))))
            headers["Nats-TTL"] = f"{ttl // timedelta(seconds=1)}s"
        block = header_block(headers)
        if self.topics.is_repeat(block):
            self.interests.send(Message(subject, data, "", block))
            return False
        outcome = self.store(subject, block, data)
        if ttl is not None and isinstance(outcome, Appended):
            loop = asyncio.get_running_loop()
            loop.call_later(ttl.total_seconds(), self.topics.remove, outcome.sequence)
        return True

    def _forget(self, stream: Stream, subject: str) -> None:
        self._running.pop(subject, None)
        stream.purge(subject)

    def _later(
        self,
        subject: str,
        wait: timedelta,
        callback: Callable[[*Args], None],
        *args: *Args,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._running[subject] = loop.call_later(wait.total_seconds(), callback, *args)

    def _cancel(self, subject: str) -> None:
        running = self._running.pop(subject, None)
        if running is not None:
            running.cancel()

    def _run(self, timer: str, due: str, at: datetime) -> None:
        """Fire the timer at its time, and never before, whatever the loop's clock rounds to."""
        wait = max(timedelta(), at - self.clock.now())
        self._running[timer] = asyncio.get_running_loop().call_later(
            wait.total_seconds(), self._fire, timer, due, at
        )

    def _fire(self, timer: str, due: str, at: datetime) -> None:
        if self.clock.now() < at:
            self._run(timer, due, at)
            return
        schedule = self.timers.get(self.timers.last_of(timer))
        self.disarm(timer)
        if schedule is not None:
            headers = {"Nats-Scheduler": timer, "Nats-Schedule-Next": "purge"}
            self._store(self.timers, due, header_block(headers), schedule.data)

    def _store(
        self, stream: Stream, subject: str, headers: bytes, data: bytes
    ) -> Appended | Refused:
        refused = stream.check(subject, headers)
        if refused is not None:
            return refused
        before = stream.last_of(subject)
        stored = stream.append(subject, headers, data)
        if stream is self.ledger:
            self._republish(stored, before)
        return Appended(stored.sequence)

    def _republish(self, stored: Stored, before: int) -> None:
        """Send a stored entry to who watches, with the server's headers behind the writer's."""
        added = (
            ("Nats-Stream", self.ledger.name),
            ("Nats-Subject", stored.subject),
            ("Nats-Sequence", str(stored.sequence)),
            ("Nats-Time-Stamp", timestamp(stored.time_ns)),
            ("Nats-Last-Sequence", str(before)),
        )
        subject = LIVE_PREFIX + stored.subject.removeprefix("sg.task.")
        headers = with_headers(stored.headers, added)
        self.interests.send(Message(subject, stored.data, "", headers))

    def _acknowledge(self, subject: str, verb: bytes, reply: str) -> int:
        place = AckSubject.parse(subject)
        consumer = place and self._consumers.get((place.stream, place.consumer))
        if place is None or consumer is None:
            return 0
        consumer.settle(place.sequence, verb)
        if reply:
            self.publish(reply, b"")
        return 1

    def _stream_of(self, subject: str) -> Stream | None:
        for covers, stream in self._captured:
            if covers(subject):
                return stream
        return None
