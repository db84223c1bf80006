"""`switchgear breaker`: ls, log, and what operators order: reset, open, close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.client.mesh import Mesh
    from switchgear.contract.announcement import Announcement, BreakerState
    from switchgear.contract.breaker_orders import Action

_MAX_WHY = 4000
"""Characters of a reason."""
_LIVE = "`switchgear agent ls` lists the live ones"

_TOLD: dict[Action, str] = {
    "open": "refuses every call",
    "close": "lets every call through",
    "reset": "is closed and left to itself",
}


class _Row(NamedTuple):
    """One breaker of one instance."""

    agent: str
    instance: str
    breaker: BreakerState


def ls(
    *,
    agent: str | None = None,
    dependency: str | None = None,
    troubled: bool = False,
    common: Common = COMMON,
) -> int:
    """List the breakers of the live instances, as last announced: those that are not closed first.

    Args:
        agent: Only of this agent, or of this one instance.
        dependency: Only of this one.
        troubled: Only those that are not closed.
        common: Shared by all commands.
    """
    return shared.run(_ls(agent, dependency, common, troubled=troubled))


def log(*, dependency: str = "", limit: int = 50, common: Common = COMMON) -> int:
    """List what was ordered: who, when, which breaker, and why. The newest first.

    Args:
        dependency: Only for this one.
        limit: How many, 1 to 500.
        common: Shared by all commands.
    """
    return shared.run(_log(dependency, limit, common))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Order:
    """Options of every order."""

    why: str
    """Told to whoever is refused, and to whoever looks at the breakers later."""
    agent: str | None = None
    """Only of this agent, also before its first call."""
    instance: str | None = None
    """Only of this instance."""


def reset(dependency: str, /, *, order: Order, common: Common = COMMON) -> int:
    """Close breakers of a dependency, forget what opened them, and hold them no more.

    Args:
        dependency: What they guard.
        order: Shared by all orders.
        common: Shared by all commands.
    """
    return shared.run(_order("reset", dependency, order, common))


def open_(dependency: str, /, *, order: Order, common: Common = COMMON) -> int:
    """Hold breakers of a dependency open: no call is made until they are reset.

    Args:
        dependency: What they guard.
        order: Shared by all orders.
        common: Shared by all commands.
    """
    return shared.run(_order("open", dependency, order, common))


def close(dependency: str, /, *, order: Order, common: Common = COMMON) -> int:
    """Hold breakers of a dependency closed: every call is made, whatever fails, until they are reset.

    Args:
        dependency: What they guard.
        order: Shared by all orders.
        common: Shared by all commands.
    """
    return shared.run(_order("close", dependency, order, common))


async def _ls(agent: str | None, dependency: str | None, common: Common, *, troubled: bool) -> int:
    from switchgear.clock import SYSTEM

    async with shared.joined(common) as mesh:
        instances = await _instances(mesh)
    if agent is not None:
        _known("agent", agent, [name for one in instances for name in (one.agent, one.instance)])
    found = [
        _Row(one.agent, one.instance, state)
        for one in instances
        for state in one.breakers
        if agent in (None, one.agent, one.instance) and dependency in (None, state.dependency)
    ]
    rows = [row for row in found if not troubled or row.breaker.state != "closed"]
    rows.sort(key=lambda row: (row.breaker.state == "closed", row.breaker.dependency, row.instance))

    def draw() -> Any:
        from switchgear.cli.render import breakers as screens

        of = f" of {dependency}" if dependency else ""
        none = f"no breakers{of}: an instance has one for each dependency that it called"
        if found:
            none = f"all breakers are closed ({len(found)})"
        shown = [(row.instance, row.breaker) for row in rows]
        return screens.breakers(shown, SYSTEM.now(), none)

    common.output.put("breaker-list", {"breakers": [row._asdict() for row in rows]}, draw)
    return exits.OK


async def _log(dependency: str, limit: int, common: Common) -> int:
    from switchgear.contract.breaker_orders import MAX_ORDERS, BreakerOrders, BreakerOrdersQuery
    from switchgear.errors import UsageError

    if not 1 <= limit <= MAX_ORDERS:
        raise UsageError(f"--limit is {limit}", fix=f"give a number from 1 to {MAX_ORDERS}")
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            query = BreakerOrdersQuery(dependency=dependency, limit=limit)
            orders = (await mesh.ask("breaker-orders", query, BreakerOrders)).orders

    def draw() -> Any:
        from switchgear.cli.render import breakers as screens

        return screens.orders(orders)

    common.output.put("breaker-orders", {"orders": orders}, draw)
    return exits.OK


async def _order(action: Action, dependency: str, order: Order, common: Common) -> int:
    from switchgear.contract import limits
    from switchgear.contract.breaker_orders import BreakerCommand, BreakerOrder

    _measured("DEPENDENCY", dependency, limits.MAX_LABEL)
    _measured("--why", why := order.why.strip(), _MAX_WHY)
    async with shared.joined(common) as mesh:
        _check(dependency, order, await _instances(mesh))
        command = BreakerCommand(
            dependency=dependency,
            action=action,
            why=why,
            agent=order.agent,
            instance=order.instance,
        )
        with shared.answered_by(*shared.COORDINATOR):
            given = await mesh.ask("breaker", command, BreakerOrder)
    text = "\n".join(f"{one} is told: {dependency} {_TOLD[action]}" for one in given.instances)
    common.output.put("breaker-order", {"order": given}, lambda: text)
    return exits.OK


async def _instances(mesh: Mesh) -> tuple[Announcement, ...]:
    with shared.answered_by(*shared.COORDINATOR):
        return (await mesh.agents()).instances


def _measured(name: str, text: str, most: int) -> None:
    """Raises UsageError for a text that is empty or too long."""
    from switchgear.errors import UsageError

    if not text:
        raise UsageError(f"{name} is empty", fix="`switchgear breaker --help` shows examples")
    if len(text) > most:
        raise UsageError(f"{name} has {len(text)} characters", fix=f"give at most {most}")


def _check(dependency: str, order: Order, instances: Sequence[Announcement]) -> None:
    """Raises NotFound with near matches for whom or what nobody knows; the coordinator decides all the same."""
    if order.agent is not None:
        _known("agent", order.agent, [one.agent for one in instances])
    if order.instance is not None:
        _known("instance", order.instance, [one.instance for one in instances])
    if order.agent is None and order.instance is None:
        known = [state.dependency for one in instances for state in one.breakers]
        fix = "`switchgear breaker ls` lists them; `--agent NAME` orders one of an agent before its first call"
        _known("breaker of", dependency, known, fix)


def _known(kind: str, name: str, known: Sequence[str], fix: str = _LIVE) -> None:
    from switchgear.cli import suggest

    if name not in known:
        raise suggest.unknown(kind, name, sorted(set(known)), fix=fix)
