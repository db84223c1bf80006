"""Documents and durable topics, as a memory bus offers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchgear.bus.port import Kept
from switchgear.errors import OutcomeUnknown, ProtocolError, Unavailable, UsageError
from switchgear.testing.memory_stream import check_message
from switchgear.testing.memory_watch import MemoryWatch, begin_watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from switchgear.bus.port import Appended, Refused
    from switchgear.contract.stored import Stored
    from switchgear.testing.memory_broker import MemoryBroker
    from switchgear.testing.memory_link import Link

_LONGEST_ID = 256


class MemoryDocuments:
    """Schedules, triggers, leases (`port.Documents`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def get(self, subject: str) -> Kept | None:
        """The document; None where there is none or it was removed."""
        _checked(subject, "sg.config.")
        await self._link.turn()
        found = self._broker.config.newest(subject)
        return None if found is None or not found.data else _kept(found)

    async def put(
        self, subject: str, data: bytes, *, expect: int | None = None
    ) -> Appended | Refused:
        """Store it if nothing else came after `expect`. Raises UsageError without data."""
        if not data:
            raise UsageError("a document needs data", fix="call `remove` to end one")
        return await self._keep(subject, data, expect)

    async def remove(self, subject: str, *, expect: int | None = None) -> Appended | Refused:
        """Remove it under the same condition."""
        return await self._keep(subject, b"", expect)

    async def list(self, subject_filter: str) -> list[Kept]:
        """All documents under this filter, in the order in which they were stored."""
        _checked(subject_filter, "sg.config.")
        await self._link.turn()
        return [_kept(one) for one in self._broker.config.under(subject_filter) if one.data]

    async def watch(self, subject_filter: str, receive: Callable[[Kept], None]) -> MemoryWatch:
        """What is there now, then every change; returns when what was there has been received."""
        _checked(subject_filter, "sg.config.")

        def hear(stored: Stored) -> None:
            receive(_kept(stored))

        return await begin_watch(self._broker.config, subject_filter, self._link, hear)

    async def _keep(self, subject: str, data: bytes, expect: int | None) -> Appended | Refused:
        _checked(subject, "sg.config.")
        check_message(subject, len(data))
        if not self._link.alive:
            return await self._link.promise(Unavailable)
        return await self._link.answer(self._broker.keep(subject, data, expect), OutcomeUnknown)


class MemoryTopics:
    """Durable messages (`port.Topics`)."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        self._broker = broker
        self._link = link

    async def publish(
        self, subject: str, data: bytes, *, id: str, ttl: timedelta | None = None
    ) -> bool:
        """Store a message; False where one with this id is there. Raises Unavailable when full."""
        _checked(subject, "sg.topic.")
        check_message(subject, len(data))
        if not id.isascii() or not id.isprintable() or id.strip() != id:
            raise UsageError(f"{id[:80]!r} cannot be the id of a message")
        if not 0 < len(id) <= _LONGEST_ID:
            raise UsageError(f"the id of a message has {len(id)} characters")
        if not self._link.alive:
            return await self._link.promise(Unavailable)
        try:
            stored = self._broker.tell(subject, data, id, ttl)
        except Unavailable as error:
            return await self._link.refuse(error)
        return await self._link.answer(stored, OutcomeUnknown)


def _kept(stored: Stored) -> Kept:
    return Kept(stored.subject, stored.data or None, stored.sequence, stored.time_ns)


def _checked(subject: str, prefix: str) -> None:
    if not subject.startswith(prefix):
        raise ProtocolError(f"{subject[:200]!r} is not under {prefix}", code="SG1107")
