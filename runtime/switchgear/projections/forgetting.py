"""Takes tasks out of the read model that retention has deleted from the ledger (rule 18).

A deletion leaves no entry to follow. But the broker counts subjects that end tasks: where it has fewer of them than the
file, the difference has been deleted, and is looked for from the oldest on.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.contract import subjects
from switchgear.projections.threads import in_thread

if TYPE_CHECKING:
    from switchgear.bus.port import Ledger
    from switchgear.projections.history import End, Index

EVERY = timedelta(minutes=1)
"""Between two passes; the janitor's own pace."""
PAGE = 500
"""Terminal entries looked at together."""
MOST = 20_000
"""Looked at in one pass; the next one goes on there."""
_AT_A_TIME = 8


class Forgetting:
    """For one file."""

    def __init__(self, ledger: Ledger, index: Index) -> None:
        self._ledger = ledger
        self._index = index
        self._after = 0
        """Sequence beyond which the next pass goes on."""

    async def once(self) -> int:
        """Take out what is gone. Returns how many terminal entries went. Raises Unavailable, sqlite3.Error."""
        # the file first: what ends meanwhile must not look as if as much had been deleted
        known = await in_thread(self._index.count_ends)
        counts = await asyncio.gather(*map(self._ledger.count, subjects.TERMINAL_FILTERS))
        excess = known - sum(counts)
        looked = gone = 0
        while gone < excess and looked < MOST:
            page = await in_thread(self._index.ends, self._after, PAGE)
            if not page:
                break
            missing = await self._missing(page)
            await in_thread(self._index.forget, missing)
            looked += len(page)
            gone += len(missing)
            self._after = page[-1].sequence
        if looked < MOST:
            self._after = 0
        return gone

    async def _missing(self, page: list[End]) -> list[End]:
        """Those that the ledger has no longer."""
        room = asyncio.Semaphore(_AT_A_TIME)

        async def is_gone(one: End) -> bool:
            async with room:
                return await self._ledger.entry(one.sequence) is None

        found = await asyncio.gather(*map(is_gone, page))
        return [one for one, missing in zip(page, found, strict=True) if missing]
