"""Instances announce themselves, stay fresh, and are gone when they die."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec

from switchgear import Agent, Context
from tests.unit.agent.stage import Gate, Number, Stage, stage, until


def gated(gate: Gate) -> Agent:
    agent = Agent("gated", version="1.0.0", labels={"zone": "a"})

    @agent.capability("pass", timeout=None)
    async def through(value: Number, ctx: Context) -> None:
        await gate()

    return agent


def announcements(on: Stage) -> int:
    return on.site.broker.registry.last_sequence


async def test_instance_is_routable_once_it_has_joined() -> None:
    """A task that requires an agent runs at once."""
    gate = Gate()
    gate.open()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1), require_agent=True)
        await handle.result(timeout=timedelta(milliseconds=100))


async def test_idle_instance_announces_only_to_stay_fresh() -> None:
    """Every ten seconds, and nothing else is published."""
    async with stage(gated(Gate())) as on:
        before = announcements(on)
        await asyncio.sleep(100.5)
        assert announcements(on) - before == 10


async def test_long_running_task_is_announced_and_then_no_more() -> None:
    """What runs for longer than a moment stands in the announcement until it ends."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await asyncio.sleep(1)
        [instance] = (await on.mesh.agents()).instances
        assert [running.task for running in instance.running] == [handle.id]
        assert instance.busy == {"pass": 1}
        assert f"Running on {instance.instance}." in (await on.mesh.explain(handle.id)).sentences
        gate.open()
        await handle.result()
        await asyncio.sleep(1)
        [instance] = (await on.mesh.agents()).instances
        assert (instance.running, instance.busy) == ((), {})


async def test_many_short_tasks_make_few_announcements() -> None:
    """Announcing costs four messages a second at most, whatever runs."""
    agent = Agent("quick", version="1.0.0")

    @agent.capability("work", concurrency=8)
    async def work(value: Number, ctx: Context) -> None:
        await asyncio.sleep(0.4)

    async with stage(agent) as on:
        before = announcements(on)
        tasks = await on.mesh.submit_many(work, [Number(n) for n in range(80)])
        for task in tasks:
            await task.result()
        assert announcements(on) - before <= 4 * 4 + 2


async def test_crashed_instance_is_gone_when_its_ttl_ends() -> None:
    """Until then it is listed; afterwards `explain` tells who it was."""
    async with stage() as on:
        member = await on.join(gated(Gate()))
        await on.site.crash(member)
        await asyncio.sleep(15)
        assert len((await on.mesh.agents()).instances) == 1
        await asyncio.sleep(16)
        assert (await on.mesh.agents()).instances == ()


async def test_instances_answer_discovery_of_nats_micro() -> None:
    """The `nats` CLI sees name, version and endpoints, until the instance leaves."""
    async with stage() as on:
        member = await on.join(gated(Gate()))
        core = on.mesh.bus.core
        data = await core.request("$SRV.INFO.gated", b"", timeout=timedelta(seconds=1))
        told = msgspec.json.decode(data)
        assert (told["name"], told["version"], told["id"]) == ("gated", "1.0.0", member.bus.name)
        assert [endpoint["name"] for endpoint in told["endpoints"]] == ["pass"]
        await member.worker.stop()
        await until(lambda: on.site.broker.publish("$SRV.PING", b"") == 0)
