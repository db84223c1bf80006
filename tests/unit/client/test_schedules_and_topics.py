"""Schedules and topics as a test's mesh and a script see them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, Cron, Message, Topic, testing
from switchgear.client.loop_thread import LoopThread
from switchgear.client.sync import SyncMesh
from switchgear.errors import NotFound, UsageError
from switchgear.testing.site import START


@dataclass
class Tag:
    ref: str


TAGGED = Topic("tagged", Tag)
BUILT = Topic("built", Tag)


def release() -> tuple[Agent, list[Any]]:
    """An agent with every kind of trigger, and what it was given."""
    agent = Agent("release", version="1.0.0")
    given: list[Any] = []

    @agent.capability("build", on=[TAGGED])
    async def build(tag: Tag, ctx: Context) -> Tag:
        given.append(tag)
        await ctx.publish(BUILT, tag)
        return tag

    @agent.capability("sweep", on=[Cron("*/10 * * * *", Tag("often"))])
    async def sweep(tag: Tag, ctx: Context) -> Tag:
        given.append((tag.ref, ctx.task.scheduled_for))
        return tag

    @agent.respond
    async def newest(question: str, message: Message) -> str:
        return f"{question} {message.sender}"

    assert (build.name, sweep.name, newest.__name__) == ("build", "sweep", "newest")
    return agent, given


async def test_message_in_a_tests_mesh_starts_the_task_of_an_agent_that_joins_for_it() -> None:
    agent, given = release()
    async with testing.mesh(agent) as mesh, mesh.subscribe(BUILT) as feed:
        await mesh.publish(TAGGED, Tag("v1"))
        async with asyncio.timeout(60):
            async for value, message in feed:
                assert (value, message.sender) == (Tag("v1"), "release")
                break
    assert given == [Tag("v1")]


async def test_request_in_a_tests_mesh_is_answered() -> None:
    agent, _ = release()
    async with testing.mesh(agent) as mesh:
        assert await mesh.request("release", "hello", str) == "hello tester"


async def test_declared_cron_runs_at_its_times_of_virtual_time() -> None:
    agent, given = release()
    async with testing.mesh(agent) as mesh:
        (row,) = await mesh.schedules.list(agent="release")
        assert row.next == START + timedelta(minutes=10)
        await asyncio.sleep(timedelta(minutes=25).total_seconds())
    assert given == [("often", START + timedelta(minutes=minutes)) for minutes in (10, 20)]


@pytest.fixture
def script() -> Iterator[SyncMesh]:
    """A script's mesh in memory."""
    agent, _ = release()
    thread = LoopThread()
    made = testing.mesh(agent)
    mesh = thread.call(made.__aenter__())
    yield SyncMesh(thread, mesh)
    thread.call(made.__aexit__(None, None, None))
    thread.stop()


def test_script_publishes_hears_and_asks(script: SyncMesh) -> None:
    heard = script.subscribe(BUILT)
    sent = script.publish(TAGGED, Tag("v1"), key="v1")
    assert script.publish(TAGGED, Tag("v1"), key="v1") == sent
    value, message = next(heard)
    assert (value, message.sender) == (Tag("v1"), "release")
    assert script.request("release", "hello", str) == "hello tester"
    with pytest.raises(UsageError):
        script.publish("tagged", object())


def test_script_keeps_schedules(script: SyncMesh) -> None:
    schedules = script.schedules
    schedules.put("s", "build", Tag("x"), Cron("0 4 1 1 *"), priority="low")
    (row,) = schedules.list()
    assert row.schedule.priority == "low"
    assert row.next is not None
    assert row.next >= datetime(2026, 1, 1, 4, tzinfo=UTC)
    assert schedules.pause("s").paused
    assert not schedules.resume("s").paused
    assert schedules.remove("s").name == "s"
    with pytest.raises(NotFound):
        schedules.remove("s")
