"""What goes wrong in a seed, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.coordinator.service import Coordinator

if TYPE_CHECKING:
    from tests.simulation.world import Member, World

CRASH_POINTS = (
    "agent.before-checkpoint",
    "agent.after-checkpoint",
    "agent.before-completed",
    "agent.after-completed",
    "agent.before-ack",
    "agent.after-take-over",
    "agent.before-waiting",
    "agent.after-waiting",
    "agent.after-attempt-failed",
    "agent.after-child-submitted",
    "coordinator.before-append",
    "coordinator.after-append",
    "coordinator.before-effects",
    "coordinator.before-ack",
)


def _pick(world: World, *, coordinators: bool) -> Member | None:
    fitting = [one for one in world.members if isinstance(one.service, Coordinator) == coordinators]
    return world.random.choice(fitting) if fitting else None


def _crash_agent(world: World) -> bool:
    member = _pick(world, coordinators=False)
    if member is not None:
        world.crash(member)
    return member is not None


def _crash_coordinator(world: World) -> bool:
    member = _pick(world, coordinators=True)
    if member is not None:
        world.crash(member)
    return member is not None


def _crash_point(world: World) -> bool:
    world.crash_at[world.random.choice(CRASH_POINTS)] = world.random.choice([1, 1, 2, 3])
    return False  # counted when it is reached


def _any(world: World) -> Member | None:
    return world.random.choice(world.members) if world.members else None


def _cut_off(world: World) -> bool:
    """A process neither hears nor is heard, for less or longer than a lease; or it is frozen."""
    member = _any(world)
    if member is None:
        return False
    member.bus.link.hold()
    seconds = world.random.choice([0.5, 5.0, 15.0])
    asyncio.get_running_loop().call_later(seconds, member.bus.link.heal)
    return True


def _slow(world: World) -> bool:
    member = _any(world)
    if member is not None:
        member.bus.link.slow(world.random.choice([0.05, 1.0, 5.0]))
    return member is not None


def _jump(world: World) -> bool:
    member = _any(world)
    if member is None:
        return False
    world.clock_faults = True
    member.clock.offset = timedelta(seconds=world.random.choice([-3600, -5, 5, 3600]))
    return True


def _restart(world: World) -> bool:
    world.broker.restart()
    for member in world.members:
        member.bus.reconnect()
    return True


def _full(world: World) -> bool:
    """Something else takes all the ledger's room for a while; coordinators may find a little more."""
    ledger = world.broker.ledger
    weight = max((ledger.max_bytes or 0) - ledger.bytes, 0)
    ledger.bytes += weight

    def room() -> None:
        ledger.bytes -= weight

    asyncio.get_running_loop().call_later(world.random.uniform(0.5, 5), room)
    return weight > 0


def _set(what: str, *values: float) -> Callable[[World], bool]:
    def arm(world: World) -> bool:
        setattr(world.troubles, what, world.random.choice(values))
        return what == "lost_live"  # the others count when they happen

    return arm


FAULT_KINDS: dict[str, Callable[[World], bool]] = {
    "agent crashes": _crash_agent,
    "coordinator crashes": _crash_coordinator,
    "crash point": _crash_point,
    "crash point again": _crash_point,
    "cut off": _cut_off,
    "slow": _slow,
    "clock jumps": _jump,
    "server restarts": _restart,
    "ledger full": _full,
    "redelivered": lambda world: world.broker.redeliver(),
    "timer early": lambda world: world.broker.fire_early(),
    "lane lost": lambda world: world.broker.forget_lane(),
    "answers lost": _set("lost_answers", 1, 2),
    "in flight": _set("in_flight", 1, 2, 3),
    "acks lost": _set("lost_acks", 1, 2),
    "stale reads": _set("stale_reads", 1, 2),
    "live messages lost": _set("lost_live", 0.1, 0.5, 1.0),
}
