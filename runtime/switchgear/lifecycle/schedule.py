"""When a schedule is due, and what its firing starts: cron expressions in a time zone, missed times, overlap.

Everything here follows from the schedule as it is stored and the time, so late, early and doubled timers are
harmless, and several replicas that fire together start the same tasks (rule 11).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from switchgear import ids
from switchgear.contract.announcement import CronTrigger
from switchgear.contract.queries import Schedule
from switchgear.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronsim import CronSim

MAX_CATCH_UP = 100
"""Due times that one firing handles; what is left is fired at once again."""
TOLERANCE = timedelta(seconds=60)
"""How late a time may be handled that `missed="skip"` does not count as missed."""

_MAX_EXPRESSION = 256
"""Characters: far beyond any expression that a person writes."""
_FIELDS = 5
_HOURS = range(24)
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
"""From when on an expression must name a time within fifty years, to be one at all."""
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_BLANKS = re.compile(r"\s+")


class Start(NamedTuple):
    """One task that a firing starts."""

    due: datetime
    """The due time that it is for, in UTC."""
    task: str
    """Its id, derived from the due time: however often it is submitted, there is one."""
    after: str | None = None
    """The task that must have ended before."""
    then: str | None = None
    """The task that waits for this one's end, or may come to."""
    cancel_previous: bool = False
    """The schedule's last task is still open and shall be cancelled."""


class Fire(NamedTuple):
    """What becomes of a schedule whose timer came."""

    starts: tuple[Start, ...]
    """In the order of their due times."""
    schedule: Schedule
    """As it is to be stored once all of them stand; the same object where nothing changes."""
    next: datetime | None
    """When its timer is to come again (in the past: at once); None while it is paused, or is due no more."""


def fault(expression: str, timezone: str) -> str:
    """What is wrong with an expression and its time zone; empty for nothing."""
    try:
        _zone(timezone)
    except UsageError as error:
        return error.what
    fields = _BLANKS.split(expression.strip())
    if len(expression) > _MAX_EXPRESSION or len(fields) != _FIELDS:
        return (
            f"{expression[:80]!r} is no cron expression of five fields: "
            "minute, hour, day of month, month, day of week"
        )
    try:
        following = next_after(CronTrigger(expression=expression, timezone=timezone), _FIRST)
    except UsageError as error:
        return error.what
    return "" if following else f"the cron expression {expression!r} names no time at all"


def next_after(cron: CronTrigger, moment: datetime) -> datetime | None:
    """The first due time after the moment, in UTC; None for an expression that names none within fifty years.

    Where the hour is `*`, times follow the clock as it really runs: none in a skipped hour, both of a doubled one.
    Fixed hours are met once a day: those that are skipped right after the gap, doubled ones the first time.
    Raises UsageError for an expression or time zone that cannot be read.
    """
    zone = _zone(cron.timezone)
    local = moment.astimezone(zone)
    minute, hour, *days = _fields(cron.expression)
    hours = _parsed(cron.expression, local).hours
    if all(each in hours for each in _HOURS):
        # With a star there, cronsim walks through real time; its own treatment of fixed hours is not ours.
        running = _parsed(" ".join([minute, "*", *days]), local)
        return _first(moment, (found.astimezone(UTC) for found in running))
    fixed = _parsed(" ".join([minute, hour, *days]), local.replace(tzinfo=None))
    return _first(moment, (_once(found, zone) for found in fixed))


def due_times(schedule: Schedule, now: datetime) -> list[datetime]:
    """The due times that are to be handled now, oldest first, by the policy for missed ones.

    At most 100: with `missed="all"` the oldest of them. Paused or not, a schedule goes on where it stopped.
    Raises UsageError for an expression or time zone that cannot be read.
    """
    cron = schedule.cron
    begin = schedule.fired or schedule.created
    if cron.missed == "latest":
        newest = _newest(cron, begin, now)
        return [] if newest is None else [newest]
    if cron.missed == "skip":
        begin = max(begin, now - TOLERANCE - _SECOND)
    found: list[datetime] = []
    while len(found) < MAX_CATCH_UP:
        begin = next_after(cron, begin)
        if begin is None or begin > now:
            break
        if cron.missed == "all" or now - begin <= TOLERANCE:
            found.append(begin)
    return found


def fire(schedule: Schedule, now: datetime, *, previous_open: bool) -> Fire:
    """What to start now, what to store then, and when to look again.

    `previous_open`: the schedule's last task has not ended. A batch of missed times is never run side by side: its
    tasks come after one another, but with `overlap="cancel"` only the newest is started. Raises UsageError for an
    expression or time zone that cannot be read.
    """
    if schedule.paused:
        return Fire((), schedule, None)
    due = due_times(schedule, now)
    if not due:
        return Fire((), schedule, _following(schedule, now))
    starts = _starts(schedule, due, previous_open=previous_open)
    stored = replace(schedule, fired=due[-1], last=starts[-1].task if starts else schedule.last)
    rest = due[-1] if schedule.cron.missed == "all" else max(due[-1], now)
    return Fire(tuple(starts), stored, next_after(schedule.cron, rest))


def next_due(schedule: Schedule, now: datetime) -> datetime | None:
    """When its timer must come: at the oldest due time that is not handled; None while paused."""
    if schedule.paused:
        return None
    waiting = due_times(schedule, now)
    return waiting[0] if waiting else _following(schedule, now)


def changed(former: Schedule | None, put: Schedule) -> Schedule:
    """A schedule as it is stored when it is put again: what was handled stays handled, paused stays paused."""
    if former is None:
        return put
    same_times = (former.cron.expression, former.cron.timezone) == (
        put.cron.expression,
        put.cron.timezone,
    )
    return replace(
        put,
        # Other times begin to count when they are put, not when the schedule was.
        created=former.created if same_times else put.created,
        fired=former.fired if same_times else None,
        last=former.last if former.capability == put.capability else "",
        paused=former.paused,
    )


def task_id(schedule: Schedule, due: datetime) -> str:
    """The id of the task for this due time."""
    moment = due.astimezone(UTC).isoformat()
    return ids.derived_id("schedule", schedule.owner, schedule.name, moment)


def _following(schedule: Schedule, now: datetime) -> datetime | None:
    """The next time that is neither past nor handled: another replica's clock may be ahead of this one's."""
    return next_after(schedule.cron, max(now, schedule.fired or now))


def _starts(schedule: Schedule, due: list[datetime], *, previous_open: bool) -> list[Start]:
    overlap = schedule.cron.overlap
    previous_open = previous_open and bool(schedule.last)
    if previous_open and overlap == "skip":
        return []
    if overlap == "cancel":
        due = due[-1:]
    after = schedule.last if previous_open else None
    found: list[Start] = []
    following = next_after(schedule.cron, due[-1])
    for index, moment in enumerate(due):
        then = due[index + 1] if index + 1 < len(due) else following
        # A skipped overlap needs nobody to be told of the end; a batch's own tasks do.
        told = overlap != "skip" or index + 1 < len(due)
        found.append(
            Start(
                due=moment,
                task=task_id(schedule, moment),
                after=after,
                then=task_id(schedule, then) if told and then is not None else None,
                cancel_previous=overlap == "cancel" and previous_open,
            )
        )
        after = found[-1].task
    return found


def _newest(cron: CronTrigger, begin: datetime, now: datetime) -> datetime | None:
    """The last due time in the interval, by halving it: a year of minutes costs no more than an hour."""
    newest = next_after(cron, begin)
    if newest is None or newest > now:
        return None
    end = now
    while end - newest > _SECOND:
        middle = newest + (end - newest) / 2
        found = next_after(cron, middle)
        if found is not None and found <= now:
            newest = found
        else:
            end = middle
    return newest


def _first(moment: datetime, found: Iterator[datetime]) -> datetime | None:
    return next((one for one in found if one > moment), None)


def _fields(expression: str) -> list[str]:
    return _BLANKS.split(expression.strip())


def _parsed(expression: str, moment: datetime) -> CronSim:
    from cronsim import CronSim, CronSimError

    try:
        return CronSim(expression, moment)
    except (CronSimError, ValueError) as error:
        raise UsageError(f"{expression[:80]!r} is no cron expression: {error}") from None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"{name[:80]!r} is no time zone that is known here",
            fix="name one such as Europe/Berlin; `pip install tzdata` where the system has none",
        ) from None


def _once(local: datetime, zone: tzinfo) -> datetime:
    """The moment at which a local time is met: the first of two, or the end of the gap that it lies in."""
    while True:
        moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment
        local += _MINUTE
