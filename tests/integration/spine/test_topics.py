"""Topics and direct requests on a real server, between clients, agents and coordinators."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.agent.context import Context
from switchgear.agent.declare import Agent
from switchgear.contract.topic import Message, Topic
from switchgear.errors import SwitchgearError, Unavailable
from tests.integration.spine.stage import Gate, Replica, Stage, Text, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

TAGGED = Topic("tagged", Text)
SEEN = Topic("seen", Text, durable=False)


def builder(ran: list[str], name: str = "builder", capability: str = "build") -> Agent:
    """An agent that runs a task for each message."""
    agent = Agent(name, version="1.0.0")

    @agent.capability(capability, on=[TAGGED, SEEN])
    async def build(value: Text, ctx: Context) -> Text:
        ran.append(f"{capability} {value.text}")
        return value

    assert build.name == capability
    return agent


async def known(replicas: list[Replica], *capabilities: str) -> None:
    """Wait until each replica has heard who offers these."""

    async def all_know() -> bool:
        tables = [replica.coordinator.registry.table for replica in replicas]
        return all(table.pools(capability) for table in tables for capability in capabilities)

    await until(all_know)


async def test_each_message_runs_once_in_each_triggered_capability(stage: Stage) -> None:
    """Three replicas take the messages; two capabilities listen; every message is published twice."""
    replicas = await asyncio.gather(*(stage.coordinate() for _ in range(3)))
    ran: list[str] = []
    await stage.join(builder(ran))
    await stage.join(builder(ran, "noter", "note"))
    await known(replicas, "build", "note")
    mesh = await stage.client()
    names = [f"v{number}" for number in range(20)]
    await asyncio.gather(
        *(mesh.publish(TAGGED, Text(name), key=name) for name in names for _ in range(2))
    )

    async def all_ran() -> bool:
        return len(ran) >= 40

    await until(all_ran)
    assert sorted(ran) == sorted(
        [f"{capability} {name}" for capability in ("build", "note") for name in names]
    )


async def test_message_waits_for_coordinators_and_agents(stage: Stage) -> None:
    """The declaration is kept: the message that was published while nobody lived becomes a task."""
    ran: list[str] = []
    agent = builder(ran)
    replica = await stage.coordinate()
    member = await stage.join(agent)
    mesh = await stage.client()

    async def declared() -> bool:
        return len(await mesh.bus.documents.list("sg.config.trigger.*")) == 1

    await until(declared)
    await member.worker.stop()
    await replica.stop()
    await mesh.publish(TAGGED, Text("v1"))
    await stage.coordinate()
    await stage.join(agent)

    async def has_run() -> bool:
        return ran == ["build v1"]

    await until(has_run)


async def test_message_that_is_stored_nowhere_runs_once_too(stage: Stage) -> None:
    replicas = await asyncio.gather(*(stage.coordinate() for _ in range(3)))
    ran: list[str] = []
    await stage.join(builder(ran))
    await known(replicas, "build")
    mesh = await stage.client()
    await mesh.publish(SEEN, Text("v1"))
    await mesh.publish(TAGGED, Text("v2"))

    async def both() -> bool:
        return len(ran) >= 2

    await until(both)
    assert sorted(ran) == ["build v1", "build v2"]


async def test_clients_and_instances_hear_what_is_published(stage: Stage) -> None:
    agent = Agent("hearer", version="1.0.0")
    heard: list[str] = []

    @agent.capability("idle")
    async def idle(value: Text, ctx: Context) -> Text:
        return value

    @agent.listen(TAGGED)
    async def note(value: Text, message: Message) -> None:
        heard.append(f"{value.text} of {message.sender}")

    await stage.coordinate()
    await stage.join(agent)
    assert (idle.name, note.__name__) == ("idle", "note")
    alice, bob = await stage.client(), await stage.client("bob")
    async with bob.subscribe(TAGGED) as feed:
        sent = await alice.publish(TAGGED, Text("v1"), ttl=timedelta(minutes=1))
        async with asyncio.timeout(PATIENCE):
            async for value, message in feed:
                assert (value, message.id, message.sender) == (Text("v1"), sent, "alice")
                break

    async def was_heard() -> bool:
        return heard == ["v1 of alice"]

    await until(was_heard)


async def test_request_is_answered_by_an_instance_or_nobody(stage: Stage, gate: Gate) -> None:
    agent = Agent("oracle", version="1.0.0")

    @agent.capability("idle")
    async def idle(value: Text, ctx: Context) -> Text:
        return value

    @agent.respond
    async def answer(question: Text, message: Message) -> Text:
        if question.text == "wait":
            await gate("asked")
        if question.text == "fail":
            raise ValueError("no such thing")
        return Text(f"{question.text}, {message.sender}")

    await stage.coordinate()
    mesh = await stage.client()
    with pytest.raises(Unavailable):
        await mesh.request("oracle", Text("why"), Text)
    await stage.join(agent)
    assert (idle.name, answer.__name__) == ("idle", "answer")
    assert await mesh.request("oracle", Text("why"), Text) == Text("why, alice")
    with pytest.raises(SwitchgearError, match="no such thing") as failed:
        await mesh.request("oracle", Text("fail"), Text)
    assert failed.value.code.startswith("SG15")
    with pytest.raises(Unavailable):
        await mesh.request("oracle", Text("wait"), Text, timeout=timedelta(seconds=0.3))
    gate.open()
