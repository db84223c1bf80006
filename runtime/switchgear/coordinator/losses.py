"""Fast takeover: what a lost connection ran is handed on at once (rule 7). A hint; rule 8 decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from switchgear.bus.port import Bus, Subscription
from switchgear.contract import limits, subjects
from switchgear.contract.announcement import Running
from switchgear.coordinator.viewing import Viewing
from switchgear.errors import SwitchgearError
from switchgear.registry.watch import RegistryWatch

log = logging.getLogger(__name__)

QUEUE = "coordinators"


class LossWatch:
    """Hears of lost connections, from `start` to `stop`.

    Every replica counts the instance as gone; one of them hands its deliveries on, since a second nak would take
    them from whoever had them next.
    """

    def __init__(self, bus: Bus, registry: RegistryWatch, viewing: Viewing) -> None:
        self._bus = bus
        self._registry = registry
        self._viewing = viewing
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen. Raises Unavailable."""
        watch = self._bus.watch_losses
        self._subscriptions = [
            await watch(lambda name: self._heard(name, hands_on=False)),
            await watch(lambda name: self._heard(name, hands_on=True), queue=QUEUE),
        ]

    async def stop(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            with contextlib.suppress(SwitchgearError):
                await subscription.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _heard(self, name: str, *, hands_on: bool) -> None:
        if self._registry.table.heard(name) is None:
            return  # no agent, or none that runs anything
        task = asyncio.create_task(self._wait(name, hands_on=hands_on))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, name: str, *, hands_on: bool) -> None:
        """Wait for the instance to come back; it announces itself when it does."""
        table = self._registry.table
        before, settled = table.heard(name), table.settling_until
        await asyncio.sleep(limits.DISCONNECT_GRACE.total_seconds())
        if table.heard(name) != before or table.settling_until != settled:
            return  # it is back; or the broker was away, and with it everybody
        running = table.lost(name)
        if hands_on and running:
            log.info("coordinator.instance-lost %s: %d tasks", name, len(running))
            await asyncio.gather(*(self._hand_on(name, one) for one in running))

    async def _hand_on(self, name: str, running: Running) -> None:
        scope = subjects.scope(running.capability, running.owner, running.task)
        try:
            history = await self._viewing.histories.now(scope)
        except SwitchgearError as error:
            log.warning("coordinator.not-handed-on %s: %s", scope, error)
            return
        if running.ack and history.live_dispatch and history.holder in (None, name):
            self._bus.core.publish(running.ack, b"-NAK")
