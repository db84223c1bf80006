"""Handlers that show no progress, and processes that die at any point of an attempt."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear import Agent, Context, Retry, TaskDead, crashpoint
from switchgear.testing.site import Member
from tests.unit.agent.stage import Gate, Number, stage, until

AT_ONCE = Retry(max_attempts=2, initial=timedelta(), max_delay=timedelta())


async def test_handler_without_progress_is_stopped_and_fails() -> None:
    """Its attempt fails with class timeout, and may be tried again."""
    agent = Agent("stuck", version="1.0.0")
    gate = Gate()

    @agent.capability("work", timeout=None, stall_timeout=timedelta(minutes=1), retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> None:
        await gate()

    async with stage(agent) as on:
        began = on.site.clock.now()
        with pytest.raises(TaskDead) as caught:
            await on.mesh.call(work, Number(0))
        took = on.site.clock.now() - began
    assert (caught.value.cause_code, caught.value.error_class) == ("SG1516", "timeout")
    assert gate.entered == 2
    assert timedelta(minutes=2) < took < timedelta(minutes=3)


async def test_waits_and_reports_are_progress() -> None:
    """Neither a call that waits nor a handler that reports is stuck."""
    agent = Agent("busy", version="1.0.0")

    @agent.capability("work", timeout=None, stall_timeout=timedelta(seconds=5))
    async def work(value: Number, ctx: Context) -> Number:
        await ctx.sleep("wait", timedelta(seconds=9))
        for _ in range(10):
            ctx.progress()
            await asyncio.sleep(4)
        return value

    async with stage(agent) as on:
        assert await on.mesh.call(work, Number(1)) == Number(1)


async def test_stuck_handler_that_does_not_leave_loses_its_lease_as_a_crash() -> None:
    """It is announced as running no longer, so that the next holder counts a crash."""
    agent = Agent("stuck", version="1.0.0")
    gate, runs = Gate(), list[int]()

    @agent.capability("work", timeout=None, stall_timeout=timedelta(minutes=1))
    async def work(value: Number, ctx: Context) -> Number:
        runs.append(1)
        while len(runs) == 1 and not gate.left:
            try:
                await gate()
            except asyncio.CancelledError:
                continue
        return Number(len(runs))

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(0))
        await until(lambda: len(runs) == 1)
        await on.join(agent)
        assert await handle.result() == Number(2)
        assert on.history(handle.id).crashes == 1
        gate.open()


CHECKPOINTED = ["agent.before-checkpoint", "agent.after-checkpoint", "agent.after-child-submitted"]
ENDING = ["agent.before-completed", "agent.after-completed", "agent.before-ack"]
SUSPENDING = ["agent.before-waiting", "agent.after-waiting"]
FAILING = ["agent.after-attempt-failed", "agent.after-take-over"]


@pytest.mark.parametrize("point", [*CHECKPOINTED, *ENDING, *SUSPENDING, *FAILING])
async def test_process_may_die_at_any_point_of_an_attempt(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another instance goes on: the task ends as it would have, no recorded step runs twice, its child once."""
    agent, runs = Agent("fragile", version="1.0.0"), list[str]()
    family = Agent("family", version="1.0.0")

    @family.capability("child")
    async def child(value: Number, ctx: Context) -> Number:
        runs.append("child")
        return value

    async def part(name: str) -> str:
        runs.append(name)
        return name

    @agent.capability("work", calls=[child], retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        await ctx.step("one", part, "one")
        await ctx.call(child, value)
        await ctx.sleep("nap", timedelta(minutes=1))
        if ctx.task.id not in failed:
            failed.add(ctx.task.id)
            raise OSError("once")
        return value

    failed: set[str] = set()
    async with stage(family) as on:
        victims: list[Member] = [await on.join(agent)]
        dying = list[asyncio.Task[None]]()

        def reach(name: str) -> None:
            task = asyncio.current_task()
            if name == point and not dying and task is not None and victims:
                dying.append(asyncio.create_task(on.site.crash(victims[0])))
                on.site.broker.crash(victims[0].bus)

        monkeypatch.setattr(crashpoint, "hook", reach)
        handle = await on.mesh.submit(work, Number(5))
        await until(lambda: bool(dying) or point == "agent.after-take-over")
        if point == "agent.after-take-over":
            await on.site.crash(victims.pop())
            victims.append(await on.join(agent))
        await on.join(agent)
        assert await handle.result() == Number(5)
        assert bool(dying) or point == "agent.after-take-over"
        await asyncio.gather(*dying)
    assert runs.count("child") == 1
    assert runs.count("one") <= (2 if point == "agent.before-checkpoint" else 1)
