"""What the rest of the runtime asks of a bus: small interfaces over plain data.

Two implement them: `bus/` on nats-py, and `testing/memory.py` in memory. Both pass the same conformance suite.
Above this line nobody knows a client library; below it nobody knows a task's life.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Literal, NamedTuple, Protocol

from switchgear.bus.side_streams import (
    Announced,
    Announcements,
    Appended,
    Blobs,
    Consuming,
    Documents,
    Kept,
    Refused,
    StoredBlob,
    Timers,
    Topics,
)
from switchgear.contract.stored import Stored

__all__ = [
    "Announced",
    "Announcements",
    "Appended",
    "Backlog",
    "Blobs",
    "Bus",
    "Consuming",
    "Core",
    "Delivery",
    "Documents",
    "Kept",
    "Ledger",
    "Message",
    "Pulls",
    "Refused",
    "Room",
    "ServerFacts",
    "Source",
    "StoredBlob",
    "Subscription",
    "Timers",
    "Topics",
    "Work",
]


class Room(NamedTuple):
    """How full the ledger is, in bytes."""

    used: int
    limit: int
    """What it may grow to; 0 for no limit."""


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

    def follow(
        self, after: int, *, filters: Iterable[str] = (), bodies: bool = True
    ) -> AsyncIterator[list[Stored]]:
        """All entries of the ledger beyond this sequence, in order, in batches, without end (projections).

        An empty batch says: caught up for now. `filters` (none: all) narrow it to subjects; without `bodies` an
        entry's data is empty, and it costs the broker a fraction.
        """
        ...

    async def last_sequence(self) -> int:
        """The stream's last sequence."""
        ...

    async def first_sequence(self) -> int:
        """The sequence of the oldest entry that is kept; last + 1 of an empty ledger."""
        ...

    async def count(self, subject_filter: str) -> int:
        """How many subjects of the ledger match: of `sg.task.*.*.*.completed`, the tasks that completed."""
        ...

    async def delete(self, sequence: int) -> bool:
        """Delete one entry (the janitor alone, rule 18). False where it was gone."""
        ...

    async def room(self) -> Room:
        """How full the ledger is."""
        ...

    async def enlarge(self, limit: int) -> None:
        """Raise or lower the ledger's limit in bytes; lowering deletes nothing (rule 19)."""
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


Source = Literal["ledger", "timers", "topics"]
"""The stream that an intake reads."""


class Backlog(NamedTuple):
    """What a durable consumer has before it."""

    pending: int
    """Messages that were never handed over."""
    unsettled: int
    """Handed over, and neither acked nor given back for good."""
    floor: int
    """Everything up to this stream sequence is acked."""
    reached: int = 0
    """Nothing beyond this stream sequence was handed over."""


class Work(Protocol):
    """Durable consumers: lanes that agents pull, intakes that coordinators share."""

    async def ensure_lane(
        self, capability: str, pool: str, priority: str, *, start: int | None = None
    ) -> None:
        """Create the lane's consumer if it is missing (coordinators); from sequence `start` on, else from the first."""
        ...

    async def backlog(self, name: str, *, source: Source = "ledger") -> Backlog | None:
        """What the lane or intake of this name has before it; None where there is no such consumer."""
        ...

    async def remove(self, name: str, *, source: Source = "ledger") -> None:
        """Delete the consumer of this name, if there is one (coordinators)."""
        ...

    async def lanes(self) -> list[str]:
        """Names of all lanes' consumers (coordinators)."""
        ...

    async def ensure_intake(
        self,
        name: str,
        filters: Iterable[str],
        *,
        source: Source = "ledger",
        start: int | None = None,
    ) -> None:
        """Create a durable intake (coordinators); a new one begins at sequence `start`, else at the first."""
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
        source: Source = "ledger",
    ) -> Consuming:
        """Everything the intake has, without end: at most `in_flight` deliveries unsettled at a time.

        Resumes within 1 s of a server restart. `receive` must not block; each delivery counts until settled.
        """
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

    async def newest(self, subject: str) -> bytes | None:
        """The newest progress or crash report that was published on this subject, kept for an hour; None for none."""
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

    @property
    def documents(self) -> Documents:
        """Schedules, triggers, leases."""
        ...

    @property
    def topics(self) -> Topics:
        """Durable messages."""
        ...

    async def watch_losses(
        self, receive: Callable[[str], None], *, queue: str = ""
    ) -> Subscription:
        """Hear the name of each connection that the broker saw end, where the broker tells it (rule 7).

        Of those with the same `queue` one hears each. A hint, never proof: the process may be back already.
        """
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
