"""Children that outlive a call: handles, maps, limits, and what becomes of them at their parent's end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear import (
    Agent,
    Capability,
    Context,
    Permanent,
    Retry,
    TaskCancelled,
    TaskDead,
    TaskFailed,
)
from switchgear.agent import children, mapping
from switchgear.contract import entries, limits
from switchgear.contract.stored import Stored
from switchgear.contract.subjects import parse_task
from switchgear.tasks.requests import request_cancel
from switchgear.testing import memory_ledger
from switchgear.testing.memory_ledger import MemoryLedger
from tests.unit.agent.stage import Gate, Number, Stage, Text, stage, until

doubled = Capability("double", Number, Number)
AT_ONCE = Retry(initial=timedelta(), max_delay=timedelta())


def ids_of(on: Stage, capability: str) -> list[str]:
    stored = on.site.broker.ledger.under(f"sg.task.{capability}.>")
    return [parse_task(s.subject).task for s in stored if s.subject.endswith(".submitted")]


def workers(gate: Gate | None = None, *, concurrency: int = 8) -> Agent:
    agent = Agent("workers", version="1.0.0")

    @agent.capability("double", timeout=None, concurrency=concurrency)
    async def double(value: Number, ctx: Context) -> Number:
        if gate is not None:
            await gate(str(value.n))
        if value.n < 0:
            raise Permanent(f"negative: {value.n}")
        return Number(value.n * 2)

    return agent


async def test_handle_of_a_child_gives_its_result_after_a_suspension() -> None:
    """The child is submitted once, however often the handler runs."""
    gate, runs = Gate(), list[int]()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> Number:
        runs.append(1)
        handle = await ctx.submit("double", value)
        got = await handle.result(Number)
        return Number(got.n + 1)

    async with stage(agent, workers(gate)) as on:
        handle = await on.mesh.submit(work, Number(4))
        await on.reach(handle.id, "waiting")
        gate.open()
        assert await handle.result() == Number(9)
        assert len(ids_of(on, "double")) == 1
    assert runs == [1, 1]


@pytest.mark.parametrize("detached", [False, True])
async def test_child_ends_with_its_parent_unless_it_is_detached(*, detached: bool) -> None:
    """When the parent completes, what it left open is cancelled."""
    gate = Gate()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> Text:
        return Text((await ctx.submit("double", value, detached=detached)).id)

    async with stage(agent, workers(gate)) as on:
        child = (await on.mesh.call(work, Number(4))).text
        await asyncio.sleep(5)
        gate.open()
        await on.reach(child, "completed" if detached else "cancelled")


async def test_submitted_child_survives_a_retry() -> None:
    """Its submission is recorded: the next attempt waits for the same one."""
    gate = Gate()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"], retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        handle = await ctx.submit("double", value)
        if ctx.attempt == 1:
            raise OSError("again")
        gate.open()
        return await handle.result(Number)

    async with stage(agent, workers(gate)) as on:
        assert await on.mesh.call(work, Number(4)) == Number(8)
        assert len(ids_of(on, "double")) == 1


async def test_map_gives_outcomes_in_order_and_wakes_its_parent_once() -> None:
    """However many children there are, the parent is dispatched once more, when the last has ended."""
    gate, runs = Gate(), list[int]()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> Text:
        runs.append(1)
        inputs = [Number(n) for n in range(value.n)]
        made = await ctx.map(doubled, inputs, limit=4)
        return Text(",".join(str(one.value.n) for one in made if one.value))

    async with stage(agent, workers(gate)) as on:
        handle = await on.mesh.submit(work, Number(12))
        await on.reach(handle.id, "waiting")
        assert gate.most == 4
        gate.open()
        result = await handle.result()
        assert result == Text(",".join(str(2 * n) for n in range(12)))
        assert on.events(handle.id).count("dispatched") == 2
        assert gate.most == 4
    assert runs == [1, 1]


@pytest.mark.parametrize(("foreign", "allowed", "alone"), [(0, 0, 0), (30, 20, 0), (30, 0, 11)])
async def test_a_resumed_map_reads_its_children_together(
    monkeypatch: pytest.MonkeyPatch, foreign: int, allowed: int, alone: int
) -> None:
    """One by one only where the owner has far more other tasks of that capability."""
    monkeypatch.setattr(mapping, "FOREIGN", allowed)
    monkeypatch.setattr(memory_ledger, "FOLLOW_BATCH", 10)
    gate, read = Gate(), list[str]()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> Number:
        made = await ctx.map(doubled, [Number(n) for n in range(value.n)], max_failures=None)
        return Number(sum(one.value.n for one in made if one.value))

    async with stage(agent, workers(gate)) as on:
        handle = await on.mesh.submit(work, Number(12))
        await on.reach(handle.id, "waiting")
        history = MemoryLedger.history

        async def counted(ledger: MemoryLedger, scope: str) -> list[Stored]:
            read.append(scope)
            return await history(ledger, scope)

        others = await on.mesh.submit_many("double", [Number(0)] * foreign)
        children = [one for one in ids_of(on, "double") if "-" in one]
        assert len(children) == 12
        forged = children.pop()  # its holder reads it too
        on.append(on.scope(forged), "cancel-requested", honest=False, reason="forged")
        monkeypatch.setattr(MemoryLedger, "history", counted)
        gate.open()
        await asyncio.gather(*(one.result() for one in others))
        assert await handle.result() == Number(132)
        assert on.events(handle.id).count("dispatched") == 2
    assert len([scope for scope in read if scope.split(".")[4] in children]) == alone


async def test_map_without_suspension_gives_the_same() -> None:
    """Ends that come while the slot is held are heard on one subscription."""
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> Number:
        made = await ctx.map(doubled, [Number(n) for n in range(value.n)], key="all")
        nothing = await ctx.map("double", [], key="none")
        assert nothing == []
        return Number(sum(one.value.n for one in made if one.value))

    async with stage(agent, workers()) as on:
        handle = await on.mesh.submit(work, Number(200))
        assert await handle.result() == Number(200 * 199)
        assert on.events(handle.id).count("dispatched") == 1


async def test_more_failures_than_allowed_cancel_the_rest() -> None:
    """The error names the first failure; the others hear that they are no longer wanted."""
    gate = Gate()
    agent, other = Agent("parent", version="1.0.0"), Agent("workers", version="1.0.0")
    caught: list[TaskFailed] = []

    @other.capability("double", timeout=None)
    async def double(value: Number, ctx: Context) -> Number:
        if value.n < 0:
            raise Permanent(f"negative: {value.n}")
        await gate()
        return value

    @agent.capability("work", calls=[double])
    async def work(value: Number, ctx: Context) -> None:
        try:
            await ctx.map(double, [Number(1), Number(-1), Number(2)])
        except TaskFailed as error:
            caught.append(error)

    async with stage(agent, other) as on:
        await on.mesh.call(work, Number(0))
        await until(lambda: gate.inside == 0)
        ends = sorted(on.events(task)[-1] for task in ids_of(on, "double"))
        assert ends == ["cancelled", "cancelled", "dead"]
    [error] = caught
    assert (error.error_class, error.cause_code, error.state) == ("step", "SG1412", "dead")
    assert "negative: -1" in error.what


async def test_failures_that_are_allowed_are_outcomes() -> None:
    """Each with its error, of the kind that a call would have raised, in every run alike."""
    agent = Agent("parent", version="1.0.0")
    seen: list[list[str]] = []

    @agent.capability("work", calls=["double"], retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> None:
        made = await ctx.map("double", [{"n": 1}, {"n": -1}, {"n": -2}], max_failures=None)
        seen.append([type(one.error).__name__ if one.error else "ok" for one in made])
        if ctx.attempt == 1:
            raise OSError("again")

    async with stage(agent, workers()) as on:
        await on.mesh.call(work, Number(0))
        assert len(ids_of(on, "double")) == 3
    assert seen == [["ok", "TaskDead", "TaskDead"]] * 2


async def test_more_children_than_allowed_are_refused() -> None:
    """Before any of them is submitted, and for good."""
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"])
    async def work(value: Number, ctx: Context) -> None:
        await ctx.map("double", [{"n": 1}] * (limits.MAX_CHILDREN + 1))

    async with stage(agent) as on:
        with pytest.raises(TaskDead) as caught:
            await on.mesh.call(work, Number(0))
        assert ids_of(on, "double") == []
    assert caught.value.cause_code == "SG1517"


async def test_calls_below_too_many_levels_are_refused() -> None:
    """A capability that calls itself stops at the limit."""
    agent = Agent("deep", version="1.0.0")

    @agent.capability("deeper", calls=["deeper"])
    async def deeper(value: Number, ctx: Context) -> Number:
        return await ctx.call("deeper", value)

    async with stage(agent) as on:
        with pytest.raises(TaskDead) as caught:
            await on.mesh.call(deeper, Number(0))
        assert len(ids_of(on, "deeper")) == limits.MAX_DEPTH + 1
    assert "nested too deeply" in str(caught.value)


async def test_cancel_of_a_parent_reaches_its_children() -> None:
    """Also those that only a handle knows."""
    gate = Gate()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"], timeout=None)
    async def work(value: Number, ctx: Context) -> None:
        await ctx.submit("double", value, key="kept")
        await ctx.call("double", value, key="called")

    async with stage(agent, workers(gate)) as on:
        handle = await on.mesh.submit(work, Number(1))
        await until(lambda: gate.inside == 2)
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        await until(lambda: gate.inside == 0)
        assert [on.events(task)[-1] for task in ids_of(on, "double")] == ["cancelled"] * 2


async def test_entries_name_the_children_that_end_with_a_task() -> None:
    """Submitted and awaited ones; not what has ended, nor what is detached."""
    gate = Gate()
    agent = Agent("parent", version="1.0.0")

    @agent.capability("work", calls=["double"], timeout=None)
    async def work(value: Number, ctx: Context) -> None:
        await ctx.submit("double", value, key="kept")
        await ctx.submit("double", value, key="free", detached=True)
        await ctx.gather(
            ctx.call("double", value, key="called"), ctx.map("double", [{"n": 1}, {"n": 2}])
        )

    async with stage(agent, workers(gate)) as on:
        handle = await on.mesh.submit(work, Number(1))
        history = await on.reach(handle.id, "waiting")
        named = {parse_task(f"{one[:-1]}submitted").task for one in children.named(history)}
        detached = {
            task
            for task in ids_of(on, "double")
            if (sub := on.history(task).submitted) is not None and sub.detached
        }
        assert named == set(ids_of(on, "double")) - detached
        assert len(named) == 4
        gate.open()
        await handle.result()
        rest = children.named(on.history(handle.id))
        assert len(rest) == 1
        assert isinstance(on.history(handle.id).end, entries.Completed)


async def test_a_call_into_a_full_ledger_waits_for_room() -> None:
    """It costs the parent no attempt, since what it needs to end comes before what is new (rule 19)."""
    agent = Agent("parent", version="1.0.0")
    on: Stage

    @agent.capability("work", calls=["double"], retry=Retry(max_attempts=1))
    async def work(value: Number, ctx: Context) -> Number:
        ledger = on.site.broker.ledger
        ledger.max_bytes = ledger.bytes
        return await ctx.call(doubled, value)

    async with stage(agent, workers(), coordinators=1) as on:
        handle = await on.mesh.submit(work, Number(4))
        await on.reach(handle.id, "dispatched")
        await asyncio.sleep(3)
        assert ids_of(on, "double") == []
        on.site.broker.ledger.max_bytes = None
        assert await handle.result() == Number(8)
        assert on.events(handle.id).count("attempt-failed") == 0
