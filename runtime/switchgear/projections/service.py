"""The observe service: follows the ledger into the read model, and answers queries from it.

Without it `switchgear task ls` has nobody to answer. It may be stopped, killed or started anew at
any time: it goes on at its cursor, or from the beginning where the ledger is no longer the one that
it had read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear import errors
from switchgear.projections import history
from switchgear.projections.answers import Answers
from switchgear.projections.forgetting import EVERY, Forgetting
from switchgear.projections.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from switchgear.bus.port import Bus

CHECK_EVERY = timedelta(seconds=2)
"""Between two looks whether the ledger is still the one that was read; also on a reconnect."""
CONFIRM = timedelta(milliseconds=500)
"""Between a first sign that it is not and the second look: one answer may be stale in a cluster."""
RETRY = timedelta(seconds=1)
"""Wait after the broker or the disk refused, before the next try."""
CHUNK = 1000
"""Entries of one transaction at most."""

log = logging.getLogger(__name__)


class Observer:
    """The read model of one mesh in one file, and the service in front of it."""

    def __init__(self, bus: Bus, path: Path) -> None:
        self._bus = bus
        self._path = path
        self._doubted = asyncio.Event()
        self._is_sure = asyncio.Event()
        """While set, entries are taken in."""
        self._checked = 0
        """The cursor when the ledger was last found to be the one that had been read."""

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until cancelled; then all is closed. `ready` is called once queries are answered.

        Queries are answered at once, with the lag that there is. Raises ConfigError for an unusable
        file.
        """
        index = history.Index(self._path)
        self._checked = index.cursor
        try:
            async with Answers(self._bus, self._path, self._doubt):
                self._bus.on_reconnect(self._doubt)
                if ready is not None:
                    ready()
                await self._follow(index)
        finally:
            await in_thread(index.close)

    def _doubt(self) -> None:
        """Take nothing in until it is clear that the ledger is still the one that was read."""
        self._is_sure.clear()
        self._doubted.set()

    async def _follow(self, index: history.Index) -> None:
        said = ""
        while True:
            try:
                await self._check(index)
                await self._feed_and_watch(index)
            except history.Diverged as diverged:
                log.warning("observe.rebuild: %s", diverged)
                await in_thread(index.reset)
                self._checked = 0
            except (errors.SwitchgearError, sqlite3.OperationalError) as error:
                # No broker, no ledger yet, a full disk: what is missing may come.
                if str(error) != said:
                    said = str(error)
                    log.warning("observe.waits: %s", said)
                await asyncio.sleep(RETRY.total_seconds())

    async def _feed_and_watch(self, index: history.Index) -> None:
        """Feed the read model until there is doubt, or a call fails.

        Entries that came and were not taken in are dropped and read again: a roll-back may have
        taken them back.
        """
        tasks = {
            asyncio.create_task(self._feed(index)),
            asyncio.create_task(self._watch(index)),
            asyncio.create_task(self._forget(index)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _feed(self, index: history.Index) -> None:
        batches = self._bus.ledger.follow(await in_thread(lambda: index.cursor))
        try:
            async for batch in batches:
                for start in range(0, len(batch), CHUNK):
                    await self._is_sure.wait()
                    applied = await in_thread(index.apply, batch[start : start + CHUNK])
                    if applied.voids:
                        log.warning(
                            "ledger.void: %d entries up to %d", applied.voids, applied.cursor
                        )
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()
        raise errors.Unavailable("the ledger's entries ended")

    async def _forget(self, index: history.Index) -> None:
        """Take out from time to time what retention has deleted, while the ledger is the one that was read."""
        forgetting = Forgetting(self._bus.ledger, index)
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            await self._is_sure.wait()
            gone = await forgetting.once()
            if gone:
                log.info("observe.forgot %d tasks", gone)

    async def _watch(self, index: history.Index) -> None:
        """Look at the ledger from time to time; ends as soon as there is a reason for doubt."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY.total_seconds()):
                    await self._doubted.wait()
                    return
            await self._check(index)

    async def _check(self, index: history.Index) -> None:
        """Raises Diverged when the ledger is not the one that was read, on a second look too."""
        self._doubted.clear()
        if await self._difference(index):
            await asyncio.sleep(CONFIRM.total_seconds())
            difference = await self._difference(index)
            if difference:
                raise history.Diverged(difference)
        if not self._doubted.is_set():
            self._is_sure.set()

    async def _difference(self, index: history.Index) -> str:
        """What shows that the ledger is another; empty when nothing does.

        Sequences are used again after a roll-back, store times are not. A roll-back is announced by a
        reconnect. A stream made anew may not be, and entries of it may have been read by now: so
        the newest entry of the last look is compared too.
        """
        cursor = await in_thread(lambda: index.cursor)
        last = await self._bus.ledger.last_sequence()
        if last < cursor:
            return f"the ledger ends at {last}, {cursor} had been read"
        for upto in {self._checked, cursor}:
            for sequence, time_ns in await in_thread(index.witnesses, upto):
                stored = await self._bus.ledger.entry(sequence)
                if stored is None:
                    continue  # deleted by retention: the next older one decides
                if abs(stored.time_ns - time_ns) > history.TIME_TOLERANCE_NS:
                    return f"entry {sequence} is not the one that was read"
                break
        self._checked = cursor
        return ""


async def observe(bus: Bus, path: Path, *, ready: Callable[[], None] | None = None) -> None:
    """Run the observe service, with its read model in this file, until cancelled.

    The file is made where it is missing and may be deleted while nobody runs: it is rebuilt. Raises
    ConfigError when it cannot be used.
    """
    await Observer(bus, path).run(ready)
