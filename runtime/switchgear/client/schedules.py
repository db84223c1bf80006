"""Schedules as a client puts and sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw
from msgspec.structs import replace

from switchgear.contract import queries, subjects
from switchgear.contract.announcement import CronTrigger
from switchgear.contract.capability import Capability, reference
from switchgear.contract.cron import Cron, Missed, Overlap
from switchgear.tasks import payload

if TYPE_CHECKING:
    from switchgear.client.view import View


class Schedules:
    """The schedules of this mesh's principal: `mesh.schedules`."""

    def __init__(self, mesh: View) -> None:
        self._mesh = mesh

    async def put(
        self,
        name: str,
        capability: Capability[Any, Any] | str,
        input: Any,
        cron: Cron | str,
        *,
        timezone: str = "UTC",
        missed: Missed = "latest",
        overlap: Overlap = "skip",
        priority: str = "normal",
    ) -> queries.Schedule:
        """Start a task of the capability at each time that the cron expression names.

        Put again under the same name, it replaces the terms; times that were handled stay handled, a paused schedule
        stays paused. `timezone`, `missed` and `overlap` belong to an expression; a `Cron` has its own, and its own
        input where `input` is None. Raises UsageError for an expression, time zone, priority or input that cannot be
        used, Conflict for a name that an agent's declaration has, Unavailable when no coordinator answers.
        """
        if isinstance(cron, str):
            cron = Cron(cron, None, timezone=timezone, missed=missed, overlap=overlap)
        wanted = reference(capability)
        return await self._command(
            queries.ScheduleCommand(
                verb="put",
                name=subjects.token(name, "schedule"),
                capability=subjects.token(wanted.name, "capability"),
                cron=_trigger(cron, input, name),
                priority=priority,
            )
        )

    async def list(self, *, agent: str | None = None) -> list[queries.ScheduleRow]:
        """All of this principal by name, or those that an agent's declarations made. Raises Unavailable."""
        if agent is not None:
            subjects.token(agent, "agent")
        query = queries.SchedulesQuery(agent=agent)
        return [*(await self._mesh.ask("schedules", query, queries.Schedules)).rows]

    async def pause(self, name: str) -> queries.Schedule:
        """Start nothing until it is resumed. Raises NotFound, Unavailable."""
        return await self._command(_named("pause", name))

    async def resume(self, name: str) -> queries.Schedule:
        """Go on; `missed` says what becomes of the times since it was paused. Raises NotFound, Unavailable."""
        return await self._command(_named("resume", name))

    async def remove(self, name: str) -> queries.Schedule:
        """Take it away; tasks that it started go on. Raises NotFound, Conflict for an agent's own, Unavailable."""
        return await self._command(_named("remove", name))

    async def _command(self, command: queries.ScheduleCommand) -> queries.Schedule:
        return await self._mesh.ask("schedule", command, queries.Schedule)


def _named(verb: Any, name: str) -> queries.ScheduleCommand:
    return queries.ScheduleCommand(verb=verb, name=subjects.token(name, "schedule"))


def _trigger(cron: Cron, input: Any, name: str) -> CronTrigger:
    made = cron.trigger()
    if input is None:
        return made
    data = payload.encode_value(input, f"the input of the schedule {name}")
    return replace(made, input=Raw(data))
