"""What decisions call for beyond a task's scope: timers, wakes, messages to holders, ends of children."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from switchgear.bus.port import Bus
from switchgear.contract import codec, subjects
from switchgear.contract.queries import Cancel
from switchgear.coordinator.orphans import Orphans
from switchgear.lifecycle.coordination import Arm, Effect, TellHolder, Wake
from switchgear.lifecycle.history import History


class Due(msgspec.Struct):
    """What a timer carries."""

    n: int = 0
    """Re-checks so far."""


class Effects:
    """Does them; all can be repeated."""

    def __init__(self, bus: Bus, orphans: Orphans) -> None:
        self._bus = bus
        self._orphans = orphans

    async def apply(
        self, history: History, effects: Iterable[Effect], *, is_armed: bool = False
    ) -> None:
        """Do these for the task of this history, in their order. Raises Unavailable.

        `is_armed`: what it waits for has its timers already.
        """
        scope = history.scope
        for effect in effects:
            if isinstance(effect, Arm):
                if not is_armed or effect.kind == "capacity":
                    await self._arm(scope, effect)
            elif isinstance(effect, TellHolder):
                command = Cancel(task=history.task, reason=effect.reason)
                self._bus.core.publish(subjects.cancel(history.capability), codec.encode(command))
            elif isinstance(effect, Wake):
                await self._bus.timers.wake(subjects.due(effect.scope, effect.kind), b"{}")
            else:
                await self._orphans.cancel(history, effect.reason)

    async def _arm(self, scope: str, effect: Arm) -> None:
        await self._bus.timers.arm(
            subjects.timer(scope, effect.kind),
            subjects.due(scope, effect.kind),
            effect.at,
            codec.encode(Due(effect.rechecks)),
        )
