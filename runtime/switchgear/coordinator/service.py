"""One replica of the coordinator: its services, wired, started and stopped.

Stateless: what it remembers it may forget. Any number of replicas share the work through the broker's consumers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from switchgear.bus.port import Bus
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import subjects
from switchgear.coordinator import archive
from switchgear.coordinator.admittance import Admittance
from switchgear.coordinator.arriving import Arriving
from switchgear.coordinator.blob_janitor import BlobJanitor
from switchgear.coordinator.breaker_orders import BreakerOrderService
from switchgear.coordinator.effects import Effects
from switchgear.coordinator.janitor import Janitor
from switchgear.coordinator.lanes import LaneWatch
from switchgear.coordinator.leases import Lease
from switchgear.coordinator.losses import LossWatch
from switchgear.coordinator.opening import LaneOpening, ensure_intakes
from switchgear.coordinator.orphans import Orphans
from switchgear.coordinator.queries import Queries
from switchgear.coordinator.registry_queries import RegistryQueries
from switchgear.coordinator.rollouts import RolloutService
from switchgear.coordinator.schedules import ScheduleService
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.coordinator.settling import Settling
from switchgear.coordinator.sweep import Sweep
from switchgear.coordinator.task_queries import TaskQueries
from switchgear.coordinator.triggers import TriggerService
from switchgear.coordinator.viewing import Viewing
from switchgear.errors import SwitchgearError
from switchgear.lifecycle import coordination, fairness
from switchgear.lifecycle.coordination import Decision, Stamp, View
from switchgear.lifecycle.history import History
from switchgear.lifecycle.retention import Policy
from switchgear.registry.watch import RegistryWatch

log = logging.getLogger(__name__)


class Service(Protocol):
    """Something that runs as long as its coordinator does."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End; what is under way is finished, or left to the other replicas."""
        ...


class Coordinator:
    """One replica. `start`, then `stop`."""

    def __init__(
        self, bus: Bus, clock: Clock = SYSTEM, settings: CoordinatorSettings | None = None
    ) -> None:
        self._bus = bus
        settings = settings or CoordinatorSettings()
        self.registry = RegistryWatch(bus, clock, self._offered)
        viewing = Viewing(bus, clock, self.registry)
        orphans = Orphans(bus, clock, self.registry, viewing)
        settling = Settling(bus, self.registry, viewing, Effects(bus, orphans), self.decide)
        self._arriving = Arriving(bus, viewing, settling)
        self._admittance = admittance = Admittance(
            bus,
            self.registry.table,
            settings,
            place=self._arriving.place,
            receive=lambda delivery: self._arriving.submitted(delivery, own=True),
        )
        self._arriving.admits = admittance.admits
        self._arriving.failed = admittance.room.note
        viewing.overload = admittance.overload
        self._lanes = lanes = LaneOpening(bus)
        asked = TaskQueries(bus, clock, self.registry, viewing, settling, settings.groups)
        offers = RegistryQueries(bus, self.registry, lanes, lease=settings.lease)
        sweeps = Lease(bus, "sweep")
        sweep = Sweep(
            bus, clock, viewing, settling, lanes, lease=sweeps, every=settings.sweep_every
        )
        schedules = ScheduleService(bus, clock, self.registry.table)
        self._arriving.scheduled = schedules.due
        self._triggers = TriggerService(bus, clock, self.registry.table, schedules)
        self._services: list[Service] = [
            Queries(
                bus,
                *offers.verbs(),
                *asked.verbs(),
                *schedules.verbs(),
                *RolloutService(bus, clock).verbs(),
                *BreakerOrderService(bus, clock, self.registry).verbs(),
            ),
            schedules,
            self._triggers,
            admittance,
            self._arriving,
            LaneWatch(bus.work, self.registry, clock, self._arriving.emptied, lanes.forget),
            LossWatch(bus, self.registry, viewing),
            sweeps,
            sweep,
        ]
        """In the order of their start; the last one stops first."""
        self._services += self._janitor(clock, settings)

    async def start(self) -> None:
        """Create what is missing, learn who is there, and begin to work. Raises ServerUnfit, Unavailable."""
        await self._bus.ensure_streams()
        await asyncio.gather(ensure_intakes(self._bus), self.registry.start())
        for service in self._services:
            await service.start()
        log.info("coordinator.ready %s", self._bus.name)

    async def stop(self) -> None:
        """Take nothing new, finish what is in hand for a moment, leave the rest to the other replicas."""
        await self._admittance.stop()  # it feeds those that stop before it
        for service in reversed(self._services):
            await service.stop()
        await self.registry.stop()

    def decide(self, history: History, view: View, stamp: Stamp) -> Decision:
        """What this replica does about a task."""
        return coordination.decide(history, view, stamp)

    def _janitor(self, clock: Clock, settings: CoordinatorSettings) -> list[Service]:
        room = self._admittance.room
        lease = Lease(self._bus, "janitor")
        janitor = Janitor(
            self._bus,
            clock,
            lease,
            Policy(settings.retention_age, settings.retention_count),
            archive=settings.archive and archive.made(settings.archive, settings.archive_format),
            is_tight=lambda: room.overload is not None,
        )
        return [lease, janitor, BlobJanitor(self._bus, clock, lease)]

    def _offered(self, capabilities: set[str]) -> None:
        """Somebody new offers these: wake who waits for them."""
        self._triggers.offered()
        for capability in capabilities:
            self._arriving.spawn(self._wake(capability))

    async def _wake(self, capability: str) -> None:
        """Until it has been done: nobody else would before their re-check."""
        while True:
            try:
                return await self._wake_once(capability)
            except SwitchgearError as error:
                log.warning("coordinator.not-woken %s: %s", capability, error)
                await asyncio.sleep(1)

    async def _wake_once(self, capability: str) -> None:
        # its instance asks for them as well, but may die before: a task must not be in a lane that nobody looks at
        pools = self.registry.table.pools(capability)
        await self._lanes.ensure((capability, pool.offer.pool) for pool in pools)
        timers = await self._bus.timers.armed(subjects.capacity_timers(capability))
        for timer in fairness.in_turns(timers):
            await self._admittance.fair.room(capability)
            scope = subjects.parse_timer(timer).scope
            await self._bus.timers.wake(subjects.due(scope, "capacity"), b"{}")
