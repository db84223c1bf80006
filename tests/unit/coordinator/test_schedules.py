"""Schedules: one task a due time, whoever fires it, and what clients ask for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.contract import subjects
from switchgear.contract.cron import Cron
from switchgear.contract.queries import Schedule, ScheduleCommand
from switchgear.errors import Conflict, NotFound, ProtocolError, UsageError
from switchgear.lifecycle.schedule import task_id
from switchgear.testing.site import START
from tests.unit.coordinator.scheduling import OWNER, opened, place

MINUTE = timedelta(minutes=1)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_each_due_time_starts_one_task_with_the_input_of_its_owner() -> None:
    async with place() as here:
        await here.announce()
        await here.mesh.schedules.put("s", "report", {"n": 1}, "*/10 * * * *", priority="high")
        await here.until(30 * MINUTE)
        assert here.due() == [
            START + 10 * MINUTE
        ]  # the first is still open: the others are skipped
        (task,) = here.started()
        assert (bytes(opened(task).input), opened(task).priority) == (b'{"n":1}', "high")
        assert task.owner == OWNER
        assert task.dispatched is not None
        assert task.dispatched.scheduled_for == START + 10 * MINUTE


@pytest.mark.parametrize("replicas", [1, 3])
async def test_doubled_and_foreign_timers_start_nothing_twice(replicas: int) -> None:
    """Anybody may wake a schedule; replicas get the same timer at the same time."""
    async with place(replicas) as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *", overlap="queue")
        due = subjects.due(subjects.scope("report", OWNER, "s"), "cron")
        for minute in (5, 10, 15, 20):
            await here.until(minute * MINUTE)
            for _ in range(4):
                await here.bus.timers.wake(due)
        await here.until(25 * MINUTE)
        assert here.due() == [START + 10 * MINUTE, START + 20 * MINUTE]
        assert len(here.armed()) == 1


async def test_queued_task_comes_after_the_one_before() -> None:
    async with place() as here:
        await here.announce()
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *", overlap="queue")
        await here.until(20 * MINUTE)
        first, second = here.started()
        assert opened(second).after == first.task
        assert opened(first).then == second.task
        assert (first.position, second.position) == ("held", "waiting")


async def test_cancelled_overlap_ends_the_task_before() -> None:
    async with place() as here:
        await here.announce()
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *", overlap="cancel")
        await here.until(21 * MINUTE)
        first, second = here.started()
        assert first.ended == "cancelled"
        assert second.position == "held"


async def test_ended_task_lets_the_next_one_start() -> None:
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        await here.until(10 * MINUTE)
        (first,) = here.started()
        await (await here.mesh.get(first.task)).cancel("enough")
        await here.until(20 * MINUTE)
        assert len(here.started()) == 2


async def test_paused_schedule_starts_nothing_and_then_what_it_missed() -> None:
    async with place() as here:
        schedules = here.mesh.schedules
        await schedules.put(
            "s", "report", None, Cron("*/10 * * * *", missed="all", overlap="queue")
        )
        paused = await schedules.pause("s")
        assert paused.paused
        assert (await schedules.list())[0].next is None
        await here.until(35 * MINUTE)
        assert here.started() == []
        await schedules.resume("s")
        await here.quiet(1)
        assert here.due() == [START + minutes * MINUTE for minutes in (10, 20, 30)]


async def test_coordinator_that_was_away_handles_the_latest_missed_time() -> None:
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        await here.site.crash(here.site.replicas[0])
        await here.until(35 * MINUTE)
        assert here.started() == []
        await here.site.coordinate()
        await here.quiet(2)
        assert here.due() == [START + 30 * MINUTE]


async def test_schedule_without_a_timer_is_armed_by_a_replica_that_starts() -> None:
    """A replica died between the document and the timer."""
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        (timer,) = here.armed()
        await here.bus.timers.disarm(timer)
        await here.site.coordinate()
        assert here.armed() == [timer]


async def test_schedule_without_a_timer_is_armed_within_a_minute() -> None:
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        (timer,) = here.armed()
        await here.bus.timers.disarm(timer)
        await here.until(timedelta(seconds=61))
        assert here.armed() == [timer]


async def test_replica_that_dies_after_the_submission_leaves_one_task() -> None:
    """The task stands, the document does not say so yet: the redelivered timer finds it."""
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        kept = await here.stored(OWNER, "s")
        assert kept is not None
        due = START + 10 * MINUTE
        scope = subjects.scope("report", OWNER, task_id(kept, due))
        await here.until(9 * MINUTE)
        broker = here.site.broker
        watched = broker.ledger.heard
        replica = here.site.replicas[0]

        def die(_stored: object) -> None:
            broker.crash(replica.bus)

        watched.append(die)
        await here.until(10 * MINUTE)
        watched.remove(die)
        assert [one.scope for one in here.started()] == [scope]
        again = await here.stored(OWNER, "s")
        assert again is not None
        assert again.fired is None
        await here.site.coordinate()
        await here.quiet(3)
        assert [one.scope for one in here.started()] == [scope]
        again = await here.stored(OWNER, "s")
        assert again is not None
        assert again.fired == due
        assert len(here.armed()) == 1


async def test_put_again_for_another_capability_leaves_no_timer_of_the_first() -> None:
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        await here.mesh.schedules.put("s", "audit", None, "*/10 * * * *")
        assert here.armed() == [f"sg.timer.audit.{OWNER}.s.cron"]
        await here.bus.timers.wake(subjects.due(subjects.scope("report", OWNER, "s"), "cron"))
        await here.until(10 * MINUTE)
        assert (len(here.started("report")), len(here.started("audit"))) == (0, 1)


async def test_removed_schedule_starts_nothing_more() -> None:
    async with place() as here:
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        removed = await here.mesh.schedules.remove("s")
        assert removed.name == "s"
        assert (await here.mesh.schedules.list(), here.armed()) == ([], [])
        await here.until(10 * MINUTE)
        assert here.started() == []
        for ask in (here.mesh.schedules.pause, here.mesh.schedules.remove):
            with pytest.raises(NotFound, match="no schedule s"):
                await ask("s")


async def test_list_shows_own_schedules_by_name_and_when_they_are_due() -> None:
    async with place() as here:
        await here.mesh.schedules.put("b", "report", None, "0 6 * * *", timezone="Europe/Berlin")
        await here.mesh.schedules.put("a", "report", None, "*/10 * * * *")
        other = type(here.mesh)(here.site.bus("client-2"), "bob", clock=here.site.clock)
        await other.schedules.put("c", "report", None, "*/10 * * * *")
        rows = await here.mesh.schedules.list()
        assert [(row.schedule.name, row.next) for row in rows] == [
            ("a", START + 10 * MINUTE),
            ("b", START + timedelta(hours=5)),
        ]


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        (Cron("61 * * * *"), "Bad minute"),
        (Cron("* * *"), "five fields"),
        (Cron("* * * * *", timezone="Mars/Olympus"), "no time zone"),
    ],
)
async def test_cron_that_cannot_be_used_is_refused_with_what_is_wrong(
    cron: Cron, told: str
) -> None:
    async with place() as here:
        with pytest.raises(UsageError) as refused:
            await here.mesh.schedules.put("s", "report", None, cron)
        assert told in refused.value.why
        assert (refused.value.code, bool(refused.value.fix)) == ("SG1001", True)


async def test_input_priority_and_names_are_checked_when_it_is_put() -> None:
    async with place() as here:
        await here.announce(schema=SCHEMA)
        put = here.mesh.schedules.put
        with pytest.raises(UsageError, match="does not fit report"):
            await put("s", "report", {"n": "x"}, "* * * * *")
        with pytest.raises(UsageError, match="priority"):
            await put("s", "report", {"n": 1}, "* * * * *", priority="urgent")
        with pytest.raises(ProtocolError):
            await put("a.b", "report", {"n": 1}, "* * * * *")
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            await put("s", "report", object(), "* * * * *")
        bare = ScheduleCommand(verb="put", name="s")
        with pytest.raises(UsageError, match="incomplete"):
            await here.mesh.ask("schedule", bare, Schedule)
        assert await here.mesh.schedules.list() == []
        await put("s", "report", {"n": 1}, "* * * * *")
        await put("t", "nobody-offers-it", {"n": "x"}, "* * * * *")


async def test_input_of_a_cron_counts_where_none_is_given() -> None:
    async with place() as here:
        put = here.mesh.schedules.put
        own = await put("s", "report", None, Cron("* * * * *", {"n": 1}))
        assert bytes(own.cron.input) == b'{"n":1}'
        given = await put("t", "report", {"n": 2}, Cron("* * * * *", {"n": 1}))
        assert bytes(given.cron.input) == b'{"n":2}'


async def test_name_that_an_agent_declares_is_not_taken() -> None:
    async with place() as here:
        await here.announce(crons=(Cron("*/10 * * * *").trigger(),))
        (row,) = await here.mesh.schedules.list(agent="worker")
        agent = type(here.mesh)(here.site.bus("client-2"), "worker", clock=here.site.clock)
        with pytest.raises(Conflict, match="belongs to the agent worker"):
            await agent.schedules.put(row.schedule.name, "report", None, "* * * * *")
        with pytest.raises(Conflict, match="declared"):
            await agent.schedules.remove(row.schedule.name)


async def test_damaged_document_stops_nothing_else() -> None:
    async with place() as here:
        await here.bus.documents.put(subjects.schedule(OWNER, "bad"), b"{]")
        await here.bus.documents.put(subjects.schedule(OWNER, "lie"), b'{"name":"x"}')
        await here.mesh.schedules.put("s", "report", None, "*/10 * * * *")
        assert [row.schedule.name for row in await here.mesh.schedules.list()] == ["s"]
        await here.bus.timers.wake(subjects.due(subjects.scope("report", OWNER, "bad"), "cron"))
        await here.site.coordinate()
        await here.until(10 * MINUTE)
        assert len(here.started()) == 1
        await here.mesh.schedules.put("bad", "report", None, "*/10 * * * *")
        assert len(await here.mesh.schedules.list()) == 2
