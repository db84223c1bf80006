"""Brings one task as far as a coordinator can: reads, decides, appends, until the ledger agrees."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from switchgear import crashpoint, ids
from switchgear.bus.port import Appended, Bus, Refused
from switchgear.contract import codec
from switchgear.contract.stored import Stored
from switchgear.coordinator.effects import Effects
from switchgear.coordinator.viewing import ENTRY, Occasion, Viewing
from switchgear.errors import Unavailable
from switchgear.lifecycle.coordination import Arm, Decision, Stamp, View
from switchgear.lifecycle.history import History
from switchgear.registry.watch import RegistryWatch
from switchgear.tasks.voids import log_voids

log = logging.getLogger(__name__)

TRIES = 100
"""Refusals of one decision in a row; beyond it what led here has to come again."""

_WAKES = frozenset({"child", "turn"})
"""Due messages that no timer became: whatever timer the task has is still armed."""

Decide = Callable[[History, View, Stamp], Decision]


class Settling:
    """Whoever is led to a task, by whatever, asks this. Of two that settle one task at a time, one append lands."""

    def __init__(
        self,
        bus: Bus,
        registry: RegistryWatch,
        viewing: Viewing,
        effects: Effects,
        decide: Decide,
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._viewing = viewing
        self._effects = effects
        self._decide = decide

    async def settle(
        self,
        scope: str,
        occasion: Occasion = ENTRY,
        *,
        newest: Stored | None = None,
        history: History | None = None,
    ) -> None:
        """Do what a coordinator owes this task; what led here may be acked when this returns.

        `history`, or `newest` (its last entry), where the caller has them. Raises Unavailable.
        """
        if history is None and newest is not None:
            history = await self._viewing.histories.up_to(scope, newest)
        for _ in range(TRIES):
            if history is None:
                history = await self._viewing.histories.now(scope)
                occasion = _found(occasion, history)
            if occasion.lost and history.live_dispatch != occasion.lost:
                return
            seen = self._registry.table.version
            view = await self._viewing.of(history, occasion)
            decision = self.decide(history, view, occasion)
            crashpoint.reach("coordinator.before-effects")
            is_armed = _is_armed(history, decision, occasion)
            await self._effects.apply(history, decision.effects, is_armed=is_armed)
            if decision.entry is None:
                if _lacks_capacity(decision) and self._registry.table.version != seen:
                    continue  # somebody was announced while the timer was being armed
                return
            outcome = await self.append(history, decision)
            crashpoint.reach("coordinator.after-append")
            if isinstance(outcome, Appended):
                log.debug("coordinator.appended %s: %s", decision.subject, decision.note)
                self._viewing.decided(history, decision)
                await self._effects.apply(history, decision.then)
                if not _lacks_capacity(decision):
                    return
            history = None
        raise Unavailable(f"{TRIES} appends to {scope} in a row were refused", retry_after=1.0)

    def decide(self, history: History, view: View, occasion: Occasion = ENTRY) -> Decision:
        """What is to be done about the task; reads nothing."""
        log_voids(history)
        stamp = Stamp(ids.entry_id(), self._bus.name, self._viewing.now(occasion))
        return self._decide(history, view, stamp)

    def append(self, history: History, decision: Decision) -> Awaitable[Appended | Refused]:
        """Send the decision's entry, at once."""
        crashpoint.reach("coordinator.before-append")
        return self._bus.ledger.append(
            decision.subject,
            codec.encode(decision.entry),
            scope=history.scope,
            expect=history.last,
        )


def _found(occasion: Occasion, history: History) -> Occasion:
    """Of what is read anew: it is no fresh submission any more, so that the own clock says nothing (ADR 0020)."""
    if occasion != ENTRY or not history.valid:
        return occasion
    return Occasion(at=history.valid[-1].stored.time)


def _lacks_capacity(decision: Decision) -> bool:
    """Whether it waits for an agent: look again, since one may just have come."""
    return any(isinstance(one, Arm) and one.kind == "capacity" for one in decision.effects)


def _is_armed(history: History, decision: Decision, occasion: Occasion) -> bool:
    """Whether a task that goes on waiting was only woken, as it is once by each of its children."""
    goes_on = decision.entry is None and history.position == "waiting"
    return goes_on and history.cancelling is None and occasion.due in _WAKES
