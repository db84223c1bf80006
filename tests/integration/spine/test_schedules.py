"""Schedules on a real server: timers that the server keeps, and replicas that share them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw

from switchgear.agent.context import Context
from switchgear.agent.declare import Agent
from switchgear.clock import SYSTEM
from switchgear.contract import codec, subjects
from switchgear.contract.announcement import CronTrigger
from switchgear.contract.cron import Cron, Missed, Overlap
from switchgear.contract.queries import Schedule
from switchgear.errors import NotFound, UsageError
from tests.integration.spine.stage import OWNER, Stage, Text, until

pytestmark = pytest.mark.integration

MINUTE = timedelta(minutes=1)
TIMER = f"sg.timer.work.{OWNER}.minutely.cron"


def reporter() -> tuple[Agent, list[datetime]]:
    """An agent that notes for which times its tasks ran."""
    agent = Agent("reporter", version="1.0.0")
    ran: list[datetime] = []

    @agent.capability("work")
    async def work(value: Text, ctx: Context) -> Text:
        assert ctx.task.scheduled_for is not None
        ran.append(ctx.task.scheduled_for)
        return value

    assert work.name == "work"
    return agent, ran


async def overdue(stage: Stage, *, missed: Missed, overlap: Overlap, minutes: int) -> datetime:
    """Keep a schedule whose coordinators have been away; returns when it was put."""
    created = SYSTEM.now().replace(second=0, microsecond=0) - minutes * MINUTE
    cron = CronTrigger(
        expression="* * * * *", missed=missed, overlap=overlap, input=codec_text("now")
    )
    schedule = Schedule(name="minutely", owner=OWNER, capability="work", cron=cron, created=created)
    bus = await stage.bus("setup", "setup")
    await bus.documents.put(subjects.schedule(OWNER, "minutely"), codec.encode(schedule))
    return created


def codec_text(text: str) -> Raw:
    return Raw(codec.encode(Text(text)))


async def test_replicas_that_come_back_run_every_missed_time_once_and_in_order(
    stage: Stage,
) -> None:
    """All of them find the schedule without a timer and arm it; the server's timers reach any of them."""
    created = await overdue(stage, missed="all", overlap="queue", minutes=12)
    await asyncio.gather(*(stage.coordinate() for _ in range(3)))
    agent, ran = reporter()
    await stage.join(agent)

    async def all_ran() -> bool:
        return len(ran) >= 12

    await until(all_ran)
    assert ran[:12] == [created + (minute + 1) * MINUTE for minute in range(12)]
    assert len(set(ran)) == len(ran)


async def test_next_time_is_armed_on_the_server(stage: Stage) -> None:
    created = await overdue(stage, missed="latest", overlap="skip", minutes=3)
    await stage.coordinate()
    agent, ran = reporter()
    await stage.join(agent)
    mesh = await stage.client()

    async def ran_once() -> bool:
        (row,) = await mesh.schedules.list()
        return bool(ran) and row.schedule.fired == ran[-1]

    await until(ran_once)
    assert ran[0] >= created + 3 * MINUTE
    assert ran == [ran[0] + number * MINUTE for number in range(len(ran))]  # a minute may end here

    async def armed() -> bool:
        return await mesh.bus.timers.armed("sg.timer.*.*.*.cron") == [TIMER]

    await until(armed)
    (row,) = await mesh.schedules.list()
    assert row.next is not None
    assert row.schedule.fired is not None
    assert row.next - row.schedule.fired == MINUTE
    assert row.schedule.last


async def test_client_puts_pauses_resumes_and_removes(stage: Stage) -> None:
    await stage.coordinate()
    mesh = await stage.client()
    put = await mesh.schedules.put(
        "weekly", "work", Text("x"), Cron("30 6 * * MON", timezone="America/New_York")
    )
    (row,) = await mesh.schedules.list()
    assert row.schedule == put
    assert row.next is not None
    assert row.next.astimezone(UTC).hour in (10, 11)
    assert (await mesh.schedules.pause("weekly")).paused
    assert await mesh.bus.timers.armed("sg.timer.*.*.*.cron") == []
    assert not (await mesh.schedules.resume("weekly")).paused
    assert len(await mesh.bus.timers.armed("sg.timer.*.*.*.cron")) == 1
    await mesh.schedules.remove("weekly")
    assert await mesh.schedules.list() == []
    with pytest.raises(NotFound):
        await mesh.schedules.resume("weekly")
    with pytest.raises(UsageError, match="cannot be put"):
        await mesh.schedules.put("bad", "work", None, "30 6 * * FUNDAY")


async def test_declared_cron_becomes_a_schedule_of_the_agent(stage: Stage) -> None:
    await stage.coordinate()
    agent = Agent("nightly", version="1.0.0")

    @agent.capability("sweep", on=[Cron("0 3 * * *", Text("x"), timezone="Europe/Berlin")])
    async def sweep(value: Text, ctx: Context) -> Text:
        return value

    member = await stage.join(agent)
    mesh = await stage.client()

    async def declared() -> bool:
        return len(await mesh.schedules.list(agent="nightly")) == 1

    await until(declared)
    await member.worker.stop()
    (row,) = await mesh.schedules.list(agent="nightly")
    assert (row.schedule.owner, row.schedule.capability) == ("nightly", sweep.name)
    assert row.next is not None
