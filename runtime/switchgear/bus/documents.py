"""Small documents by subject: schedules, triggers, leases; the newest message of a subject counts (SG_CONFIG).

Above it: whatever is set rather than done. A removal is a message without data, so that watchers hear of it; the mark
ends by itself after a minute. Each message has an id, so that one whose answer got lost is neither stored again nor
refused for its own first send.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from switchgear.bus import reading, watching
from switchgear.bus.ledger import leader_get
from switchgear.bus.port import Appended, Kept, Refused
from switchgear.bus.pulling import Link
from switchgear.bus.watching import GONE_TTL, Watch
from switchgear.contract.stored import EXPECTED, Stored
from switchgear.errors import ProtocolError, UsageError

CONFIG: Final = "SG_CONFIG"
_PREFIX: Final = "sg.config."
_TRIES: Final = 3
"""Attempts to store where nothing is expected and the mark of a removal stands, or just ended."""


class StreamDocuments:
    """`port.Documents` on the stream SG_CONFIG."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._publish = link.publisher.publish

    async def get(self, subject: str) -> Kept | None:
        """The document, from the stream's leader. Raises Unavailable."""
        found = await self._newest(_checked(subject))
        return None if found is None or not found.data else _kept(found)

    async def put(
        self, subject: str, data: bytes, *, expect: int | None = None
    ) -> Appended | Refused:
        """See `port.Documents.put`. Raises UsageError for empty data, ProtocolError, Unavailable."""
        if not data:
            raise UsageError("a document needs data", fix="call `remove` to end one")
        return await self._store(subject, "", data, expect)

    async def remove(self, subject: str, *, expect: int | None = None) -> Appended | Refused:
        """See `port.Documents.remove`. Raises Unavailable."""
        mark = f"Nats-Marker-Reason: Remove\r\nNats-TTL: {GONE_TTL}s\r\n"
        return await self._store(subject, mark, b"", expect)

    async def list(self, subject_filter: str) -> list[Kept]:
        """All documents under this filter, in the order in which they were stored. Raises Unavailable."""
        wanted = _checked(subject_filter)
        found = await reading.everything(self._link, CONFIG, wanted, replacing=True)
        # One that was replaced while we read may have come twice.
        newest = {stored.subject: stored for stored in found}
        there = sorted(newest.values(), key=lambda stored: stored.sequence)
        return [_kept(stored) for stored in there if stored.data]

    async def watch(self, subject_filter: str, receive: Callable[[Kept], None]) -> Watch:
        """See `port.Documents.watch`. Raises Unavailable, ServerUnfit."""

        def hear(subject: str, data: bytes | None, time_ns: int, sequence: int) -> None:
            receive(Kept(subject, data, sequence, time_ns))

        return await watching.watch(self._link, CONFIG, _checked(subject_filter), hear)

    async def _store(
        self, subject: str, headers: str, data: bytes, expect: int | None
    ) -> Appended | Refused:
        """Store it under the condition; where nothing is expected, a removal's mark is nothing."""
        _checked(subject)
        own = f"Nats-Msg-Id: {os.urandom(9).hex()}-"
        wanted = expect
        for attempt in range(_TRIES):
            condition = "" if wanted is None else f"{EXPECTED}: {wanted}\r\n"
            block = f"NATS/1.0\r\n{own}{attempt}\r\n{condition}{headers}\r\n"
            outcome = await self._publish(subject, block, data)
            if wanted is None or isinstance(outcome, Appended):
                return outcome
            there = await self._newest(subject)
            # The broker checks the condition before the id (measured on 2.15.1): a repeat is refused for its first.
            if there is not None and own.encode() in there.headers:
                return Appended(there.sequence)
            if expect != 0 or (there is not None and there.data):
                return outcome
            wanted = 0 if there is None else there.sequence
        return Refused(None)

    async def _newest(self, subject: str) -> Stored | None:
        return await leader_get(self._link.asking, CONFIG, {"last_by_subj": subject})


def _kept(stored: Stored) -> Kept:
    return Kept(stored.subject, stored.data, stored.sequence, stored.time_ns)


def _checked(subject: str) -> str:
    if not subject.startswith(_PREFIX):
        raise ProtocolError(f"{subject[:200]!r} is not a document's subject", code="SG1107")
    return subject
