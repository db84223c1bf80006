"""The sweep: every open task has something that will move it; where that got lost, it is found here (rule 23).

One replica at a time does it. A pass looks at a bounded number of tasks, the oldest first, the next pass goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Protocol

from switchgear.bus.port import Backlog, Bus
from switchgear.clock import Clock
from switchgear.contract import limits, subjects
from switchgear.coordinator import opening
from switchgear.coordinator.open_tasks import OpenTasks
from switchgear.coordinator.opening import LaneOpening
from switchgear.coordinator.settling import Settling
from switchgear.coordinator.viewing import ENTRY, Occasion, Viewing
from switchgear.errors import SwitchgearError
from switchgear.lifecycle.history import History
from switchgear.loop import supervised
from switchgear.tasks.requests import request_cancel

log = logging.getLogger(__name__)

OLD = 2 * limits.LANE_ACK_WAIT
"""Younger tasks are not looked at: they are under way."""
LOOKS = 200
"""Tasks that one pass looks at."""
TOGETHER = 8
"""Of them at a time: what runs shall hardly notice."""
_MOVES_A_WAIT = frozenset({"wait", "retry", "capacity"})
"""Timers that bring a coordinator to a waiting task."""


class Held(Protocol):
    """Who of the replicas does it."""

    async def held(self) -> bool:
        """Whether it is this one, now."""
        ...


class Sweep:
    """One replica's, from `start` to `stop`."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        viewing: Viewing,
        settling: Settling,
        lanes: LaneOpening,
        *,
        lease: Held,
        every: timedelta,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._viewing = viewing
        self._settling = settling
        self._lanes = lanes
        self._lease = lease
        self._every = every
        self._tasks: OpenTasks | None = None
        self._at = 0
        """Sequence of the last task looked at; 0: begin with the oldest."""
        self._floors: dict[str, Backlog | None] = {}
        """What lanes and intakes had before them when this pass began."""
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep."""
        self._sweeping = asyncio.create_task(supervised("sweep", self._sweep_on), name="sweep")

    async def stop(self) -> None:
        """Sweep no more."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping

    async def sweep(self) -> int:
        """One pass. Returns how many tasks were looked at. Raises Unavailable."""
        await opening.ensure_intakes(self._bus)  # every replica learns how far they have come
        if not await self._lease.held():
            self._tasks = None
            return 0
        tasks = self._tasks = self._tasks or OpenTasks(self._bus.ledger)
        await tasks.catch_up()
        # Before the histories: what was acked by now, and is live afterwards, was acked by mistake.
        self._floors = {}
        for lane in await self._bus.work.lanes():
            self._floors[lane] = await self._bus.work.backlog(lane)
        await self._read_floor("intake-submitted")
        scopes = list(islice(tasks.beyond(self._at, self._clock.now() - OLD), LOOKS))
        for at in range(0, len(scopes), TOGETHER):
            if not await self._lease.held():
                return at
            await self._look_at(tasks, scopes[at : at + TOGETHER])
        return len(scopes)

    async def _look_at(self, tasks: OpenTasks, scopes: Sequence[str]) -> None:
        last = tasks.begun(scopes[-1])
        looks = await asyncio.gather(*map(self._look, scopes), return_exceptions=True)
        for scope, found in zip(scopes, looks, strict=True):
            if isinstance(found, BaseException):
                log.warning("coordinator.sweep-failed %s: %s", scope, found)
            elif not found:
                tasks.ended(scope)
        self._at = last

    async def _look(self, scope: str) -> bool:
        """See that something will move this task. Returns whether it is open."""
        history = await self._viewing.histories.now(scope)
        if not history.is_open:
            return False
        if history.cancelling is None and await self._is_orphan(history):
            await request_cancel(self._bus, self._clock, scope, "its parent has ended")
        elif history.live_dispatch and history.cancelling is None:
            await self._pulled(history)
        elif not await self._moves(history):
            log.info("coordinator.swept %s: %s", scope, history.state)
            await self._settling.settle(scope, ENTRY, history=history)
        return True

    async def _is_orphan(self, history: History) -> bool:
        submission, parent = history.submitted, history.parent
        if submission is None or parent is None or submission.detached:
            return False
        end = await self._viewing.endings.of(parent)
        return end is not None and end != "missing"

    async def _pulled(self, history: History) -> None:
        """See that a lane will offer the live dispatch, or has."""
        live = history.live_dispatch
        priority = _priority(history)
        lane = subjects.lane_consumer(history.capability, history.pool, priority)
        backlog = self._floors.get(lane)
        if backlog is None:
            await self._lanes.ensure([(history.capability, history.pool)], missing=True)
        elif live <= backlog.floor:
            log.warning("coordinator.dispatch-lost %s at %d", history.scope, live)
            await self._settling.settle(history.scope, Occasion(lost=live), history=history)

    async def _moves(self, history: History) -> bool:
        """Whether a timer or an unacked submission will bring a coordinator to it."""
        if history.cancelling is not None:
            return False
        if history.position == "waiting":
            kinds = await self._bus.timers.armed(subjects.timer(history.scope, "*"))
            return any(subjects.parse_timer(one).kind in _MOVES_A_WAIT for one in kinds)
        if history.position != "queued" or history.submitted_stored is None:
            return False
        own = subjects.intake_consumer(history.capability, history.owner)
        await self._read_floor(own)
        begun = history.submitted_stored.sequence
        floors = (self._floors[name] for name in ("intake-submitted", own))
        return any(one is not None and begun > one.floor for one in floors)

    async def _read_floor(self, intake: str) -> None:
        if intake not in self._floors:
            self._floors[intake] = await self._bus.work.backlog(intake)

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(self._every.total_seconds())
            try:
                if await self.sweep() < LOOKS:
                    self._at = 0
            except SwitchgearError as error:
                log.warning("coordinator.unswept %s", error)


def _priority(history: History) -> str:
    """Of the lane that the live dispatch is in."""
    for valid in reversed(history.valid):
        if valid.stored.sequence == history.dispatched_at:
            return valid.subject.priority
    return "normal"
