"""Keeps the leases of what an instance runs, and stops what shows no progress (rule 7)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from switchgear.contract.limits import LANE_ACK_WAIT

if TYPE_CHECKING:
    from datetime import timedelta

    from switchgear.agent.attempt import Attempt
    from switchgear.agent.declare import Agent

log = logging.getLogger(__name__)

_PART = 3
"""How often a lease is extended before it would end."""
_LOOKS = 4
"""How often a handler is looked at within its `stall_timeout`."""


class Leases:
    """Two loops over the running attempts of one instance."""

    def __init__(
        self, agent: Agent, running: Callable[[], Iterable[Attempt]], every: timedelta | None
    ) -> None:
        """`every`: how often leases are extended; None: a third of what the mesh's leases last."""
        self._agent = agent
        self._running = running
        self._fixed = every is not None
        self._every = (every or LANE_ACK_WAIT / _PART).total_seconds()
        self._agreed = asyncio.Event()

    def agree(self, lease: timedelta) -> None:
        """The mesh's leases last so long."""
        if not self._fixed and self._every != lease.total_seconds() / _PART:
            self._every = lease.total_seconds() / _PART
            self._agreed.set()

    async def extend(self) -> None:
        """Extend the leases; a blocked event loop extends none, nor does a handler that does not leave."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._agreed.wait()
            self._agreed.clear()
            for attempt in list(self._running()):
                if not (attempt.lost or attempt.stalled or attempt.suspended):
                    attempt.delivery.in_progress()

    async def watch(self) -> None:
        """Stop handlers without a step's end, a report or a wait for as long as their capability allows."""
        limits = [
            one.stall_timeout.total_seconds()
            for one in self._agent.capabilities.values()
            if one.stall_timeout is not None
        ]
        if not limits:
            return
        while True:
            await asyncio.sleep(min(limits) / _LOOKS)
            now = asyncio.get_running_loop().time()
            for attempt in list(self._running()):
                self._look(attempt, now)

    def _look(self, attempt: Attempt, now: float) -> None:
        limit = self._agent.capabilities[attempt.subject.capability].stall_timeout
        if limit is None or attempt.stalled or attempt.settling:
            return
        if attempt.waits is not None and attempt.waits.any:  # that counts as progress
            attempt.move()
        elif now - attempt.moved > limit.total_seconds():
            log.warning("attempt.stalled %s for %s", attempt.subject.task, limit)
            attempt.stalled = True
            attempt.interrupt()
