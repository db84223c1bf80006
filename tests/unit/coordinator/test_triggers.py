"""Triggers: whose declaration holds, the schedules that it makes, and the tasks that messages start."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import Raw

from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import TopicTrigger
from switchgear.contract.cron import Cron
from switchgear.contract.queries import TopicMessage
from switchgear.contract.topic import Topic
from switchgear.contract.trigger import Trigger
from switchgear.testing.site import START
from tests.unit.coordinator.scheduling import Place, opened, place

MINUTE = timedelta(minutes=1)
TENTH = Cron("*/10 * * * *", {"n": 1}).trigger()
SEVENTH = Cron("*/7 * * * *").trigger()
TAGGED = TopicTrigger(topic="tagged")


async def names(here: Place, agent: str = "worker") -> list[tuple[str, str]]:
    """Times and versions of the schedules that an agent's declarations made."""
    rows = await here.mesh.schedules.list(agent=agent)
    return sorted((row.schedule.cron.expression, row.schedule.version) for row in rows)


async def kept(here: Place, capability: str = "report") -> Trigger | None:
    found = await here.bus.documents.get(subjects.trigger(capability))
    if found is None or found.data is None:
        return None
    return codec.decode(found.data, Trigger, limit=limits.MAX_ENTRY)


# crons


async def test_declared_cron_starts_tasks_that_the_agent_owns() -> None:
    async with place() as here:
        await here.announce(crons=(TENTH,))
        await here.until(10 * MINUTE)
        (task,) = here.started()
        assert (task.owner, bytes(opened(task).input)) == ("worker", b'{"n":1}')
        assert opened(task).scheduled_for == START + 10 * MINUTE


async def test_cron_goes_on_while_no_instance_lives() -> None:
    """Its task waits for one."""
    async with place() as here:
        where = await here.announce(crons=(TENTH,))
        await here.withdraw(where)
        await here.until(10 * MINUTE)
        (task,) = here.started()
        assert task.position == "waiting"


async def test_newest_version_declares_and_an_older_one_beside_it_does_not_count() -> None:
    async with place() as here:
        await here.announce(version="1.9.0", crons=(TENTH,))
        assert await names(here) == [("*/10 * * * *", "1.9.0")]
        await here.announce(version="1.10.0", crons=(TENTH, SEVENTH))
        assert await names(here) == [("*/10 * * * *", "1.10.0"), ("*/7 * * * *", "1.10.0")]
        await here.announce(version="1.8.0", crons=(Cron("* * * * *").trigger(),))
        await here.until(2 * MINUTE)
        assert len(await names(here)) == 2


async def test_what_the_newest_version_no_longer_declares_is_removed() -> None:
    async with place() as here:
        await here.announce(version="1.0.0", crons=(TENTH, SEVENTH))
        await here.announce(version="1.1.0", crons=(SEVENTH,))
        assert await names(here) == [("*/7 * * * *", "1.1.0")]
        await here.announce(version="1.2.0")
        assert await names(here) == []
        assert here.armed() == []
        await here.until(10 * MINUTE)
        assert here.started() == []


async def test_changed_input_keeps_what_was_handled() -> None:
    async with place() as here:
        await here.announce(crons=(TENTH,))
        await here.until(10 * MINUTE)
        await here.announce(version="1.1.0", crons=(Cron("*/10 * * * *", {"n": 2}).trigger(),))
        (row,) = await here.mesh.schedules.list(agent="worker")
        assert row.schedule.fired == START + 10 * MINUTE
        assert bytes(row.schedule.cron.input) == b'{"n":2}'


async def test_rolled_back_version_declares_once_the_newer_one_has_been_gone_for_long() -> None:
    async with place() as here:
        await here.announce(version="1.0.0", crons=(TENTH,))
        newer = await here.announce(version="2.0.0", crons=(SEVENTH,))
        assert await names(here) == [("*/7 * * * *", "2.0.0")]
        await here.withdraw(newer)
        await here.quiet(20)
        assert await names(here) == [("*/7 * * * *", "2.0.0")]
        await here.quiet(20)
        assert await names(here) == [("*/10 * * * *", "1.0.0")]


async def test_of_one_version_the_youngest_instance_declares() -> None:
    """Code that was changed without a new number, as during development."""
    async with place() as here:
        await here.announce(instance="old", crons=(TENTH,))
        await here.announce(instance="new", crons=(SEVENTH,))
        await here.quiet(30)
        assert await names(here) == [("*/7 * * * *", "1.0.0")]


async def test_replicas_make_each_schedule_once() -> None:
    async with place(3) as here:
        await here.announce(crons=(TENTH, TENTH))
        assert len(await names(here)) == 2  # the same times twice are two schedules
        await here.until(10 * MINUTE)
        assert len(here.started()) == 2


async def test_capability_without_triggers_is_not_kept() -> None:
    async with place() as here:
        await here.announce()
        assert await kept(here) is None


# topics


async def test_message_starts_one_task_of_each_capability_that_it_triggers() -> None:
    async with place() as here:
        await here.announce("a", capability="build", topics=(TAGGED,))
        await here.announce("b", capability="note", topics=(TAGGED, TopicTrigger(topic="other")))
        await here.announce("c", capability="report")
        await here.mesh.publish("tagged", {"ref": "v1"}, priority="low")
        await here.quiet()
        (build,), (note,) = here.started("build"), here.started("note")
        assert (build.owner, note.owner) == ("a", "b")
        assert bytes(opened(build).input) == b'{"ref":"v1"}'
        assert opened(note).priority == "low"
        assert here.started("report") == []


async def test_addressed_message_starts_tasks_of_that_agent_only() -> None:
    async with place() as here:
        await here.announce("a", capability="build", topics=(TAGGED,))
        await here.announce("b", capability="note", topics=(TAGGED,))
        await here.mesh.publish("tagged", None, to="b")
        await here.quiet()
        assert (len(here.started("build")), len(here.started("note"))) == (0, 1)


async def test_message_with_a_key_starts_its_task_once() -> None:
    async with place() as here:
        await here.announce(topics=(TAGGED,))
        first = await here.mesh.publish("tagged", 1, key="k")
        await here.quiet(600)  # longer than the broker remembers ids
        assert await here.mesh.publish("tagged", 1, key="k") == first
        assert await here.mesh.publish("tagged", 1, key="other") != first
        await here.quiet()
        assert len(here.started()) == 2


async def test_message_waits_for_a_coordinator() -> None:
    async with place() as here:
        await here.announce(topics=(TAGGED,))
        await here.site.crash(here.site.replicas[0])
        await here.mesh.publish("tagged", 1)
        await here.quiet(5)
        assert here.started() == []
        await here.site.coordinate()
        await here.quiet(1)
        assert len(here.started()) == 1


async def test_message_starts_its_task_while_no_instance_lives() -> None:
    async with place() as here:
        where = await here.announce(topics=(TAGGED,))
        await here.withdraw(where)
        await here.site.crash(here.site.replicas[0])
        await here.site.coordinate()
        await here.mesh.publish("tagged", 1)
        await here.quiet()
        assert [one.position for one in here.started()] == ["waiting"]


async def test_expired_message_is_dropped() -> None:
    async with place() as here:
        await here.announce(topics=(TAGGED,))
        await here.site.crash(here.site.replicas[0])
        # The broker drops it too; what it kept on longer is judged by the message itself.
        now = here.site.clock.now()
        late = TopicMessage(
            id="m1", sender="x", time=now, value=Raw(b"1"), expires=now + timedelta(seconds=5)
        )
        await here.bus.topics.publish(subjects.topic("tagged"), codec.encode(late), id="m1")
        await here.mesh.publish("tagged", 1, ttl=timedelta(seconds=30))
        await here.quiet(10)
        await here.site.coordinate()
        await here.quiet(1)
        assert len(here.started()) == 1


async def test_message_that_cannot_be_read_is_passed_over() -> None:
    async with place() as here:
        await here.announce(topics=(TAGGED,))
        await here.bus.topics.publish(subjects.topic("tagged"), b"{]", id="bad")
        await here.bus.topics.publish("sg.topic.tagged.what", b"{}", id="bad2")
        await here.mesh.publish("tagged", 1)
        await here.quiet(3)
        assert len(here.started()) == 1
        backlog = await here.bus.work.backlog("intake-topics", source="topics")
        assert backlog is not None
        assert (backlog.pending, backlog.unsettled) == (0, 0)


async def test_chain_of_messages_ends_at_the_depth_limit() -> None:
    """A task that publishes what triggers itself."""
    async with place() as here:
        await here.announce(topics=(TAGGED,))
        now = here.site.clock.now()
        for depth in (limits.MAX_DEPTH, limits.MAX_DEPTH + 1):
            deep = TopicMessage(id=f"m{depth}", sender="x", time=now, value=Raw(b"1"), depth=depth)
            await here.bus.topics.publish(
                subjects.topic("tagged"), codec.encode(deep), id=f"m{depth}"
            )
        await here.quiet()
        assert [one.ended for one in here.started()] == [None, "rejected"]


@pytest.mark.parametrize("replicas", [1, 3])
async def test_message_that_is_stored_nowhere_starts_one_task(replicas: int) -> None:
    topic = Topic("tagged", int, durable=False)
    async with place(replicas) as here:
        await here.announce(topics=(TopicTrigger(topic="tagged", durable=False),))
        await here.mesh.publish(topic, 1)
        await here.quiet()
        assert len(here.started()) == 1
