"""What a fresh submission passes before it is dispatched: quotas first, then its turn."""

from __future__ import annotations

from collections.abc import Callable

from switchgear.bus.port import Bus, Delivery
from switchgear.coordinator.fairness import FairDispatch, Place
from switchgear.coordinator.intake import OwnIntakes
from switchgear.coordinator.quotas import Quotas
from switchgear.coordinator.recent import Recent
from switchgear.coordinator.room import RoomWatch
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.lifecycle import admission
from switchgear.lifecycle.history import History
from switchgear.registry.table import Table

_REMEMBERED = 10_000
"""Refused submissions whose refusal is remembered until it is in the ledger."""


class Admittance:
    """One replica's. `start`, then `stop`."""

    def __init__(
        self,
        bus: Bus,
        table: Table,
        settings: CoordinatorSettings,
        *,
        place: Place,
        receive: Callable[[Delivery], None],
    ) -> None:
        """`place` decides a submission whose turn it is; `receive` gets what owners' own intakes deliver."""
        self.room = RoomWatch(bus, settings.ledger_hard_limit)
        self.fair = FairDispatch(bus, table, OwnIntakes(bus, receive), place)
        self._quotas = Quotas(settings, self.fair.held)
        self._refused: Recent[str, admission.Refusal] = Recent(_REMEMBERED)

    async def start(self) -> None:
        """Begin. Raises Unavailable."""
        await self.room.start()
        await self.fair.start()

    async def stop(self) -> None:
        """Hand back what is held. The shared intake is no longer consumed when this is called."""
        await self.fair.stop()
        await self.room.stop()

    def admits(self, delivery: Delivery, history: History, own: bool) -> bool:  # noqa: FBT001  # a callback's
        """Whether to decide about this fresh submission now; else it comes again by itself.

        `own`: its owner's own intake delivered it, so it has passed the quotas before.
        """
        if not own:
            refused = self._quotas.overload(history, delivery)
            if refused is not None:
                self._refused.put(history.scope, refused)
                return True  # to be rejected
            self._refused.drop(history.scope)
        return self.fair.admits(delivery, history, own=own)

    def overload(self, history: History) -> admission.Refusal | None:
        """Why a task that was just submitted is not admitted; None where it is, or has been before."""
        if history.position != "queued":
            return None
        return self._refused.get(history.scope) or self.room.overload
