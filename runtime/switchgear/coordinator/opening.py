"""Makes consumers that are missing: new ones from the beginning, lost ones from the oldest task that is open.

A lost consumer that began with the first entry would hand out all history again, as if for the first time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from switchgear.bus.port import Bus
from switchgear.contract import subjects
from switchgear.coordinator.open_tasks import OpenTasks

log = logging.getLogger(__name__)


class LaneOpening:
    """Lanes, as agents and pools ask for them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._made: set[tuple[str, str]] = set()

    async def ensure(self, lanes: Iterable[tuple[str, str]], *, missing: bool = False) -> None:
        """Make the lanes of these capabilities and pools; `missing`: also those that were made before.

        Raises Unavailable, ServerUnfit.
        """
        wanted = [lane for lane in lanes if missing or lane not in self._made]
        await asyncio.gather(*(self._ensure(*lane) for lane in wanted))
        self._made.update(wanted)

    def forget(self, capability: str, pool: str) -> None:
        """A lane of these was removed."""
        self._made.discard((capability, pool))

    async def _ensure(self, capability: str, pool: str) -> None:
        start = await self._start(capability, pool)
        ensure = self._bus.work.ensure_lane
        await asyncio.gather(
            *(ensure(capability, pool, one, start=start) for one in subjects.PRIORITIES)
        )

    async def _start(self, capability: str, pool: str) -> int | None:
        """Where lanes that are missing begin; None: nothing was ever dispatched to the pool."""
        if not await self._bus.ledger.count(subjects.lane_filter(capability, pool, "*")):
            return None
        names = [subjects.lane_consumer(capability, pool, one) for one in subjects.PRIORITIES]
        found = await asyncio.gather(*map(self._bus.work.backlog, names))
        if None not in found:
            return None
        tasks = OpenTasks(self._bus.ledger, capability)
        await tasks.catch_up()
        log.warning("coordinator.lanes-lost %s of %s: from %d", pool, capability, tasks.oldest())
        return tasks.oldest()


INTAKES = {
    "intake-submitted": (subjects.SUBMITTED_FILTER,),
    "intake-transitions": subjects.TRANSITION_FILTERS,
}
"""The ledger's intakes that all replicas share, with what they deliver."""
_DUE = "intake-due"


async def ensure_intakes(bus: Bus) -> None:
    """Make the shared intakes that are missing. Raises ServerUnfit, Unavailable.

    The timers' intake is made last: where it is missing too, no coordinator was here before, and the first one
    begins with the first entry.
    """
    work = bus.work
    *found, due = await asyncio.gather(
        *map(work.backlog, INTAKES), work.backlog(_DUE, source="timers")
    )
    start: int | None = None
    if None in found and due is not None:
        tasks = OpenTasks(bus.ledger)
        await tasks.catch_up()
        start = tasks.oldest()
        log.warning("coordinator.intakes-lost: from %d", start)
    await asyncio.gather(
        *(work.ensure_intake(name, filters, start=start) for name, filters in INTAKES.items())
    )
    await work.ensure_intake(_DUE, [subjects.DUE_SUBJECTS], source="timers")
