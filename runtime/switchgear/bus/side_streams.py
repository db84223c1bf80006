"""The streams beside the ledger: registry, timers, documents, topics, blobs; and what an append is answered with.

Part of `bus.port`, which hands these names on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

REFRESH_AFTER: Final = timedelta(hours=12)
"""Age after which a writer stores its blob again, so that the janitor does not take it (rule 22)."""


class Appended(NamedTuple):
    """The entry is stored."""

    sequence: int


class Refused(NamedTuple):
    """The entry is not stored: the scope has moved on, or another append of it is in flight."""

    last: int | None
    """The scope's last sequence, where the broker told it (10071); None at R3 while in flight (10164)."""


class Consuming(Protocol):
    """A running consumption of an intake."""

    async def end(self) -> None:
        """Stop receiving. What was received and not settled is delivered again, to whoever consumes next."""
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
        """What is there now, then what changes, in order; returns when what was there has been received.

        Of changes of one subject that follow each other closely only the newest may come. Recovers by itself within
        1 s of a server restart; what was missed meanwhile is received then.
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


class Kept(NamedTuple):
    """A document as it stands, or (data None) its removal."""

    subject: str
    data: bytes | None
    sequence: int
    time_ns: int
    """The broker's store time."""


class Documents(Protocol):
    """Small documents by subject under `sg.config.`: schedules, triggers, leases. The newest one counts."""

    async def get(self, subject: str) -> Kept | None:
        """The document, from the stream's leader; None where there is none or it was removed."""
        ...

    async def put(
        self, subject: str, data: bytes, *, expect: int | None = None
    ) -> Appended | Refused:
        """Store it if `expect` is the sequence of the subject's newest message (0: none or removed; None: whatever).

        Raises UsageError for empty data, Unavailable.
        """
        ...

    async def remove(self, subject: str, *, expect: int | None = None) -> Appended | Refused:
        """Remove it under the same condition; what is not there is removed all the same."""
        ...

    async def list(self, subject_filter: str) -> list[Kept]:
        """All documents under this filter, without removed ones."""
        ...

    async def watch(self, subject_filter: str, receive: Callable[[Kept], None]) -> Consuming:
        """What is there now, then what changes, in order; returns when what was there has been received.

        Of changes of one subject that follow each other closely only the newest may come. Recovers by itself within
        1 s of a server restart; what was missed meanwhile is received then.
        """
        ...


class Topics(Protocol):
    """Durable messages under `sg.topic.`: kept until all who are registered for them have had them."""

    async def publish(
        self, subject: str, data: bytes, *, id: str, ttl: timedelta | None = None
    ) -> bool:
        """Store a message; who subscribes the subject hears it as well. False: one with this id was there already.

        An id is remembered for 2 minutes at least. `ttl` (whole seconds): gone after that. Raises Unavailable
        (SG1301, `retry_after` set) when the stream is full.
        """
        ...


class StoredBlob(NamedTuple):
    """A blob as its description tells of it."""

    digest: str
    sequence: int
    """Of the description: another one as soon as the blob is stored again."""
    time_ns: int
    """The broker's time of the last put."""

    @property
    def time(self) -> datetime:
        """When it was last put, by the broker's clock."""
        return datetime.fromtimestamp(self.time_ns / 1e9, UTC)


class Blobs(Protocol):
    """The object store: payloads above the inline limit, named by SHA-256."""

    async def put(self, data: bytes) -> str:
        """Store; returns the digest. What is there already is stored again only if it is older than REFRESH_AFTER."""
        ...

    async def get(self, digest: str) -> bytes:
        """Fetch and verify. Raises NotFound, or ProtocolError SG1109 for other content."""
        ...

    async def list(self, after: int = 0) -> list[StoredBlob]:
        """Blobs whose descriptions lie beyond this sequence, those whose last put is oldest first.

        A page of a few hundred; empty at the end. The next page is beyond the sequence of this one's last.
        """
        ...

    async def remove(self, digest: str, *, expect: int) -> bool:
        """Delete the blob if `expect` is still its description's sequence (the janitor alone, rule 22).

        False where it was stored again, or is gone. The room of its pieces is free after the next `tidy`.
        """
        ...

    async def tidy(self, before: datetime) -> int:
        """Delete pieces stored before this time that belong to no blob: of removed ones, of puts that were cut short.

        Returns how many pieces went. A put that began before that time and still runs would lose its pieces.
        """
        ...
