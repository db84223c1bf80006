"""Passes orders for breakers on to the instances, after keeping who gave them, when and why."""

from __future__ import annotations

import logging
from typing import Final

from switchgear import ids
from switchgear.bus.port import Bus
from switchgear.clock import Clock, milliseconds
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement
from switchgear.contract.breaker_orders import (
    MAX_ORDERS,
    BreakerCommand,
    BreakerOrder,
    BreakerOrders,
    BreakerOrdersQuery,
)
from switchgear.contract.queries import Command
from switchgear.coordinator.queries import Verb
from switchgear.errors import NotFound, ProtocolError, SwitchgearError
from switchgear.registry.watch import RegistryWatch

log = logging.getLogger(__name__)

KEPT: Final = MAX_ORDERS


class BreakerOrderService:
    """One replica's part: it only answers."""

    def __init__(self, bus: Bus, clock: Clock, registry: RegistryWatch) -> None:
        self._bus = bus
        self._clock = clock
        self._registry = registry

    def verbs(self) -> tuple[Verb, ...]:
        """What this service answers."""
        return (
            Verb("breaker", BreakerCommand, self.command),
            Verb("breaker-orders", BreakerOrdersQuery, self.orders),
        )

    async def command(self, principal: str, command: BreakerCommand) -> BreakerOrder:
        """Keep the order, then tell the instances. Raises NotFound, Unavailable."""
        live = [one.announcement for one in self._registry.table.instances.values()]
        told = [one for one in live if _concerns(command, one)]
        if not told:
            raise _nobody(command)
        now = self._clock.now()
        order = BreakerOrder(
            id=ids.new_id(milliseconds(now)),
            time=now,
            by=principal,
            dependency=command.dependency,
            action=command.action,
            why=command.why,
            instances=tuple(sorted(one.instance for one in told)),
        )
        await self._bus.documents.put(subjects.breaker_order(order.id), codec.encode(order))
        log.warning(
            "coordinator.breaker %s %s by %s: %s",
            command.action, command.dependency, principal, command.why,
        )  # fmt: skip
        for one in told:
            self._bus.core.publish(
                subjects.control(one.agent, one.instance),
                codec.encode(
                    Command(
                        verb="breaker",
                        action=command.action,
                        dependency=command.dependency,
                        by=principal,
                        why=command.why,
                    )
                ),
            )
        await self._forget()
        return order

    async def orders(self, principal: str, query: BreakerOrdersQuery) -> BreakerOrders:
        """What was ordered so far. Raises Unavailable."""
        del principal  # they are everybody's to see
        found: list[BreakerOrder] = []
        size = 0
        for kept in reversed(await self._bus.documents.list(subjects.breaker_order("*"))):
            try:
                order = codec.decode(kept.data or b"", BreakerOrder)
            except ProtocolError as error:
                log.warning("coordinator.breaker-order-unread %s: %s", kept.subject, error)
                continue
            if query.dependency not in ("", order.dependency):
                continue
            size += len(kept.data or b"")
            if len(found) >= query.limit or size > limits.MAX_ENTRY - limits.KIB:
                break
            found.append(order)
        return BreakerOrders(orders=tuple(found))

    async def _forget(self) -> None:
        """Remove the oldest orders beyond those that are kept; the next order tries again where that fails."""
        try:
            kept = await self._bus.documents.list(subjects.breaker_order("*"))
            for old in kept[:-KEPT]:
                await self._bus.documents.remove(old.subject)
        except SwitchgearError as error:
            log.warning("coordinator.breaker-orders-kept %s", error)


def _concerns(command: BreakerCommand, one: Announcement) -> bool:
    """Whether the order is for this instance: it is named, or has a breaker of the dependency."""
    if command.agent not in (None, one.agent) or command.instance not in (None, one.instance):
        return False
    if command.agent is not None or command.instance is not None:
        return True
    return any(state.dependency == command.dependency for state in one.breakers)


def _nobody(command: BreakerCommand) -> NotFound:
    """Whom the order is for, and that there is none."""
    if command.instance is not None:
        of = f" of {command.agent}" if command.agent else ""
        return NotFound(
            f"{command.instance} is no live instance{of}",
            fix="`switchgear agent ls` lists the live ones",
        )
    if command.agent is not None:
        return NotFound(
            f"there is no live instance of {command.agent}",
            fix="`switchgear agent ls` lists the live ones",
        )
    return NotFound(
        f"no live instance has a breaker of {command.dependency}",
        why="a breaker is made by its declaration, or by the first call",
        fix="`switchgear breaker ls` lists them; `--agent NAME` orders one of an agent before its first call",
    )
