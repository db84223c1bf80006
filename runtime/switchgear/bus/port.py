"""What the rest of the runtime asks of a bus: small interfaces over plain data.

Two implement them: `bus/` on nats-py, and `testing/memory.py` in memory. Both pass the same conformance suite.
Above this line nobody knows a client library; below it nobody knows a task's life.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from switchgear.contract.stored import Stored


class Appended(NamedTuple):
    """The entry is stored."""

    sequence: int


class Refused(NamedTuple):
    """The entry is not stored: the scope has moved on, or another append of it is in flight."""

    last: int | None
    """The scope's last sequence, where the broker told it (10071); None at R3 while in flight (10164)."""


class Ledger(Protocol):
    """The stream that holds every transition of every task."""

    def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Awaitable[Appended | Refused]:
        """Store the body if `expect` is the scope's last sequence (0: nothing stored).

        Sends at once, without awaiting, in call order; the awaitable ends with the broker's answer. Without an
        answer the same bytes are sent again (rule 2), until the bus is closed: then OutcomeUnknown.
        Raises Unavailable (SG1301, `retry_after` set) when the stream is full.
        """
        ...

    async def tail(self, scope: str) -> Stored | None:
        """The newest entry by a direct get; `*` may stand for the capability. May be stale in a cluster."""
        ...

    async def leader_tail(self, scope: str) -> Stored | None:
        """The newest entry as the stream's leader has it (coordinators)."""
        ...

    async def entry(self, sequence: int) -> Stored | None:
        """The entry with this sequence, from the leader (coordinators)."""
        ...

    async def history(self, scope: str) -> list[Stored]:
        """All entries of the scope, oldest first, by a consumer confined to it (clients and agents)."""
        ...

    def follow(self, after: int) -> AsyncIterator[list[Stored]]:
        """All entries of the ledger beyond this sequence, in order, in batches, without end (projections).

        An empty batch says: caught up for now.
        """
        ...

    async def last_sequence(self) -> int:
        """The stream's last sequence."""
        ...


class Delivery(Protocol):
    """A message that a consumer handed over. Settle it once; all four verbs are sent without waiting."""

    @property
    def stored(self) -> Stored:
        """The message, and what the broker vouches for."""
        ...

    @property
    def deliveries(self) -> int:
        """How often this consumer has handed it over, from 1; proves nothing after a server restart."""
        ...

    @property
    def ack_subject(self) -> str:
        """Where settling verbs for this delivery go, from whatever connection."""
        ...

    def ack(self) -> None:
        """Done: never again."""
        ...

    def nak(self, delay: timedelta | None = None) -> None:
        """Hand it to somebody again, at once or after the delay."""
        ...

    def in_progress(self) -> None:
        """Extend the lease by the consumer's `ack_wait`."""
        ...

    def term(self) -> None:
        """Never again, though not done."""
        ...


class Pulls(Protocol):
    """Waiting pulls on lanes: whoever ends them has received all that they were sent."""

    async def end(self) -> None:
        """Stop asking. Returns when nothing more can arrive."""
        ...


class Work(Protocol):
    """Durable consumers: lanes that agents pull, intakes that coordinators share."""

    async def ensure_lane(self, capability: str, pool: str, priority: str) -> None:
        """Create the lane's consumer if it is missing (coordinators)."""
        ...

    async def lanes(self) -> list[str]:
        """Names of all lanes' consumers (coordinators)."""
        ...

    async def ensure_intake(
        self, name: str, filters: Iterable[str], *, timers: bool = False
    ) -> None:
        """Create a durable intake on the ledger, or on the timers' stream (coordinators)."""
        ...

    async def fetch(self, lane: str, batch: int) -> list[Delivery]:
        """Up to `batch` messages that are there now; waits for none. Raises NotFound: no such consumer."""
        ...

    def wait(self, lanes: Iterable[str], batch: int, receive: Callable[[Delivery], None]) -> Pulls:
        """Waiting pulls of `batch` on each lane, renewed as they expire, until `end`.

        A lane that gave its batch is not pulled again by this call.
        """
        ...

    def consume(
        self,
        name: str,
        receive: Callable[[Delivery], None],
        *,
        in_flight: int,
        timers: bool = False,
    ) -> Consuming:
        """Everything the intake has, without end: at most `in_flight` deliveries unsettled at a time.

        Resumes within 1 s of a server restart. `receive` must not block; each delivery counts until settled.
        """
        ...


class Consuming(Protocol):
    """A running consumption of an intake."""

    async def end(self) -> None:
        """Stop receiving. What was received and not settled is delivered again, to whoever consumes next."""
        ...


class Core(Protocol):
    """Core messages: at most once, stored nowhere."""

    def publish(self, subject: str, data: bytes) -> None:
        """Send without waiting; lost when nobody listens."""
        ...

    async def request(self, subject: str, data: bytes, *, timeout: timedelta) -> bytes:
        """One answer. Raises Unavailable when nobody listens or nobody answers in time."""
        ...

    async def subscribe(
        self, subject: str, receive: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Hear a subject. Of those with the same `queue` one hears each message. `receive` must not block."""
        ...


class Message(NamedTuple):
    """A core message; `headers` is the raw block, empty where there is none."""

    subject: str
    data: bytes
    reply: str
    headers: bytes


class Subscription(Protocol):
    """Interest in a subject."""

    async def unsubscribe(self) -> None:
        """Hear no more."""
        ...


class Announced(NamedTuple):
    """A change in the registry: an announcement, or (data None) its end by leaving or by TTL."""

    subject: str
    data: bytes | None
    time_ns: int
    """The broker's store time: what freshness is judged by."""
    sequence: int


class Announcements(Protocol):
    """The registry's stream: one message a subject, gone when its TTL ends."""

    async def put(self, subject: str, data: bytes, *, ttl: timedelta) -> None:
        """Announce; gone after the TTL (whole seconds) unless put again."""
        ...

    async def remove(self, subject: str) -> None:
        """Leave: watchers hear of it at once."""
        ...

    async def watch(self, receive: Callable[[Announced], None]) -> Consuming:
        """What is there now, then every change, in order; returns when what was there has been received.

        Recovers by itself within 1 s of a server restart; what was missed meanwhile is received then.
        """
        ...


class Timers(Protocol):
    """Durable timers: at their time the server publishes on the due subject."""

    async def arm(self, timer: str, due: str, at: datetime, data: bytes = b"{}") -> None:
        """One timer a subject: a later one replaces it."""
        ...

    async def wake(self, due: str, data: bytes = b"{}") -> None:
        """Make it due now."""
        ...

    async def armed(self, subject_filter: str) -> list[str]:
        """Subjects of the timers under this filter."""
        ...

    async def disarm(self, timer: str) -> None:
        """Forget the timer; only for ended tasks, never relied upon (rule 11)."""
        ...


class Blobs(Protocol):
    """The object store: payloads above the inline limit, named by SHA-256."""

    async def put(self, data: bytes) -> str:
        """Store; returns the digest. Storing what is there already costs one look."""
        ...

    async def get(self, digest: str) -> bytes:
        """Fetch and verify. Raises NotFound, or ProtocolError SG1109 for other content."""
        ...


class ServerFacts(NamedTuple):
    """What the broker says of itself: read, never assumed."""

    name: str
    version: str
    address: str
    max_payload: int
    jetstream: bool
    sync_interval: str
    """`always`, an interval such as `2m0s`, or `unknown` where it cannot be read."""
    rtt: timedelta


class Bus(Protocol):
    """A connection to the mesh, with all of the above."""

    @property
    def name(self) -> str:
        """This connection's instance id: what its entries name as writer."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The ledger's stream."""
        ...

    @property
    def work(self) -> Work:
        """Lanes and intakes."""
        ...

    @property
    def core(self) -> Core:
        """Core messages."""
        ...

    @property
    def announcements(self) -> Announcements:
        """The registry's stream."""
        ...

    @property
    def timers(self) -> Timers:
        """Durable timers."""
        ...

    @property
    def blobs(self) -> Blobs:
        """The object store."""
        ...

    async def ensure_streams(self) -> None:
        """Create or upgrade the streams (coordinators). Raises ServerUnfit."""
        ...

    async def facts(self) -> ServerFacts:
        """What the broker says of itself, now. Raises Unavailable."""
        ...

    def on_reconnect(self, heard: Callable[[], None]) -> None:
        """Call `heard` after each reconnect: time to read what may have been missed."""
        ...

    async def close(self) -> None:
        """Flush what was published, then leave. Never raises for a dead broker."""
        ...
