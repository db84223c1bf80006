"""Cases at the seams of recording, signals, undos, cancels and the end of an attempt."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, Permanent, TaskCancelled, TaskDead
from switchgear.contract import entries
from switchgear.tasks.requests import request_cancel
from tests.unit.agent.stage import Number, Text, stage, until

UNDONE: list[str] = []


async def withdraw(name: str) -> None:
    """Undo something."""
    UNDONE.append(name)


async def slowly(name: str) -> None:
    """Undo something that takes its time."""
    UNDONE.append(f"begin {name}")
    await asyncio.sleep(60)
    UNDONE.append(f"end {name}")


async def act() -> str:
    """A step."""
    return "done"


async def nap(seconds: int) -> int:
    """A step that takes its time."""
    await asyncio.sleep(seconds)
    return seconds


def leave() -> int:
    """A step like an argument parser that does not like its arguments."""
    raise SystemExit(2)


@pytest.fixture(autouse=True)
def nothing_undone() -> None:
    """Each test begins with none."""
    UNDONE.clear()


async def test_a_signal_that_came_before_its_wait_beside_another_is_taken() -> None:
    """Not left to a suspension that would be resumed for it again and again."""
    agent = Agent("waiter", version="1.0.0")
    runs: list[int] = []

    @agent.capability("wait", timeout=None)
    async def wait(value: Number, ctx: Context) -> Number:
        runs.append(1)

        async def second() -> int:
            await asyncio.sleep(2)
            return await ctx.wait_for_signal("y", int)

        async with asyncio.TaskGroup() as both:
            first = both.create_task(ctx.wait_for_signal("x", int))
            late = both.create_task(second())
        return Number(first.result() + late.result())

    async with stage(agent) as on:
        handle = await on.mesh.submit(wait, Number(0))
        await asyncio.sleep(1)
        await handle.signal("y", 5)
        await asyncio.sleep(600)
        assert len(runs) == 1
        await handle.signal("x", 1)
        assert (await handle.result()).n == 6


async def test_a_cancel_during_the_storing_of_a_result_still_runs_the_undos() -> None:
    """The result loses against the cancel, as what was stored first wins, and nothing void is appended."""
    agent = Agent("storer", version="1.0.0")

    @agent.capability("store", timeout=None)
    async def store(value: Number, ctx: Context) -> Text:
        ctx.saga().undo("withdraw", withdraw, "it")
        await ctx.step("act", act)
        return Text("x" * 300_000)

    async with stage() as on:
        member = await on.join(agent)
        put, inside = member.bus.blobs.put, list[int]()

        async def slow(data: bytes) -> str:
            inside.append(1)
            await asyncio.sleep(2)
            return await put(data)

        member.bus.blobs.put = slow
        handle = await on.mesh.submit(store, Number(0))
        await until(lambda: bool(inside))
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert (UNDONE, on.history(handle.id).voids) == (["it"], [])


async def test_an_undo_is_run_once_however_long_it_takes() -> None:
    """No handler runs then that could stall."""
    agent = Agent("undoer", version="1.0.0")
    seconds, minutes = timedelta(seconds=5), timedelta(minutes=5)

    @agent.capability("undo", timeout=None, stall_timeout=seconds, cleanup=minutes)
    async def undo(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("slowly", slowly, "it")
            await ctx.step("act", act)
            await ctx.sleep("long", timedelta(days=1))

    async with stage(agent, agent) as on:
        handle = await on.mesh.submit(undo, Number(0))
        await on.reach(handle.id, "waiting")
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert UNDONE == ["begin it", "end it"]


@pytest.mark.parametrize(
    ("cleanup", "undone", "left"),
    [
        (timedelta(minutes=5), ["begin it", "end it", "first"], "stop"),
        (timedelta(seconds=5), ["begin it"], "undos not run: first, slowly"),
    ],
)
async def test_a_cancel_during_the_undos_of_a_failure_interrupts_none_and_bounds_them(
    cleanup: timedelta, undone: list[str], left: str
) -> None:
    """They go on for as long as the capability gives; what is not done by then is named in the end."""
    agent = Agent("undoer", version="1.0.0")

    @agent.capability("undo", timeout=None, cleanup=cleanup)
    async def undo(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("first", withdraw, "first")
            saga.undo("slowly", slowly, "it")
            await ctx.step("act", act)
            raise Permanent("no")

    async with stage(agent) as on:
        handle = await on.mesh.submit(undo, Number(0))
        await until(lambda: UNDONE == ["begin it"])
        await asyncio.sleep(10)
        await handle.cancel("stop")
        with pytest.raises(TaskCancelled) as ended:
            await handle.result()
        assert left in ended.value.what
        assert undone == UNDONE
        assert on.history(handle.id).failures == 0
        assert on.events(handle.id).count("dispatched") == 1


async def test_a_block_that_was_left_is_not_undone_by_what_fails_right_after_it() -> None:
    """Even where no other call has recorded that it was left."""
    agent = Agent("leaver", version="1.0.0")

    @agent.capability("leave")
    async def leave_it(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("withdraw", withdraw, "it")
            await ctx.step("act", act)
        raise Permanent("no")

    async with stage(agent) as on:
        handle = await on.mesh.submit(leave_it, Number(0))
        with pytest.raises(TaskDead):
            await handle.result()
        assert UNDONE == []


async def test_a_step_that_exits_inside_a_gather_fails_its_task_alone() -> None:
    """The event loop, and all that it runs, goes on."""
    agent = Agent("exiter", version="1.0.0")

    @agent.capability("exit")
    async def exit_it(value: Number, ctx: Context) -> None:
        await ctx.gather(ctx.step("leave", leave), ctx.step("act", act))

    async with stage(agent) as on:
        handle = await on.mesh.submit(exit_it, Number(0))
        with pytest.raises(TaskDead, match="leave"):
            await handle.result()


async def test_a_child_that_ended_in_time_is_no_timeout_for_a_parent_that_resumes_late() -> None:
    """The only slot was taken until after the time was over."""
    agent, other = Agent("parent", version="1.0.0"), Agent("child", version="1.0.0")

    @other.capability("child")
    async def child(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(30)
        return value

    @agent.capability("parent", calls=[child], timeout=None, concurrency=1)
    async def parent(value: Number, ctx: Context) -> Number:
        if value.n == 1:
            await asyncio.sleep(60)
            return value
        return await ctx.call(child, value, timeout=timedelta(seconds=45))

    async with stage(agent, other) as on:
        handle = await on.mesh.submit(parent, Number(7))
        await on.reach(handle.id, "waiting")
        await on.mesh.submit(parent, Number(1))
        assert (await handle.result()).n == 7


async def test_what_a_handler_left_running_appends_nothing_behind_the_result() -> None:
    """It would be void, and a security event for every reader."""
    agent = Agent("stray", version="1.0.0")
    left: list[asyncio.Task[Any]] = []

    @agent.capability("stray")
    async def stray(value: Number, ctx: Context) -> Number:
        left.append(asyncio.create_task(ctx.step("late", nap, 1)))
        await asyncio.sleep(0.1)
        return value

    async with stage(agent) as on:
        handle = await on.mesh.submit(stray, Number(3))
        await handle.result()
        await asyncio.wait(left)
        history = on.history(handle.id)
        assert isinstance(history.end, entries.Completed)
        assert history.voids == []
        assert left[0].cancelled()


async def test_a_childs_events_end_with_it() -> None:
    """Inside a handler, whose instance follows no other tasks."""
    agent, other = Agent("parent", version="1.0.0"), Agent("child", version="1.0.0")
    told: list[str] = []

    @other.capability("child")
    async def child(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(3)
        return value

    @agent.capability("parent", calls=[child])
    async def parent(value: Number, ctx: Context) -> Number:
        handle = await ctx.submit(child, value)
        told.extend([event.event async for event in handle.events()])
        return value

    async with stage(agent, other) as on:
        await (await on.mesh.submit(parent, Number(0))).result()
        assert told == ["submitted", "dispatched", "completed"]
