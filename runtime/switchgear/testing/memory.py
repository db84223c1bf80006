"""The bus in memory: the twin of `bus/` for tests, with nats-server's rules but no process.

`MemoryBroker` is the server, `MemoryBus` one connection to it. Both implementations of `bus.port`
pass the same suite (`tests/conformance`). Time is the event loop's clock, so it is virtual where
that one is (looptime); the order of all that happens follows from the order of the calls and a
seed.

What nats-server 2.15.1 does, measured on the binary for this twin (2026-11-22), and what it keeps
to:

- An append is checked against the newest message under the scope header, whether the scope covers
  the own subject or not; without that header, or with an empty one, under the own subject. A scope
  without a sequence: error 10193.
- Of headers sent twice the first counts; names in other case, or with a blank before the colon, do
  not exist. Blanks before a value are skipped, blanks behind it make it wrong. `007` is 7. Decimal
  digits are taken modulo 2^64, so that 18446744073709551616 passes as 0; anything else is wrong for
  every scope.
- A republished entry keeps the writer's header block and gets Nats-Stream, Nats-Subject,
  Nats-Sequence, Nats-Time-Stamp (RFC 3339, nanoseconds without trailing zeros) and
  Nats-Last-Sequence (of the same subject). A direct get adds the first four too; a read from the
  leader, a consumer and this twin give the block as stored.
- A plain subscriber of a ledger subject sees every append, refused ones too.
- A schedule's message goes when it fires (`Nats-Schedule-Next: purge` on the due message,
  `Nats-Scheduler` names it); one in the past fires within 250 ms, here at once. Arming again
  replaces it.
- An announcement whose TTL ends leaves an empty message (`Nats-Marker-Reason: MaxAge`) with a
  sequence of its own; a purge or a delete through the API leaves none.
- Acks, naks and extensions act on the message, whichever delivery they name: those of a former
  holder as well. What is to be redelivered goes before what is new and passes `max_ack_pending`;
  waiting pulls take turns.

What it leaves out, or does otherwise:

- Deduplication by Nats-Msg-Id except by `topics.publish`, the other Nats-Expected headers, and the
  refusal of batches, rollups, TTLs and schedules on the ledger: a raw header block is looked
  through for the two of rule 1 only. The highest age of progress and topics. Pieces of blobs.
- `$JS.API` requests, permissions, restarts, replicas. Streams are there from the start. Of the
  DISCONNECT event there is the connection's name only.
- A backlog's floor passes what was skipped at once; the server's may stay behind until the next ack.
- A stored message is there for a fetch at once; the server tells its consumers a moment after its
  answer, so that a fetch straight after an append may come too early. A closed connection is gone
  at once; the server may take requests for it a moment longer.
- Two intakes of the timers' stream may overlap in their filters; the server refuses the second one
  (10100).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.bus.losses import lost_name
from switchgear.bus.port import (
    Announcements,
    Blobs,
    Core,
    Documents,
    Ledger,
    Message,
    ServerFacts,
    Subscription,
    Timers,
    Topics,
    Work,
)
from switchgear.contract.subjects import LOSSES
from switchgear.testing.memory_broker import MemoryBroker
from switchgear.testing.memory_documents import MemoryDocuments, MemoryTopics
from switchgear.testing.memory_ledger import MemoryLedger, MemoryWork
from switchgear.testing.memory_link import Link, LoopClock
from switchgear.testing.memory_services import (
    MemoryAnnouncements,
    MemoryBlobs,
    MemoryCore,
    MemoryTimers,
)
from switchgear.testing.memory_stream import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoopClock", "MemoryBroker", "MemoryBus"]


class MemoryBus:
    """One connection to a memory broker (`port.Bus`)."""

    def __init__(self, broker: MemoryBroker, name: str, link: Link | None = None) -> None:
        """Connect as `name`, this connection's instance id; over a `link` of the caller's, if given."""
        self.name = name
        self.link = link or Link(name)
        self.ledger: Ledger = MemoryLedger(broker, self.link)
        self.work: Work = MemoryWork(broker, self.link)
        self.core: Core = MemoryCore(broker, self.link)
        self.announcements: Announcements = MemoryAnnouncements(broker, self.link)
        self.timers: Timers = MemoryTimers(broker, self.link)
        self.blobs: Blobs = MemoryBlobs(broker, self.link)
        self.documents: Documents = MemoryDocuments(broker, self.link)
        self.topics: Topics = MemoryTopics(broker, self.link)
        self._broker = broker

    async def watch_losses(
        self, receive: Callable[[str], None], *, queue: str = ""
    ) -> Subscription:
        """Hear the name of each connection that was closed or crashed."""

        def hear(message: Message) -> None:
            name = lost_name(message.data)
            if name:
                receive(name)

        return await self.core.subscribe(LOSSES, hear, queue=queue)

    async def ensure_streams(self) -> None:
        """Do nothing: a memory broker has all its streams from the start."""
        await self.link.turn()

    async def facts(self) -> ServerFacts:
        """What there is to say of a broker in memory."""
        await self.link.turn()
        return ServerFacts(
            name="memory",
            version="memory",
            address="memory",
            max_payload=MAX_PAYLOAD,
            jetstream=True,
            sync_interval="unknown",
            rtt=timedelta(),
        )

    def on_reconnect(self, heard: Callable[[], None]) -> None:
        """Do nothing: this connection is never lost and found again."""

    async def close(self) -> None:
        """Wait for the answers under way, then leave."""
        await self.link.settle()
        self._broker.leave(self.link)
