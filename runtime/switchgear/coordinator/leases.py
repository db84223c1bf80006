"""A lease in the broker: one replica at a time has it (`lifecycle.leasing` decides)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta

from switchgear.bus.port import Appended, Bus
from switchgear.contract import codec, subjects
from switchgear.errors import ProtocolError, SwitchgearError
from switchgear.lifecycle.leasing import LeaseDocument, Leasing
from switchgear.loop import supervised

log = logging.getLogger(__name__)

LASTS = timedelta(seconds=15)
"""How long nobody does the job after its holder has died, at least."""
LAST_WORDS = 1.0
"""Seconds for giving it back to a broker that may be gone."""
_PART = 3
"""It is renewed, or looked at, this often while it lasts."""


class Lease:
    """One replica's claim to a job, from `start` to `stop`."""

    def __init__(self, bus: Bus, name: str, *, lasts: timedelta = LASTS) -> None:
        self._bus = bus
        self._name = name
        self._subject = subjects.lease(name)
        self._leasing = Leasing(bus.name, lasts)
        self._every = lasts.total_seconds() / _PART
        self._claiming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to claim it."""
        self._claiming = asyncio.create_task(
            supervised(f"lease-{self._name}", self._claim_on), name=f"lease-{self._name}"
        )

    async def stop(self) -> None:
        """Give it back, so that another has it at once."""
        if self._claiming is not None:
            self._claiming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._claiming
        expect = self._leasing.expectation(_now()) if self._leasing.held(_now()) else None
        self._leasing.lost()
        if expect is not None:
            # Without a broker this would be sent again until there is one.
            with contextlib.suppress(SwitchgearError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._bus.documents.remove(self._subject, expect=expect)

    async def held(self) -> bool:
        """Whether this replica has it now."""
        return self._leasing.held(_now())

    async def claim(self) -> None:
        """Take it if it is free, renew it if it is ours. Raises Unavailable."""
        expect = self._leasing.expectation(_now())
        if expect is None or not self._leasing.held(_now()):
            await self._look()
            expect = self._leasing.expectation(_now())
        if expect is None:
            return
        sent, had = _now(), self._leasing.held(_now())
        document = LeaseDocument(holder=self._bus.name, lasts=self._leasing.lasts)
        put = self._bus.documents.put
        answer = await put(self._subject, codec.encode(document), expect=expect)
        if not isinstance(answer, Appended):
            self._leasing.lost()
            return
        self._leasing.stored(answer.sequence, sent)
        if not had:
            log.info("coordinator.lease-taken %s", self._name)

    async def _look(self) -> None:
        kept = await self._bus.documents.get(self._subject)
        found: LeaseDocument | None = None
        if kept is not None and kept.data is not None:
            try:
                found = codec.decode(kept.data, LeaseDocument)
            except ProtocolError as error:
                log.warning("coordinator.lease-unreadable %s: %s", self._name, error)
                found = LeaseDocument(holder="unreadable", lasts=self._leasing.lasts)
        self._leasing.seen(kept.sequence if kept is not None else 0, found, _now())

    async def _claim_on(self) -> None:
        while True:
            try:
                await self.claim()
            except SwitchgearError as error:
                log.warning("coordinator.lease-unclaimed %s: %s", self._name, error)
            await asyncio.sleep(self._every)


def _now() -> float:
    return asyncio.get_running_loop().time()
