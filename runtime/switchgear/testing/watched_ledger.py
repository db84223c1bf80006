"""The ledger of one instance in a test mesh: faults happen where an end is about to be stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from switchgear.testing.faults import point_of
from switchgear.testing.memory_ledger import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from switchgear.bus.port import Appended, Refused
    from switchgear.testing.faults import Faults, Point
    from switchgear.testing.memory import MemoryBus
    from switchgear.testing.memory_broker import MemoryBroker


class WatchedLedger(MemoryLedger):
    """A ledger whose writer may die, or hang, at an append."""

    def __init__(
        self,
        broker: MemoryBroker,
        bus: MemoryBus,
        faults: Faults,
        *,
        died: Callable[[MemoryBus], None],
        hangs: Callable[[MemoryBus], Awaitable[None]],
    ) -> None:
        """`died` buries the process and starts another; `hangs` sees that another is there to take over."""
        super().__init__(broker, bus.link)
        self._bus = bus
        self._faults = faults
        self._died = died
        self._hangs = hangs

    def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Awaitable[Appended | Refused]:
        """As any ledger's, unless something is to happen here."""
        point = point_of(subject, body) if self._link.alive else None
        what = None if point is None else self._faults.take(point)
        if point is None or what is None:
            return super().append(subject, body, scope=scope, expect=expect)
        if what == "lose":
            late = self._late(subject, body, scope=scope, expect=expect)
            return asyncio.get_running_loop().create_task(late)
        if what == "after":
            return self._dies_after(point, subject, body, scope=scope, expect=expect)
        return self._die()

    def _dies_after(
        self, point: Point, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Awaitable[Appended | Refused]:
        before = self._broker.ledger.last_sequence
        answer = super().append(subject, body, scope=scope, expect=expect)
        if self._broker.ledger.last_sequence == before:
            self._faults.give_back(point, "after")
            return answer
        return self._die()

    def _die(self) -> asyncio.Future[Any]:
        """The process ends here: nothing of it reaches the broker any more, and no answer reaches it."""
        self._broker.crash(self._bus)
        self._died(self._bus)
        return asyncio.get_running_loop().create_future()

    async def _late(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Appended | Refused:
        """Append after another instance has taken over; till then this one neither extends nor takes anything."""
        self._link.stalled = True
        try:
            await self._hangs(self._bus)
            while not self._taken_over(scope, expect):
                grown = self._link.promise()
                self._broker.ledger.on_growth(grown)
                await grown
        finally:
            self._link.stalled = False
        return await super().append(subject, body, scope=scope, expect=expect)

    def _taken_over(self, scope: str, since: int) -> bool:
        return any(
            one.sequence > since and one.subject.endswith(".taken-over")
            for one in self._broker.ledger.under(scope)
        )
