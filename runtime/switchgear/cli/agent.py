"""`switchgear agent`: ls, show, drain. `run` is a service and lives in `services`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from switchgear.cli import common as shared
from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.client.mesh import Mesh
    from switchgear.contract.announcement import Announcement

_POLL = 0.1


def ls(*, common: Common = COMMON) -> int:
    """List the live instances of all agents."""
    return shared.run(_ls(common))


def show(name: str, /, *, common: Common = COMMON) -> int:
    """Show an agent's instances.

    Args:
        name: Of an agent, or of one instance.
        common: Shared by all commands.
    """
    return shared.run(_show(name, common))


def drain(
    name: str, /, *, wait: bool = False, timeout: str = "30s", common: Common = COMMON
) -> int:
    """Tell an agent's instances to finish what they hold and leave.

    Args:
        name: Of an agent (all its instances), or of one instance.
        wait: Return when they have left; exit code 8 when some have not.
        timeout: With --wait: how long.
        common: Shared by all commands.
    """
    from switchgear.cli import values

    return shared.run(_drain(name, values.duration(timeout).total_seconds() if wait else 0, common))


async def _instances(mesh: Mesh) -> tuple[Announcement, ...]:
    with shared.answered_by(*shared.COORDINATOR):
        return (await mesh.agents()).instances


async def _ls(common: Common) -> int:

    from switchgear.clock import SYSTEM

    async with shared.joined(common) as mesh:
        found = await _instances(mesh)

    def draw() -> Any:
        from switchgear.cli.render import mesh as screens

        return screens.agents(found, SYSTEM.now())

    common.output.put("agent-list", {"instances": found}, draw)
    return exits.OK


async def _show(name: str, common: Common) -> int:

    from switchgear.clock import SYSTEM

    async with shared.joined(common) as mesh:
        found = _named(name, await _instances(mesh))

    def draw() -> Any:
        from rich.console import Group

        from switchgear.cli.render import mesh as screens

        return Group(*(screens.agent(one, SYSTEM.now()) for one in found))

    common.output.put("agent", {"name": name, "instances": found}, draw)
    return exits.OK


async def _drain(name: str, wait: float, common: Common) -> int:
    output = common.output
    async with shared.joined(common) as mesh:
        found = _named(name, await _instances(mesh))
        single = found[0].instance if found[0].agent != name else None
        told = (await mesh.drain(found[0].agent, single)).instances
        left = await _left(mesh, frozenset(told), wait) if wait else frozenset[str]()
    if not wait:
        text = "\n".join(f"{one} drains" for one in told)
    else:
        text = "\n".join(f"{one} {'is still there' if one in left else 'has left'}" for one in told)
    output.put("drained", {"instances": told, "still_there": sorted(left)}, lambda: text)
    return exits.PARTIAL if left else exits.OK


async def _left(mesh: Mesh, told: frozenset[str], wait: float) -> frozenset[str]:
    """Those that are still there when all have gone or the time is over."""
    import asyncio

    still = told
    try:
        async with asyncio.timeout(wait):
            while still:
                await asyncio.sleep(_POLL)
                still = told & {one.instance for one in await _instances(mesh)}
    except TimeoutError:
        return still
    return frozenset()


def _named(name: str, instances: tuple[Announcement, ...]) -> list[Announcement]:
    """The instances of this agent, or the one of this name. Raises NotFound with near matches."""
    from switchgear.cli import suggest

    found = [one for one in instances if name in (one.agent, one.instance)]
    if not found:
        known = {one.agent for one in instances} | {one.instance for one in instances}
        fix = "`switchgear agent ls` lists the live ones"
        raise suggest.unknown("agent", name, known, fix=fix)
    return found
