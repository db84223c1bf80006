"""The blobs' janitor: deletes those that no kept entry names, and pieces that belong to none (rule 22).

Once a day a replica reads which blobs are old, then all entries that may name some, then deletes the rest. Whoever is
about to name a blob has put it within the last 12 hours, so that it is not old, or is another one by the time it would
be deleted. All ages are by the broker's clock. What a crash leaves undone the next day's pass does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from switchgear import crashpoint
from switchgear.bus.port import Appended, Bus, Kept
from switchgear.clock import Clock
from switchgear.contract import codec, subjects
from switchgear.contract.stored import Stored
from switchgear.coordinator.janitor import Lease
from switchgear.errors import ProtocolError, SwitchgearError
from switchgear.lifecycle import blob_names
from switchgear.lifecycle.leasing import LeaseDocument
from switchgear.lifecycle.retention import BLOB_AGE
from switchgear.loop import supervised

log = logging.getLogger(__name__)

EVERY = timedelta(days=1)
"""Between two passes, of whichever replicas: each may read the whole ledger."""
LOOK_EVERY = timedelta(hours=1)
"""How often a replica looks whether a pass is due."""
MOST = 50_000
"""Blobs looked at in one pass: what it holds in memory. The next one begins behind them."""
BATCH = 200
"""Blobs deleted between two pauses."""
PAUSE = timedelta(milliseconds=50)
"""Between two batches, read or deleted: what runs shall hardly notice."""


class SweepDocument(LeaseDocument, frozen=True, kw_only=True):
    """The day's claim: a lease that nobody renews, so that no other pass begins as long as it lasts."""

    after: int = 0
    """Sequence of the blobs' stream behind which the pass begins."""


class _Claim(NamedTuple):
    sequence: int
    now: datetime
    """By the broker's clock."""
    after: int


class BlobJanitor:
    """One replica's. `start`, then `stop`."""

    def __init__(
        self, bus: Bus, clock: Clock, lease: Lease, *, age: timedelta = BLOB_AGE, most: int = MOST
    ) -> None:
        """`age`: since its last put, of a blob that may go; `most`: blobs that one pass looks at."""
        self._bus = bus
        self._clock = clock
        self._lease = lease
        self._age = age
        self._most = most
        self._subject = subjects.lease("blob-sweep")
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work."""
        self._working = asyncio.create_task(
            supervised("blob-janitor", self._work_on), name="blob-janitor"
        )

    async def stop(self) -> None:
        """Work no more."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def clean(self) -> int:
        """A pass, if none has begun for a day. Returns how many blobs went. Raises Unavailable."""
        claim = await self._claim()
        if claim is None:
            return 0
        before = claim.now - self._age
        old, after = await self._old(claim.after, before)
        if old:
            await self._spare_named(old)
        crashpoint.reach("blobs.marked")
        gone = await self._remove(old)
        await self._bus.blobs.tidy(before)
        if after != claim.after:
            document = codec.encode(self._document(after))
            await self._bus.documents.put(self._subject, document, expect=claim.sequence)
        return gone

    async def _work_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            try:
                gone = await self.clean() if await self._lease.held() else 0
            except SwitchgearError as error:
                log.warning("blobs.interrupted %s", error)
            else:
                if gone:
                    log.info("blobs.deleted %d", gone)

    async def _claim(self) -> _Claim | None:
        """Begin a pass, so that nobody else does for a day; None: it is not time, or another was faster."""
        kept = await self._bus.documents.get(self._subject)
        if kept is not None and self._clock.now() - _time(kept) < EVERY:
            return None
        after = 0 if kept is None else _after(kept)
        document = codec.encode(self._document(after))
        expect = 0 if kept is None else kept.sequence
        answer = await self._bus.documents.put(self._subject, document, expect=expect)
        if not isinstance(answer, Appended):
            return None
        ours = await self._bus.documents.get(self._subject)
        if ours is None or ours.sequence != answer.sequence:
            return None
        return _Claim(ours.sequence, _time(ours), after)

    def _document(self, after: int) -> SweepDocument:
        return SweepDocument(holder=self._bus.name, lasts=EVERY, after=after)

    async def _old(self, after: int, before: datetime) -> tuple[dict[str, int], int]:
        """Blobs last put before this time, by digest, with their sequences; and where the next pass begins."""
        found: dict[str, int] = {}
        while page := await self._bus.blobs.list(after):
            for one in page:
                if one.time >= before:
                    return found, 0
                if len(found) >= self._most:
                    return found, after
                found[one.digest] = after = one.sequence
        return found, 0

    async def _spare_named(self, old: dict[str, int]) -> None:
        """Take out those that an entry names, void or not."""
        followed = self._bus.ledger.follow(0, filters=blob_names.FILTERS)
        async with aclosing(cast("AsyncGenerator[list[Stored]]", followed)) as batches:
            async for batch in batches:
                for entry in batch:
                    for digest in blob_names.named(entry.data):
                        old.pop(digest, None)
                if not batch or not old:
                    return
                await asyncio.sleep(PAUSE.total_seconds())

    async def _remove(self, unnamed: dict[str, int]) -> int:
        gone = 0
        for number, (digest, sequence) in enumerate(unnamed.items(), 1):
            gone += await self._bus.blobs.remove(digest, expect=sequence)
            crashpoint.reach("blobs.deleted")
            if number % BATCH == 0:
                await asyncio.sleep(PAUSE.total_seconds())
        return gone


def _time(kept: Kept) -> datetime:
    return datetime.fromtimestamp(kept.time_ns / 1e9, UTC)


def _after(kept: Kept) -> int:
    try:
        return codec.decode(kept.data or b"", SweepDocument).after
    except ProtocolError as error:
        log.warning("blobs.sweep-unreadable %s", error)
        return 0
