"""Children: handlers that call other capabilities."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear import (
    Agent,
    Capability,
    Context,
    Permanent,
    TaskDead,
    TaskFailed,
    TaskInfo,
    TaskRejected,
    WaitTimeout,
    testing,
)
from tests.unit.agent.stage import Gate, Number, Text, stage

double = Capability("double", Number, Number)


def doubler() -> Agent:
    agent = Agent("doubler", version="1.0.0")

    @agent.capability("double")
    async def doubled(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(value.n)
        return Number(value.n * 2)

    return agent


async def test_children_run_side_by_side_for_the_same_owner() -> None:
    """`gather` waits for the slowest; each child is a task of the run's owner, with its root."""
    agent = Agent("parent", version="1.0.0")

    @agent.capability("sum", calls=[double])
    async def total(value: Number, ctx: Context) -> Number:
        results = await ctx.gather(
            *(ctx.call(double, Number(n), key=f"d{n}") for n in range(1, value.n + 1))
        )
        return Number(sum(result.n for result in results))

    async with testing.mesh(agent, doubler()) as mesh:
        handle = await mesh.submit(total, Number(3))
        assert await handle.result() == Number(12)
        row = await handle.status()
        assert row.updated_at - row.submitted_at == timedelta(seconds=3)
        tasks = (await mesh.list()).tasks
    children = [task for task in tasks if task.capability == "double"]
    assert len(children) == 3
    assert {(task.owner, task.root, task.parent) for task in children} == {
        ("tester", handle.id, handle.id)
    }


async def test_child_knows_its_parent() -> None:
    """`ctx.task` of a child names parent and root."""
    parent = Agent("parent", version="1.0.0")
    child = Agent("child", version="1.0.0")
    seen: list[TaskInfo] = []

    @child.capability("leaf")
    async def leaf(value: Number, ctx: Context) -> None:
        seen.append(ctx.task)

    @child.capability("middle", calls=[leaf])
    async def middle(value: Number, ctx: Context) -> None:
        seen.append(ctx.task)
        await ctx.call(leaf, value)

    @parent.capability("top", calls=["middle"])
    async def top(value: Number, ctx: Context) -> None:
        await ctx.call("middle", value)

    async with testing.mesh(parent, child) as mesh:
        root = await mesh.submit(top, Number(1))
        await root.result()
    between, last = seen
    assert (between.parent, between.root) == (root.id, root.id)
    assert (last.parent, last.root) == (between.id, root.id)


async def test_error_of_a_child_reaches_the_handler_as_task_failed() -> None:
    """A handler may catch it; it names the child, its state and the class of its error."""
    agent = Agent("parent", version="1.0.0")
    caught: list[TaskFailed] = []

    @agent.capability("work", calls=["other"])
    async def work(value: Number, ctx: Context) -> Text:
        try:
            await ctx.call("other", value)
        except TaskFailed as error:
            caught.append(error)
            return Text("went on")
        return Text("no error")

    def refuse(_: object) -> None:
        raise Permanent("not today")

    async with testing.mesh(agent) as mesh:
        mesh.fake("other", returns=refuse)
        assert await mesh.call(work, Number(1)) == Text("went on")
    [error] = caught
    assert isinstance(error, TaskDead)
    assert (error.state, error.error_class, error.cause_code) == ("dead", "step", "SG1501")


async def test_uncaught_error_of_a_child_ends_the_parent_without_retries() -> None:
    """The child had its own attempts: the parent does not repeat them."""
    agent = Agent("parent", version="1.0.0")
    tries: list[object] = []

    @agent.capability("work", calls=["other"])
    async def work(value: Number, ctx: Context) -> None:
        await ctx.call("other", value)

    def fail(value: object) -> None:
        tries.append(value)
        raise OSError("broken")

    async with testing.mesh(agent) as mesh:
        mesh.fake("other", returns=fail)
        with pytest.raises(TaskDead, match="broken"):
            await mesh.call(work, Number(1))
    assert len(tries) == 3


async def test_call_to_what_is_not_declared_is_a_bug() -> None:
    """`calls=` is what a handler may call."""
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await ctx.call(double, value)

    async with testing.mesh(agent, doubler()) as mesh:
        with pytest.raises(TaskDead, match="does not declare") as caught:
            await mesh.call(work, Number(1))
    assert caught.value.cause_code == "SG1505"


async def test_call_to_what_nobody_offers_fails_the_parent_at_once() -> None:
    """In a test mesh a child that nobody can run is rejected, and the error names the fake."""
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["nowhere"])
    async def work(value: Number, ctx: Context) -> None:
        await ctx.call("nowhere", value)

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead, match="nowhere") as caught:
            await mesh.call(work, Number(1))
    assert "mesh.fake('nowhere'" in caught.value.fix


async def test_child_of_a_call_that_timed_out_is_cancelled() -> None:
    """The handler meets WaitTimeout; the child's handler is stopped."""
    agent = Agent("parent", version="1.0.0")
    gate = Gate()

    @agent.capability("work", calls=["slow"])
    async def work(value: Number, ctx: Context) -> Text:
        try:
            await ctx.call("slow", value, timeout=timedelta(minutes=1))
        except WaitTimeout as error:
            return Text(error.code)
        return Text("came")

    slow = Agent("slow", version="1.0.0")

    @slow.capability("slow", timeout=None)
    async def wait(value: Number, ctx: Context) -> None:
        await gate()

    async with stage(agent, slow) as on:
        handle = await on.mesh.submit(work, Number(1))
        assert await handle.result() == Text("SG1403")
        child = child_of(on.site.broker.ledger.under("sg.task.slow.>")[0].subject)
        await on.reach(child, "cancelled")
        assert gate.inside == 0
        assert on.history(child).cancelling is not None


async def test_first_error_of_gather_cancels_the_other_children() -> None:
    """What is no longer wanted does not go on."""
    agent = Agent("parent", version="1.0.0")
    slow = Agent("slow", version="1.0.0")
    gate = Gate()

    @slow.capability("slow", timeout=None)
    async def wait(value: Number, ctx: Context) -> None:
        await gate()

    @slow.capability("bad")
    async def bad(value: Number, ctx: Context) -> None:
        await asyncio.sleep(60)
        raise Permanent("no")

    @agent.capability("work", calls=[wait, bad])
    async def work(value: Number, ctx: Context) -> None:
        await ctx.gather(ctx.call(wait, value), ctx.call(bad, value))

    async with stage(agent, slow) as on:
        handle = await on.mesh.submit(work, Number(1))
        with pytest.raises(TaskDead, match="no"):
            await handle.result()
        child = child_of(on.site.broker.ledger.under("sg.task.slow.>")[0].subject)
        await on.reach(child, "cancelled")
        assert gate.inside == 0


async def test_failed_call_of_a_retried_attempt_starts_a_new_child() -> None:
    """A retry finds recorded results, and does again what failed (rule 12)."""
    agent = Agent("parent", version="1.0.0")
    asked: list[object] = []
    failed: list[TaskFailed] = []

    def refuse(_: object) -> None:
        raise Permanent("no")

    @agent.capability("work", calls=["good", "bad"])
    async def work(value: Number, ctx: Context) -> Number:
        await ctx.call("good", value)
        try:
            await ctx.call("bad", value)
        except TaskFailed as error:
            failed.append(error)
            if len(failed) == 1:
                raise OSError("again") from None
        return value

    async with testing.mesh(agent) as mesh:
        mesh.fake("good", returns=asked.append)
        mesh.fake("bad", returns=refuse)
        await mesh.call(work, Number(1))
        rows = (await mesh.list(capability="bad")).tasks
    assert len(asked) == 1
    assert len(rows) == 2


async def test_result_of_another_type_than_the_caller_expects_is_an_error() -> None:
    """The caller's own types are checked too."""
    agent = Agent("parent", version="1.0.0")
    other = Agent("other", version="1.0.0")
    wanted = Capability("other", Number, Text)

    @other.capability("other")
    async def give(value: Number, ctx: Context) -> Number:
        return value

    @agent.capability("work", calls=[wanted])
    async def work(value: Number, ctx: Context) -> Text:
        return await ctx.call(wanted, value)

    async with testing.mesh(agent, other) as mesh:
        with pytest.raises(TaskDead, match="does not fit") as caught:
            await mesh.call(work, Number(1))
    assert caught.value.cause_code == "SG1102"


async def test_version_range_of_the_reference_reaches_the_child() -> None:
    """A child that asks for a version that nobody has is rejected."""
    agent = Agent("parent", version="1.0.0")
    wanted = Capability("double", Number, Number, version=">=2")

    @agent.capability("work", calls=[wanted])
    async def work(value: Number, ctx: Context) -> Number:
        return await ctx.call(wanted, value)

    async with testing.mesh(agent, doubler()) as mesh:
        with pytest.raises(TaskDead, match=r"version 1\.0\.0 is not >=2"):
            await mesh.call(work, Number(1))
        with pytest.raises(TaskRejected):
            await mesh.call(wanted, Number(1))


def child_of(subject: str) -> str:
    return subject.split(".")[4]
