"""Keeps a table true to the registry's stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from switchgear.bus.port import Announced, Bus, Consuming
from switchgear.clock import Clock
from switchgear.errors import ProtocolError
from switchgear.loop import supervised
from switchgear.registry.table import Table

log = logging.getLogger(__name__)

SWEEP_EVERY = 5.0
"""Seconds between looks for instances that fell silent."""


class RegistryWatch:
    """A table that follows the registry, from `start` to `stop`."""

    def __init__(
        self, bus: Bus, clock: Clock, offered: Callable[[set[str]], None] | None = None
    ) -> None:
        """`offered` hears which capabilities a new pool accepts work for."""
        self.table = Table()
        self._bus = bus
        self._clock = clock
        self._offered = offered
        self._watching: Consuming | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the table holds all that is announced now."""
        self.table.settle(self._clock.now())
        self._bus.on_reconnect(lambda: self.table.settle(self._clock.now()))
        self._watching = await self._bus.announcements.watch(self._heard)
        self._sweeping = asyncio.create_task(
            supervised("registry-sweep", self._sweep), name="registry-sweep"
        )

    def runner(self, task: str) -> str:
        """The live instance that announces that it runs the task; empty for none."""
        return self.table.runner(task, self._clock.now())

    async def stop(self) -> None:
        """Stop following; the table stays as it is."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        if self._watching is not None:
            await self._watching.end()

    def _heard(self, announced: Announced) -> None:
        if announced.data is None:
            self.table.remove(announced.subject, self._clock.now())
            return
        heard = datetime.fromtimestamp(announced.time_ns / 1e9, UTC)
        try:
            fresh = self.table.put(announced.subject, announced.data, heard)
        except ProtocolError as error:
            log.warning("registry.announcement-refused %s: %s", announced.subject, error)
            return
        if fresh and self._offered is not None:
            self._offered(fresh)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.table.sweep(self._clock.now())
