"""`switchgear schedule`: put, ls, pause, resume, rm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.client.schedules import Schedules
    from switchgear.contract.queries import Schedule


def put(
    name: str,
    capability: str,
    cron: str,
    input: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    /,
    *,
    timezone: str = "UTC",
    missed: Literal["latest", "all", "skip"] = "latest",
    overlap: Literal["skip", "queue", "cancel"] = "skip",
    priority: Literal["high", "normal", "low"] = "normal",
    common: Common = COMMON,
) -> int:
    """Start a task again and again.

    Args:
        name: Of the schedule; put again, it replaces what had that name.
        capability: What to ask for; `switchgear capability ls` lists it.
        cron: Minute, hour, day of month, month, day of week, such as "30 6 * * MON-FRI".
        input: Of each task: JSON, @FILE that holds it, or - for the standard input.
        timezone: In which the cron expression is meant, such as Europe/Berlin.
        missed: What becomes of times at which no coordinator ran: the latest, all, or none runs afterwards.
        overlap: While the task before is still open: skip the time, queue its task, or cancel the one before.
        priority: Lane of the tasks.
        common: Shared by all commands.
    """
    from switchgear.cli import values

    data = values.task_input(input)
    return shared.run(
        _changed(
            "put",
            lambda schedules: schedules.put(
                name,
                capability,
                data,
                cron,
                timezone=timezone,
                missed=missed,
                overlap=overlap,
                priority=priority,
            ),
            common,
        )
    )


def ls(*, agent: str | None = None, common: Common = COMMON) -> int:
    """List your schedules, by name.

    Args:
        agent: Those that this agent declares, instead of yours.
        common: Shared by all commands.
    """
    return shared.run(_ls(agent, common))


def pause(name: str, /, *, common: Common = COMMON) -> int:
    """Start nothing until it is resumed.

    Args:
        name: Of the schedule.
        common: Shared by all commands.
    """
    return shared.run(_changed("paused", lambda schedules: schedules.pause(name), common))


def resume(name: str, /, *, common: Common = COMMON) -> int:
    """Go on.

    Args:
        name: Of the schedule.
        common: Shared by all commands.
    """
    return shared.run(_changed("resumed", lambda schedules: schedules.resume(name), common))


def rm(name: str, /, *, common: Common = COMMON) -> int:
    """Take a schedule away.

    Args:
        name: Of the schedule.
        common: Shared by all commands.
    """
    return shared.run(_changed("removed", lambda schedules: schedules.remove(name), common))


async def _changed(
    done: str, change: Callable[[Schedules], Awaitable[Schedule]], common: Common
) -> int:

    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            found = await change(mesh.schedules)
            offered = {one.offer.name for one in (await mesh.capabilities()).rows}
    if done == "put" and found.capability not in offered:
        common.output.say(f"no live instance offers {found.capability}: its tasks wait for one")

    document = {"done": done, "schedule": found}
    common.output.put("schedule", document, lambda: f"{found.name}: {done}")
    return 0


async def _ls(agent: str | None, common: Common) -> int:

    from switchgear.clock import SYSTEM

    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            rows = await mesh.schedules.list(agent=agent)

    def draw() -> Any:
        from switchgear.cli.render import schedules

        return schedules.schedule_list(rows, SYSTEM.now())

    common.output.put("schedule-list", {"schedules": rows}, draw)
    return 0
