"""Schedules: kept as documents, woken by durable timers, fired by whichever replica gets the timer.

A firing submits first, stores what it handled by compare-and-set second, and arms the next timer last: cut anywhere,
the redelivered timer repeats it, and ids that follow from the due times keep the tasks single.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from switchgear.bus.port import Appended, Bus, Kept
from switchgear.clock import Clock
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import (
    Schedule,
    ScheduleCommand,
    ScheduleRow,
    Schedules,
    SchedulesQuery,
)
from switchgear.coordinator import reading, schemas
from switchgear.coordinator.queries import Verb
from switchgear.coordinator.starting import Asked, start
from switchgear.errors import Conflict, NotFound, SwitchgearError, Unavailable, UsageError
from switchgear.lifecycle import schedule as rules
from switchgear.loop import supervised
from switchgear.registry.table import Table
from switchgear.tasks.requests import request_cancel

log = logging.getLogger(__name__)

CRON = "cron"
"""Of the timers of schedules: their subject has the schedule's name where others have a task."""
LOOK_EVERY = timedelta(seconds=60)
"""How often each replica looks for schedules that have lost their timer."""
TRIES = 100
"""Refusals of one change in a row; beyond it the change is left to who asked for it."""

_TIMERS = f"sg.timer.*.*.*.{CRON}"


class ScheduleService:
    """One replica's part. `start`, then `stop`."""

    def __init__(self, bus: Bus, clock: Clock, table: Table) -> None:
        """`table` of the registry: inputs are checked early where somebody offers the capability."""
        self._bus = bus
        self._clock = clock
        self._table = table
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after the timers; those that are missing are armed at once. Raises Unavailable."""
        await self.look()
        self._looking = asyncio.create_task(
            supervised("schedules", self._look_on), name="schedules"
        )

    async def stop(self) -> None:
        """Look no more; timers that are due go to the other replicas."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    # what is due

    async def due(self, subject: subjects.TimerSubject, at: datetime) -> None:
        """A schedule's timer, stored as due at that time: start what is due, arm the next. Raises Unavailable."""
        await self._fire(subject, max(self._clock.now(), at))

    async def _fire(self, subject: subjects.TimerSubject, now: datetime) -> None:
        where = subjects.schedule(subject.owner, subject.task)
        for _ in range(TRIES):
            kept = await self._bus.documents.get(where)
            found = _read(kept)
            if kept is None or found is None:
                return  # removed
            try:
                fired = rules.fire(found, now, previous_open=await self._is_open(found))
            except UsageError as error:
                log.error("coordinator.schedule-unusable %s: %s", where, error)
                return
            for one in fired.starts:
                await self._start(found, one)
            if fired.schedule is not found and not await self._store(fired.schedule, kept):
                continue
            await self._arm(found, fired.next)
            if _read(await self._bus.documents.get(where)) in (None, fired.schedule):
                return
            # new terms meanwhile: their timer has just been replaced
        raise Unavailable(f"{TRIES} changes of {where} in a row were refused")

    async def _start(self, schedule: Schedule, one: rules.Start) -> None:
        if one.cancel_previous:
            scope = subjects.scope(schedule.capability, schedule.owner, schedule.last)
            reason = f"the next run of the schedule {schedule.name} is due"
            await request_cancel(self._bus, self._clock, scope, reason)
        asked = Asked(
            capability=schedule.capability,
            owner=schedule.owner,
            task=one.task,
            input=schedule.cron.input,
            priority=schedule.priority,
            after=one.after,
            then=one.then,
            scheduled_for=one.due,
        )
        await start(self._bus, self._clock, asked)
        log.info("coordinator.scheduled %s/%s for %s", schedule.owner, schedule.name, one.due)

    async def _is_open(self, schedule: Schedule) -> bool:
        """Whether the task that the schedule started last has not ended."""
        if not schedule.last or schedule.paused:
            return False
        scope = subjects.scope(schedule.capability, schedule.owner, schedule.last)
        history = await reading.history_now(self._bus.ledger, scope)
        return history.is_open

    # timers

    async def look(self) -> None:
        """Arm the schedules that have no timer. Raises Unavailable."""
        armed = set(await self._bus.timers.armed(_TIMERS))
        for kept in await self._bus.documents.list(subjects.schedule("*", "*")):
            found = _read(kept)
            if found is None or found.paused or _timer(found) in armed:
                continue
            await self._arm_next(found)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            try:
                await self.look()
            except SwitchgearError as error:
                log.warning("coordinator.schedules-unread %s", error)

    async def _arm_next(self, schedule: Schedule) -> None:
        try:
            at = rules.next_due(schedule, self._clock.now())
        except UsageError as error:
            log.error(
                "coordinator.schedule-unusable %s/%s: %s", schedule.owner, schedule.name, error
            )
            return
        await self._arm(schedule, at)

    async def _arm(self, schedule: Schedule, at: datetime | None) -> None:
        if at is not None:
            scope = _scope(schedule)
            await self._bus.timers.arm(subjects.timer(scope, CRON), subjects.due(scope, CRON), at)

    # what principals ask for

    def verbs(self) -> tuple[Verb, ...]:
        """What this service answers."""
        return (
            Verb("schedules", SchedulesQuery, self.rows),
            Verb("schedule", ScheduleCommand, self.command),
        )

    async def rows(self, principal: str, query: SchedulesQuery) -> Schedules:
        """The principal's schedules, or those that an agent declares, by name. Raises Unavailable."""
        owner = query.agent or principal
        found = map(_read, await self._bus.documents.list(subjects.schedule(owner, "*")))
        wanted = [one for one in found if one is not None and query.agent in (None, one.agent)]
        now = self._clock.now()
        rows = [ScheduleRow(schedule=one, next=_next(one, now)) for one in wanted]
        return Schedules(rows=tuple(sorted(rows, key=lambda row: row.schedule.name)))

    async def command(self, principal: str, command: ScheduleCommand) -> Schedule:
        """Do it; returns the schedule as it stands then, or stood before it was removed.

        Raises UsageError, NotFound, Conflict for one that an agent declares, Unavailable.
        """
        if command.verb == "put":
            return await self.put(self._asked(principal, command))
        if command.verb == "remove":
            return await self.remove(principal, command.name)
        paused = command.verb == "pause"
        return await self._change(
            principal, command.name, lambda found: replace(found, paused=paused)
        )

    def _asked(self, principal: str, command: ScheduleCommand) -> Schedule:
        """The schedule that a `put` asks for. Raises UsageError."""
        cron, capability = command.cron, command.capability
        if cron is None or capability is None:
            raise UsageError(
                f"the schedule {command.name} is incomplete", fix="give a capability and a cron"
            )
        fault = rules.fault(cron.expression, cron.timezone)
        if fault:
            raise UsageError(
                f"the schedule {command.name} cannot be put",
                why=fault,
                fix="write the times like '30 6 * * MON-FRI' and the zone like Europe/Berlin",
            )
        if command.priority not in subjects.PRIORITIES:
            raise UsageError(
                f"{command.priority[:80]!r} is no priority", fix="use high, normal or low"
            )
        pools = self._table.pools(capability)
        misfits = [schemas.check(pool.offer, bytes(cron.input)) for pool in pools]
        misfit = misfits[0] if misfits else None
        if misfit is not None and all(misfits):
            raise UsageError(
                f"the input of the schedule {command.name} does not fit {capability}",
                why=f"{misfit.path}: {misfit.message}",
                fix=f"`switchgear capability show {capability}` prints the schema",
            )
        return Schedule(
            name=command.name,
            owner=principal,
            capability=capability,
            cron=cron,
            created=self._clock.now(),
            priority=command.priority,
        )

    async def put(self, wanted: Schedule) -> Schedule:
        """Store a schedule, or its new terms, and arm its timer. Raises Conflict, Unavailable."""
        where = subjects.schedule(wanted.owner, wanted.name)
        for _ in range(TRIES):
            kept = await self._bus.documents.get(where)
            former = _read(kept)
            if former is not None and former.agent != wanted.agent:
                raise _declared(former)
            made = rules.changed(former, wanted)
            if made == former or await self._store(made, kept):
                if former is not None and former.capability != made.capability:
                    await self._bus.timers.disarm(_timer(former))
                await self._arm_next(made)
                return made
        raise Unavailable(f"{TRIES} changes of {where} in a row were refused")

    async def remove(self, owner: str, name: str, *, agent: str = "") -> Schedule:
        """Take a schedule away; tasks that it started go on. Raises NotFound, Conflict, Unavailable."""
        where = subjects.schedule(owner, name)
        for _ in range(TRIES):
            kept = await self._bus.documents.get(where)
            found = _read(kept)
            if kept is None or found is None:
                raise _missing(owner, name)
            if found.agent != agent:
                raise _declared(found)
            if isinstance(await self._bus.documents.remove(where, expect=kept.sequence), Appended):
                await self._bus.timers.disarm(_timer(found))
                return found
        raise Unavailable(f"{TRIES} changes of {where} in a row were refused")

    async def declared(self) -> list[Schedule]:
        """All schedules that agents' declarations made. Raises Unavailable."""
        found = map(_read, await self._bus.documents.list(subjects.schedule("*", "*")))
        return [one for one in found if one is not None and one.agent]

    async def _change(
        self, owner: str, name: str, change: Callable[[Schedule], Schedule]
    ) -> Schedule:
        where = subjects.schedule(owner, name)
        for _ in range(TRIES):
            kept = await self._bus.documents.get(where)
            found = _read(kept)
            if kept is None or found is None:
                raise _missing(owner, name)
            made = change(found)
            if made == found or await self._store(made, kept):
                if made.paused:
                    await self._bus.timers.disarm(_timer(made))
                else:
                    await self._arm_next(made)
                return made
        raise Unavailable(f"{TRIES} changes of {where} in a row were refused")

    async def _store(self, schedule: Schedule, kept: Kept | None) -> bool:
        """Store it in place of what was read. False: somebody else was faster."""
        answer = await self._bus.documents.put(
            subjects.schedule(schedule.owner, schedule.name),
            codec.encode(schedule),
            expect=0 if kept is None else kept.sequence,
        )
        return isinstance(answer, Appended)


def _read(kept: Kept | None) -> Schedule | None:
    """The schedule that a document is; None, and logged, for one that cannot be read or stands elsewhere."""
    if kept is None or kept.data is None:
        return None
    try:
        found = codec.decode(kept.data, Schedule, limit=limits.MAX_ENTRY)
    except SwitchgearError as error:
        log.error("coordinator.schedule-unreadable %s: %s", kept.subject, error)
        return None
    if subjects.schedule(found.owner, found.name) != kept.subject:
        log.error("coordinator.schedule-misplaced %s", kept.subject)
        return None
    return found


def _next(schedule: Schedule, now: datetime) -> datetime | None:
    try:
        return rules.next_due(schedule, now)
    except UsageError:
        return None


def _scope(schedule: Schedule) -> str:
    return subjects.scope(schedule.capability, schedule.owner, schedule.name)


def _timer(schedule: Schedule) -> str:
    return subjects.timer(_scope(schedule), CRON)


def _missing(owner: str, name: str) -> NotFound:
    return NotFound(f"no schedule {name} of {owner}", fix="`switchgear schedule ls` lists yours")


def _declared(schedule: Schedule) -> Conflict:
    return Conflict(
        f"the schedule {schedule.name} belongs to the agent {schedule.agent or schedule.owner}",
        why="it is declared with `on=`" if schedule.agent else "a client put it",
        fix="change the agent's declaration" if schedule.agent else "use another name",
    )
