"""Core messages, registry, timers and blobs, as a memory bus offers them."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from switchgear import ids
from switchgear.bus.port import Announced, Message, StoredBlob
from switchgear.bus.side_streams import REFRESH_AFTER
from switchgear.contract import limits
from switchgear.contract.stored import header_block
from switchgear.errors import NotFound, ProtocolError, Unavailable, UsageError
from switchgear.testing.memory_core import Interest
from switchgear.testing.memory_watch import MemoryWatch, begin_watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from switchgear.contract.stored import Stored
    from switchgear.testing.memory_broker import MemoryBroker
    from switchgear.testing.memory_link import Link

PAGE = 500
"""Blobs that `list` tells of at a time; as in `bus/`."""


class MemoryCore:
    """Core messages (`port.Core`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    def publish(self, subject: str, data: bytes) -> None:
        """Send; whoever listens gets it, and ack subjects act as with a real broker."""
        if self._link.alive:
            self._broker.publish(subject, data)

    async def request(self, subject: str, data: bytes, *, timeout: timedelta) -> bytes:
        """One answer. Raises Unavailable when nobody listens or nobody answers in time."""
        await self._link.turn()
        answer: asyncio.Future[bytes] = self._link.promise()
        inbox = self._broker.interests.inbox()
        interest = Interest(self._link, inbox, lambda reply: _first(answer, reply), "")
        self._broker.interests.add(interest)
        try:
            if self._broker.publish(subject, data, reply=inbox) == 0:
                raise Unavailable(f"nobody answers {subject}", why="nobody listens there")
            async with asyncio.timeout(timeout.total_seconds()):
                return await answer
        except TimeoutError:
            why = f"no answer came within {timeout.total_seconds():g} s"
            raise Unavailable(f"nobody answers {subject}", why=why) from None
        finally:
            self._broker.interests.remove(interest)
            answer.cancel()

    async def subscribe(
        self, subject: str, receive: Callable[[Message], None], *, queue: str = ""
    ) -> MemorySubscription:
        """Listen; of all members of a queue group one gets each message."""
        await self._link.turn()
        interest = Interest(self._link, subject, receive, queue)
        self._broker.interests.add(interest)
        return MemorySubscription(self._broker, self._link, interest)

    async def newest(self, subject: str) -> bytes | None:
        """The newest progress on this subject."""
        await self._link.turn()
        found = self._broker.progress.newest(subject)
        return None if found is None else found.data


class MemorySubscription:
    """A running subscription (`port.Subscription`)."""

    def __init__(self, broker: MemoryBroker, link: Link, interest: Interest) -> None:
        self._broker = broker
        self._link = link
        self._interest = interest

    async def unsubscribe(self) -> None:
        """Stop listening."""
        self._broker.interests.remove(self._interest)
        await self._link.settle()


class MemoryAnnouncements:
    """The registry's stream (`port.Announcements`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def put(self, subject: str, data: bytes, *, ttl: timedelta) -> None:
        """Announce; unless put again it ends after `ttl`. Raises UsageError without data."""
        if not data:
            raise UsageError("an announcement needs data", fix="call `remove` to end one")
        await self._link.turn()
        self._broker.announce(subject, data, ttl)

    async def remove(self, subject: str) -> None:
        """End an announcement now."""
        await self._link.turn()
        self._broker.withdraw(subject)

    async def watch(self, receive: Callable[[Announced], None]) -> MemoryWatch:
        """What is there now, then every change; returns when what was there has been received."""

        def hear(stored: Stored) -> None:
            data = stored.data or None
            receive(Announced(stored.subject, data, stored.time_ns, stored.sequence))

        return await begin_watch(self._broker.registry, ">", self._link, hear)


class MemoryTimers:
    """Durable timers (`port.Timers`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def arm(self, timer: str, due: str, at: datetime, data: bytes = b"{}") -> None:
        """Make it due at this time, and not at one that was armed before."""
        await self._link.turn()
        self._broker.arm(timer, due, at, data)

    async def wake(self, due: str, data: bytes = b"{}") -> None:
        """Make it due now."""
        await self._link.turn()
        self._broker.store(due, header_block({}), data)

    async def armed(self, subject_filter: str) -> list[str]:
        """Subjects of the timers under this filter."""
        await self._link.turn()
        return [stored.subject for stored in self._broker.timers.under(subject_filter)]

    async def disarm(self, timer: str) -> None:
        """Forget the timer; one that has fired is not taken back."""
        await self._link.turn()
        self._broker.disarm(timer)


class MemoryBlobs:
    """The object store (`port.Blobs`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def put(self, data: bytes) -> str:
        """Store; returns the digest. Raises ProtocolError SG1103 when it is too large."""
        if len(data) > limits.MAX_BLOB:
            what = f"a blob of {len(data)} bytes"
            raise ProtocolError(what, code="SG1103", why=f"{limits.MAX_BLOB} are allowed")
        await self._link.turn()
        name = ids.digest(data)
        known = self._broker.descriptions.newest(name)
        if known is None or self._broker.clock.now() - known.time >= REFRESH_AFTER:
            self._broker.blobs[name] = bytes(data)
            self._broker.descriptions.append(name, b"", b"")
        return name

    async def get(self, digest: str) -> bytes:
        """Fetch and verify. Raises NotFound, or ProtocolError SG1109 for other content."""
        await self._link.turn()
        data = self._broker.blobs.get(digest)
        if data is None:
            raise NotFound(f"no blob {digest}", why="it was never stored, or deleted since")
        if ids.digest(data) != digest:
            raise ProtocolError(f"the blob {digest} has other content", code="SG1109")
        return data

    async def list(self, after: int = 0) -> list[StoredBlob]:
        """A page of the blobs beyond this sequence, those whose last put is oldest first; empty at the end."""
        await self._link.turn()
        page = islice(self._broker.descriptions.beyond(after), PAGE)
        return [StoredBlob(one.subject, one.sequence, one.time_ns) for one in page]

    async def remove(self, digest: str, *, expect: int) -> bool:
        """Delete the blob, unless it was stored again."""
        await self._link.turn()
        found = self._broker.descriptions.get(expect)
        if found is None or found.subject != digest:
            return False
        self._broker.descriptions.remove(expect)
        del self._broker.blobs[digest]
        return True

    async def tidy(self, before: datetime) -> int:  # noqa: ARG002 - as in the port
        """Do nothing: blobs are whole here."""
        await self._link.turn()
        return 0


def _first(answer: asyncio.Future[bytes], reply: Message) -> None:
    """Take the first answer; later ones come too late."""
    if not answer.done():
        answer.set_result(reply.data)
