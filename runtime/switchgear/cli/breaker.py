"""`switchgear breaker`: ls, log, and what operators order: reset, open, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from switchgear.cli import common as shared
from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.contract.breaker_orders import Action

_TOLD: dict[Action, str] = {
    "open": "refuses every call",
    "close": "lets every call through",
    "reset": "is closed and left to itself",
}


def ls(
    *,
    agent: str | None = None,
    dependency: str | None = None,
    troubled: bool = False,
    common: Common = COMMON,
) -> int:
    """List the breakers of the live instances, as last announced: those that are not closed first.

    Args:
        agent: Only of this agent, or of this instance.
        dependency: Only of this one.
        troubled: Only those that are not closed.
        common: Shared by all commands.
    """
    return shared.run(_ls(agent, dependency, common, troubled=troubled))


def log(*, dependency: str = "", limit: int = 50, common: Common = COMMON) -> int:
    """List what was ordered: who, when, which breaker, and why. The newest first.

    Args:
        dependency: Only for this one.
        limit: At most so many.
        common: Shared by all commands.
    """
    return shared.run(_log(dependency, limit, common))


def reset(
    dependency: str,
    /,
    *,
    why: str,
    agent: str | None = None,
    instance: str | None = None,
    common: Common = COMMON,
) -> int:
    """Close breakers of a dependency, forget what opened them, and hold them no more.

    Args:
        dependency: What they guard.
        why: Told to whoever looks at them later.
        agent: Only of this agent, also before its first call.
        instance: Only of this instance.
        common: Shared by all commands.
    """
    return shared.run(_order("reset", dependency, why, agent, instance, common))


def open_(
    dependency: str,
    /,
    *,
    why: str,
    agent: str | None = None,
    instance: str | None = None,
    common: Common = COMMON,
) -> int:
    """Hold breakers of a dependency open: no call is made until they are reset.

    Args:
        dependency: What they guard.
        why: Told to whoever is refused, and to whoever looks at them later.
        agent: Only of this agent, also before its first call.
        instance: Only of this instance.
        common: Shared by all commands.
    """
    return shared.run(_order("open", dependency, why, agent, instance, common))


def close(
    dependency: str,
    /,
    *,
    why: str,
    agent: str | None = None,
    instance: str | None = None,
    common: Common = COMMON,
) -> int:
    """Hold breakers of a dependency closed: every call is made, whatever fails, until they are reset.

    Args:
        dependency: What they guard.
        why: Told to whoever looks at them later.
        agent: Only of this agent, also before its first call.
        instance: Only of this instance.
        common: Shared by all commands.
    """
    return shared.run(_order("close", dependency, why, agent, instance, common))


async def _ls(agent: str | None, dependency: str | None, common: Common, *, troubled: bool) -> int:
    from switchgear.clock import SYSTEM

    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            instances = (await mesh.agents()).instances
    rows = [
        (one.instance, state)
        for one in instances
        for state in one.breakers
        if agent in (None, one.agent, one.instance)
        and dependency in (None, state.dependency)
        and not (troubled and state.state == "closed")
    ]
    rows.sort(key=lambda row: (row[1].state == "closed", row[1].dependency, row[0]))

    def draw() -> Any:
        from switchgear.cli.render import breakers as screens

        return screens.breakers(rows, SYSTEM.now())

    found = [{"instance": instance, "breaker": state} for instance, state in rows]
    common.output.put("breaker-list", {"breakers": found}, draw)
    return exits.OK


async def _log(dependency: str, limit: int, common: Common) -> int:
    from switchgear.contract.breaker_orders import BreakerOrders, BreakerOrdersQuery

    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            query = BreakerOrdersQuery(dependency=dependency, limit=min(max(limit, 1), 500))
            orders = (await mesh.ask("breaker-orders", query, BreakerOrders)).orders

    def draw() -> Any:
        from switchgear.cli.render import breakers as screens

        return screens.orders(orders)

    common.output.put("breaker-orders", {"orders": orders}, draw)
    return exits.OK


async def _order(
    action: Action,
    dependency: str,
    why: str,
    agent: str | None,
    instance: str | None,
    common: Common,
) -> int:
    from switchgear.contract import limits
    from switchgear.contract.breaker_orders import BreakerCommand, BreakerOrder
    from switchgear.errors import UsageError

    if not why.strip() or not 0 < len(dependency) <= limits.MAX_LABEL:
        raise UsageError(
            "an order needs a dependency and a reason",
            fix="give the dependency as `switchgear breaker ls` shows it, and --why TEXT",
        )
    command = BreakerCommand(
        dependency=dependency, action=action, why=why.strip(), agent=agent, instance=instance
    )
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            order = await mesh.ask("breaker", command, BreakerOrder)
    text = "\n".join(f"{dependency} of {one} {_TOLD[action]}" for one in order.instances)
    common.output.put("breaker-order", {"order": order}, lambda: text)
    return exits.OK
