"""The ledger and its consumers, as a memory bus offers them (`port.Ledger`, `port.Work`)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from switchgear.bus.port import Room
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.contract.subjects import lane_consumer, lane_filter, parse_lane
from switchgear.errors import NotFound, OutcomeUnknown, Unavailable, UsageError
from switchgear.testing.memory_consumer import Handed, MemoryDelivery, Pull
from switchgear.testing.memory_stream import any_matches, check_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from switchgear.bus.port import Appended, Backlog, Delivery, Refused, Source
    from switchgear.testing.memory_broker import MemoryBroker
    from switchgear.testing.memory_link import Link
    from switchgear.testing.memory_stream import Stream

FOLLOW_BATCH = 256
"""Entries that a projection gets at a time."""


class MemoryLedger:
    """The stream that holds every transition of every task."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Awaitable[Appended | Refused]:
        """Store the body if `expect` is the scope's last sequence; decided now, answered later.

        Raises Unavailable when the stream is full or the bus closed, OutcomeUnknown where the bus
        dies before the answer. At once: ProtocolError SG1103 (too large), SG1107 (bad subject).
        """
        block = header_block(expect_headers(expect, scope))
        check_message(subject, len(block) + len(body))
        if not self._link.alive:
            return self._link.promise(Unavailable)
        try:
            outcome = self._broker.store(subject, block, body)
        except Unavailable as error:
            return self._link.refuse(error)
        return self._link.answer(outcome, OutcomeUnknown)

    async def tail(self, scope: str) -> Stored | None:
        """The newest entry of the scope."""
        await self._link.turn()
        return self._broker.ledger.newest(scope)

    async def leader_tail(self, scope: str) -> Stored | None:
        """The newest entry of the scope."""
        return await self.tail(scope)

    async def entry(self, sequence: int) -> Stored | None:
        """The entry with this sequence."""
        await self._link.turn()
        return self._broker.ledger.get(sequence)

    async def history(self, scope: str) -> list[Stored]:
        """All entries of the scope, oldest first."""
        await self._link.turn()
        return self._broker.ledger.under(scope)

    async def follow(
        self, after: int, *, filters: Iterable[str] = (), bodies: bool = True
    ) -> AsyncIterator[list[Stored]]:
        """All entries beyond this sequence, in batches; an empty one whenever caught up."""
        stream = self._broker.ledger
        wanted = tuple(filters) or (">",)
        told = False
        while True:
            await self._link.turn()
            found = (one for one in stream.beyond(after) if any_matches(wanted, one.subject))
            batch = list(islice(found, FOLLOW_BATCH))
            seen = stream.last_sequence
            after = batch[-1].sequence if batch else max(after, seen)
            if batch or not told:
                told = not batch
                yield batch if bodies else [one._replace(data=b"") for one in batch]
            if not batch and stream.last_sequence == seen:
                waiter = self._link.promise()
                stream.on_growth(waiter)
                await waiter

    async def last_sequence(self) -> int:
        """The stream's last sequence."""
        await self._link.turn()
        return self._broker.ledger.last_sequence

    async def first_sequence(self) -> int:
        """The sequence of the oldest entry; last + 1 of an empty ledger."""
        await self._link.turn()
        return self._broker.ledger.first_sequence

    async def count(self, subject_filter: str) -> int:
        """How many subjects match."""
        await self._link.turn()
        return self._broker.ledger.count(subject_filter)

    async def delete(self, sequence: int) -> bool:
        """Delete one entry: the scope's last sequence falls back where it was the newest."""
        await self._link.turn()
        there = self._broker.ledger.get(sequence) is not None
        self._broker.ledger.remove(sequence)
        return there

    async def room(self) -> Room:
        """How full the ledger is."""
        await self._link.turn()
        return Room(self._broker.ledger.bytes, self._broker.ledger.max_bytes or 0)

    async def enlarge(self, limit: int) -> None:
        """Set the limit in bytes; 0 for none."""
        await self._link.turn()
        self._broker.ledger.max_bytes = limit or None


class MemoryPulls:
    """Waiting pulls (`port.Pulls`), or a consumption without end (`port.Consuming`)."""

    def __init__(self, link: Link, pulls: list[Pull]) -> None:
        self._link = link
        self._pulls = pulls

    async def end(self) -> None:
        """Stop asking; returns when all that was handed over has been received."""
        for waiting in self._pulls:
            waiting.end()
        await self._link.settle()


class MemoryWork:
    """Lanes and intakes."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def ensure_lane(
        self, capability: str, pool: str, priority: str, *, start: int | None = None
    ) -> None:
        """Create the lane's consumer if it is missing."""
        await self._link.turn()
        name = lane_consumer(capability, pool, priority)
        filters = (lane_filter(capability, pool, priority),)
        self._broker.ensure_consumer(self._broker.ledger, name, filters, lane=True, start=start)

    async def backlog(self, name: str, *, source: Source = "ledger") -> Backlog | None:
        """What the consumer has before it; None where there is none."""
        await self._link.turn()
        consumer = self._broker.consumer(self._stream(source), name)
        return None if consumer is None else consumer.backlog

    async def remove(self, name: str, *, source: Source = "ledger") -> None:
        """Delete the consumer; who consumes it waits for the next one of its name."""
        await self._link.turn()
        self._broker.remove_consumer(self._stream(source), name)

    async def lanes(self) -> list[str]:
        """Names of all lanes' consumers."""
        await self._link.turn()
        return [name for name in self._broker.consumer_names() if parse_lane(name)]

    async def ensure_intake(
        self,
        name: str,
        filters: Iterable[str],
        *,
        source: Source = "ledger",
        start: int | None = None,
    ) -> None:
        """Create a durable intake. Raises UsageError for a start on the timers' stream."""
        if source == "timers" and start is not None:
            raise UsageError(
                "an intake of the timers has no start", why="what is acked leaves their stream"
            )
        await self._link.turn()
        self._broker.ensure_consumer(self._stream(source), name, tuple(filters), start=start)

    async def fetch(self, lane: str, batch: int) -> list[Delivery]:
        """Up to `batch` messages that are there now. Raises NotFound: no such consumer."""
        # The turn comes first: a fetch that is cancelled in it has taken nothing.
        await self._link.turn()
        consumer = self._broker.consumer(self._broker.ledger, lane)
        if consumer is None:
            raise NotFound(f"no consumer {lane}", fix="start a coordinator: it creates the lanes")
        taken = [] if self._link.stalled else consumer.take(batch)
        return [self._delivery(handed, _nothing) for handed in taken]

    def wait(
        self, lanes: Iterable[str], batch: int, receive: Callable[[Delivery], None]
    ) -> MemoryPulls:
        """A waiting pull of `batch` on each lane; on a missing lane, from its creation on."""

        def hand_over(handed: Handed) -> None:
            receive(self._delivery(handed, _nothing))

        pulls: list[Pull] = []
        for lane in lanes:
            pulls.append(Pull(self._link, batch, hand_over))
            self._broker.pull(self._broker.ledger, lane, pulls[-1])
        return MemoryPulls(self._link, pulls)

    def consume(
        self,
        name: str,
        receive: Callable[[Delivery], None],
        *,
        in_flight: int,
        source: Source = "ledger",
    ) -> MemoryPulls:
        """Everything the intake has, at most `in_flight` deliveries unsettled at a time."""
        stream = self._stream(source)

        def settled() -> None:
            consumer = self._broker.consumer(stream, name)
            if pull.ended:
                return
            if consumer is None:
                # It waits for the next one of this name.
                pull.wants += 1
                self._broker.pull(stream, name, pull)
            else:
                consumer.renew(pull)

        def hand_over(handed: Handed) -> None:
            delivery = self._delivery(handed, settled)
            if pull.ended:
                # Back at once to whoever consumes next, instead of after `ack_wait`.
                delivery.nak()
            else:
                receive(delivery)

        pull = Pull(self._link, in_flight, hand_over)
        self._broker.pull(stream, name, pull)
        return MemoryPulls(self._link, [pull])

    def _stream(self, source: Source) -> Stream:
        broker = self._broker
        return {"ledger": broker.ledger, "timers": broker.timers, "topics": broker.topics}[source]

    def _delivery(self, handed: Handed, settled: Callable[[], None]) -> Delivery:
        return MemoryDelivery(handed, self._publish, settled)

    def _publish(self, subject: str, data: bytes) -> None:
        if self._link.alive and not self._link.stalled:
            self._broker.publish(subject, data)


def _nothing() -> None:
    """A delivery of a pull that does not count what is unsettled."""
