"""Several coordinators: they share the work through the ledger, and one may die at any time."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from switchgear import Agent, Context, TaskCancelled, TaskDead
from switchgear.clock import Clock
from switchgear.coordinator.service import Coordinator
from switchgear.lifecycle.history import fold
from tests.unit.agent.stage import Gate, Number, stage, until
from tests.unit.coordinator.desk import FAILURE, desk


def worker() -> Agent:
    agent = Agent("worker", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Number:
        if ctx.attempt == 1 and value.n % 3 == 0:
            raise OSError("first attempts fail")
        return value

    return agent


async def test_replicas_decide_each_task_once() -> None:
    """Three replicas, a hundred tasks, a third of them retried: no doubled decision, no void entry."""
    async with stage(worker(), coordinators=3) as on:
        tasks = await on.mesh.submit_many("work", [Number(n) for n in range(100)])
        assert [await task.result() for task in tasks] == [{"n": n} for n in range(100)]
        for n, task in enumerate(tasks):
            retried = ["attempt-failed", "waiting", "dispatched"] if n % 3 == 0 else []
            assert on.events(task.id) == ["submitted", "dispatched", *retried, "completed"]
            assert on.history(task.id).voids == []


async def test_both_replicas_hear_the_same_due_message_and_one_decides() -> None:
    """A wake that is delivered again, to another replica, leads to no second dispatch."""
    async with stage(coordinators=2) as on:
        handle = await on.mesh.submit("work", Number(1))
        await on.reach(handle.id, "waiting")
        await on.join(worker())
        due = f"sg.due.work.alice.{handle.id}.capacity"
        for _ in range(10):
            on.site.broker.store(due, b"", b"{}")
        await handle.result()
        await asyncio.sleep(100)
        assert on.events(handle.id) == ["submitted", "waiting", "dispatched", "completed"]
        assert on.history(handle.id).voids == []


async def test_replica_that_dies_loses_nothing() -> None:
    """What it held comes to another within the intake's lease; clients ask the one that is left."""
    async with stage(worker(), coordinators=2) as on:
        tasks = await on.mesh.submit_many("work", [Number(n) for n in range(50)])
        await on.site.crash(on.site.replicas[0])
        assert [await task.result() for task in tasks] == [{"n": n} for n in range(50)]
        assert {on.history(task.id).ended for task in tasks} == {"completed"}
        assert (await on.mesh.explain(tasks[0].id)).state == "completed"


async def test_coordinator_that_comes_later_finds_everything() -> None:
    """Tasks submitted, and agents started, without any coordinator begin when one comes."""
    async with stage(coordinators=0) as on:
        tasks = await on.mesh.submit_many("work", [Number(n) for n in range(10)])
        await on.join(worker())
        await asyncio.sleep(100)
        assert on.events(tasks[0].id) == ["submitted"]
        await on.site.coordinate()
        for task in tasks:
            await task.result()


async def test_cancel_and_completion_race_has_one_end() -> None:
    """Whichever is stored first wins, for the client and for all readers."""
    agent = Agent("gated", version="1.0.0")
    gates: list[Gate] = []

    @agent.capability("pass")
    async def through(value: Number, ctx: Context) -> Number:
        await gates[value.n]()
        return value

    for turn in range(12):
        gate = Gate()
        gates.append(gate)
        async with stage(agent, coordinators=2) as on:
            handle = await on.mesh.submit("pass", Number(turn))
            await until(lambda gate=gate: gate.inside == 1)
            gate.open()
            for _ in range(turn):
                await asyncio.sleep(0)
            on.append(on.scope(handle.id), "cancel-requested", honest=True, reason="late")
            try:
                await handle.result()
            except TaskCancelled:
                assert on.events(handle.id)[-1] == "cancelled"
            else:
                assert on.events(handle.id)[-1] == "completed"
            lane = f"lane=pass={on.history(handle.id).pool}=normal"
            await asyncio.sleep(1)
            consumer = on.site.broker.consumer(on.site.broker.ledger, lane)
            assert consumer is not None
            assert consumer.unsettled == 0


async def test_dead_end_is_decided_by_one_replica() -> None:
    """The last failure of a task is followed by one `dead`."""
    agent = Agent("failing", version="1.0.0")

    @agent.capability("fail")
    async def fail(value: Number, ctx: Context) -> None:
        raise OSError("no")

    async with stage(agent, coordinators=3) as on:
        tasks = await on.mesh.submit_many(fail, [Number(n) for n in range(20)])
        for task in tasks:
            with pytest.raises(TaskDead):
                await task.result()
            assert on.events(task.id).count("dead") == 1
            assert on.history(task.id).voids == []


class Ahead:
    """A clock that an hour was added to."""

    def __init__(self, true: Clock) -> None:
        self._true = true

    def now(self) -> datetime:
        return self._true.now() + timedelta(hours=1)


async def test_a_late_replica_whose_clock_is_ahead_ends_no_pause_early() -> None:
    """It decides about the submission as it came, is refused, and then finds a retry that waits."""
    async with desk() as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        on.say("t", "attempt-failed", error=FAILURE)
        waiting = (await on.reach("t", "waiting")).waiting
        scope = on.scope("t")
        came = fold(scope, on.broker.ledger.under(scope)[:1])
        late = Coordinator(on.coordinators[0][1], Ahead(on.clock))
        await late._arriving._settling.settle(scope, history=came)
        assert on.events("t") == ["submitted", "dispatched", "attempt-failed", "waiting"]
        again = (await on.reach("t", "dispatched", 2)).valid[-1].stored
        assert waiting is not None
        assert waiting.until is not None
        assert again.time >= waiting.until
