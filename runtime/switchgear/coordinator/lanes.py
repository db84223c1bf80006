"""Lanes that nobody pulls any more: emptied once their pool has been gone for a minute (rule 16), later removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from switchgear.bus.port import Delivery, Work
from switchgear.clock import Clock
from switchgear.contract import subjects
from switchgear.errors import NotFound, SwitchgearError
from switchgear.loop import supervised
from switchgear.registry.watch import RegistryWatch

log = logging.getLogger(__name__)

GONE_FOR = timedelta(seconds=60)
LOOK_EVERY = timedelta(seconds=15)
EMPTY_FOR = timedelta(minutes=10)
"""How long a lane without a pool has been empty when it is removed: its pool may be on its way back."""
BATCH = 256
"""Deliveries placed anew at a time."""


class LaneWatch:
    """Looks for lanes without a pool and hands what is in them to `emptied`, from `start` to `stop`.

    Every replica looks; the ledger's compare-and-set lets one of them place each task.
    """

    def __init__(
        self,
        work: Work,
        registry: RegistryWatch,
        clock: Clock,
        emptied: Callable[[Delivery], Awaitable[None]],
        removed: Callable[[str, str], None],
    ) -> None:
        """`removed` hears of which capability and pool a lane is no longer there."""
        self._work = work
        self._registry = registry
        self._clock = clock
        self._emptied = emptied
        self._removed = removed
        self._gone_since: dict[str, datetime] = {}
        self._empty_since: dict[str, datetime] = {}
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._looking = asyncio.create_task(supervised("lanes", self._look_on), name="lanes")

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def look(self) -> None:
        """Note which lanes have lost their pool, and empty those that lost it long ago."""
        now = self._clock.now()
        table = self._registry.table
        if table.is_settling(now):
            return
        served = {
            (capability, pool.offer.pool)
            for capability, pools in table.capabilities().items()
            for pool in pools
        }
        lanes = [(name, subjects.parse_lane(name)) for name in await self._work.lanes()]
        gone = {name for name, lane in lanes if lane is not None and lane[:2] not in served}
        self._gone_since = {name: self._gone_since.get(name, now) for name in gone}
        self._empty_since = {name: at for name, at in self._empty_since.items() if name in gone}
        for name, since in list(self._gone_since.items()):
            if now - since >= GONE_FOR:
                await self._empty(name)
                await self._retire(name, now)

    async def _empty(self, lane: str) -> None:
        with contextlib.suppress(NotFound):
            while deliveries := await self._work.fetch(lane, BATCH):
                log.warning("coordinator.lane-emptied %s: %d", lane, len(deliveries))
                await asyncio.gather(*map(self._emptied, deliveries))

    async def _retire(self, lane: str, now: datetime) -> None:
        """Remove it once it has been empty for long.

        A pool that comes back just then, or that another replica places a task in, asks for its lanes, and gets
        them from the oldest open task on (`LaneOpening`): so nothing is lost.
        """
        backlog = await self._work.backlog(lane)
        if backlog is None or backlog.pending or backlog.unsettled:
            self._empty_since.pop(lane, None)
            return
        if now - self._empty_since.setdefault(lane, now) < EMPTY_FOR:
            return
        parts = subjects.parse_lane(lane)
        if parts is not None:
            await self._work.remove(lane)
            self._removed(*parts[:2])
            log.info("coordinator.lane-removed %s", lane)
        del self._empty_since[lane]

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            try:
                await self.look()
            except SwitchgearError as error:
                log.warning("coordinator.lanes-unread %s", error)
