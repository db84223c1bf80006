"""Examples of breakers: how they stand, what operators order, and tasks that are handed back."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from switchgear.contract import queries
from switchgear.contract.announcement import BreakerState
from switchgear.contract.breaker_orders import (
    BreakerCommand,
    BreakerOrder,
    BreakerOrders,
    BreakerOrdersQuery,
)
from switchgear.contract.export.examples_core import ANNOUNCED
from switchgear.contract.export.scene import AGENT, at

_STATES = (
    BreakerState(
        dependency="registry:docker.io",
        state="forced-open",
        since=at(-60),
        opened=2,
        why="ana: moved to the mirror",
        forced_by="ana",
        forced_at=at(-60),
        forced_why="moved to the mirror",
    ),
    BreakerState(
        dependency="dagger",
        state="open",
        since=at(-4),
        until=at(21),
        failure_rate=0.6,
        calls=10,
        opened=1,
        why="6 of 10 calls failed, the last with transient: StepFailed: the engine is gone",
        busy=1,
    ),
    BreakerState(dependency="resource:disk", state="closed", since=at(-600), calls=3),
)
_ORDER = BreakerOrder(
    id="01kjp9e2r0m7x3v5bqz8mtd4wc",
    time=at(-60),
    by="ana",
    dependency="registry:docker.io",
    action="open",
    why="moved to the mirror",
    instances=(AGENT,),
)


def of_breakers() -> dict[str, Struct]:
    """All of them."""
    return {
        "announcement.breakers": replace(ANNOUNCED, breakers=_STATES),
        "breaker-command": BreakerCommand(
            dependency="registry:docker.io", action="open", why="moved to the mirror"
        ),
        "breaker-order": _ORDER,
        "breaker-orders": BreakerOrders(orders=(_ORDER,)),
        "breaker-orders-query": BreakerOrdersQuery(dependency="registry:docker.io"),
        "command.breaker": queries.Command(
            verb="breaker",
            action="open",
            dependency="registry:docker.io",
            by="ana",
            why="moved to the mirror",
        ),
    }
