"""Resources: opened once per process, given to handlers, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from switchgear import Agent, Context, Resource, TaskDead, testing
from tests.unit.agent.stage import Number, Text, stage


def with_client(log: list[str]) -> tuple[Agent, Resource[str]]:
    """An agent with a resource that tells when it is opened and closed."""
    agent = Agent("user", version="1.0.0")

    @agent.resource
    async def client() -> AsyncIterator[str]:
        log.append("opened")
        yield "real"
        log.append("closed")

    @agent.capability("use")
    async def use(value: Number, ctx: Context) -> Text:
        await asyncio.sleep(1)
        return Text(ctx.use(client))

    return agent, client


async def test_resource_is_opened_once_and_closed_when_the_instance_leaves() -> None:
    """All handlers of a process share it; each process has its own."""
    log: list[str] = []
    agent, _ = with_client(log)
    async with stage(agent) as on:
        tasks = await on.mesh.submit_many("use", [Number(n) for n in range(8)])
        assert [await task.result() for task in tasks] == [{"text": "real"}] * 8
        assert log == ["opened"]
        await on.join(agent)
        assert log == ["opened"] * 2
        await on.site.members[0].worker.drain()
        assert log == ["opened", "opened", "closed"]
    assert log == ["opened", "opened", "closed", "closed"]


async def test_replaced_resource_is_never_opened() -> None:
    """A test's value stands in from the start."""
    log: list[str] = []
    agent, client = with_client(log)
    async with testing.mesh(agent) as mesh:
        mesh.replace(client, "fake")
        assert await mesh.call("use", Number(1)) == {"text": "fake"}
        mesh.replace(client, "other")
        assert await mesh.call("use", Number(1)) == {"text": "other"}
    assert log == []


async def test_resource_of_another_agent_is_an_error() -> None:
    """A handler may use what its own agent declared."""
    _, client = with_client([])
    agent = Agent("thief", version="1.0.0")

    @agent.capability("steal")
    async def steal(value: Number, ctx: Context) -> Text:
        return Text(ctx.use(client))

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead, match="is not open"):
            await mesh.call(steal, Number(1))


async def test_resource_that_cannot_be_opened_stops_the_start() -> None:
    """The instance is never announced; what was opened before is closed."""
    log: list[str] = []
    agent, _ = with_client(log)

    @agent.resource
    async def broken() -> AsyncIterator[str]:
        raise OSError("no license")
        yield ""  # a generator, by its yield

    async with stage() as on:
        with pytest.raises(OSError, match="no license"):
            await on.join(agent)
        assert (await on.mesh.agents()).instances == ()
    assert log == ["opened", "closed"]
