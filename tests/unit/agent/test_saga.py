"""Undos: what runs when a task fails for good or is cancelled, in which order, and what is recorded of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import pytest

from switchgear import Agent, Context, Permanent, Retry, TaskCancelled, TaskDead, TaskExpired
from switchgear.agent import receiving
from switchgear.clock import Clock
from switchgear.contract import entries
from switchgear.contract.values import Failure
from switchgear.resilience.classify import too_late
from switchgear.tasks.requests import request_cancel
from tests.unit.agent.stage import Gate, Number, Stage, stage, until

AT_ONCE = Retry(initial=timedelta(), max_delay=timedelta())
UNDONE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_undone() -> None:
    UNDONE.clear()


async def withdraw(name: str) -> None:
    """An undo: it may run in another process."""
    UNDONE.append(name)


async def with_context(ctx: Context, number: Number) -> None:
    """An undo that is given the context by the runtime."""
    assert ctx.fence
    UNDONE.append(f"{number.n}")


async def broken(name: str) -> None:
    """An undo that fails."""
    raise OSError(f"no way back from {name}")


async def slow(name: str) -> None:
    """An undo that never ends."""
    await asyncio.sleep(3600)


async def limited(name: str) -> None:
    """An undo that gives up in time; before Python 3.11.3 none can whose task counts as cancelled."""
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.sleep(3600)
    UNDONE.append(name)


async def act() -> str:
    """What is undone."""
    return "done"


def checkpoints(on: Stage, task: str) -> list[tuple[str, str, bool]]:
    found = [v.entry for v in on.history(task).valid if isinstance(v.entry, entries.Checkpoint)]
    return [(one.kind, one.key, one.ok) for one in found]


async def test_final_failure_runs_the_undos_last_first() -> None:
    """Registered before the step that they undo, run as steps, then the task is dead."""
    agent = Agent("releaser", version="1.0.0")

    @agent.capability("release")
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("first", withdraw, "a")
            await ctx.step("one", act)
            saga.undo("second", with_context, value)
            await ctx.step("two", act)
            raise Permanent("no")

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(7))
        with pytest.raises(TaskDead, match="no"):
            await handle.result()
        assert checkpoints(on, handle.id) == [
            ("undo-registered", "first", True),
            ("step", "one", True),
            ("undo-registered", "second", True),
            ("step", "two", True),
            ("undo-begun", "undo", True),
            ("undo-done", "second", True),
            ("undo-done", "first", True),
        ]
    assert UNDONE == ["7", "a"]


async def test_failure_that_is_retried_undoes_nothing() -> None:
    """Only the last attempt does; an undo that was registered is not registered again."""
    agent = Agent("releaser", version="1.0.0")
    undone: list[int] = []

    @agent.capability("release", retry=AT_ONCE)
    async def release(value: Number, ctx: Context) -> None:
        undone.append(len(UNDONE))
        async with ctx.saga() as saga:
            saga.undo("it", withdraw, "a")
            await ctx.step("one", act)
            raise OSError("again")

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0))
        with pytest.raises(TaskDead):
            await handle.result()
        kinds = [kind for kind, _, _ in checkpoints(on, handle.id)]
        assert kinds == ["undo-registered", "step", "undo-begun", "undo-done"]
    assert undone == [0, 0, 0]
    assert UNDONE == ["a"]


async def test_leaving_the_block_drops_its_undos() -> None:
    """What failed afterwards undoes nothing, and what just completes records no drop."""
    agent = Agent("releaser", version="1.0.0")

    @agent.capability("release")
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("it", withdraw, "a")
            await ctx.step("one", act)
        if value.n:
            await ctx.step("two", act)
            raise Permanent("no")

    async with stage(agent) as on:
        done = await on.mesh.submit(release, Number(0))
        await done.result()
        assert [kind for kind, _, _ in checkpoints(on, done.id)] == ["undo-registered", "step"]
        failed = await on.mesh.submit(release, Number(1))
        with pytest.raises(TaskDead):
            await failed.result()
        kinds = [kind for kind, _, _ in checkpoints(on, failed.id)]
        assert kinds == ["undo-registered", "step", "undo-dropped", "step"]
    assert UNDONE == []


async def test_failed_undo_is_recorded_and_the_others_still_run() -> None:
    """The task's end says what could not be undone."""
    agent = Agent("releaser", version="1.0.0")

    @agent.capability("release")
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("first", withdraw, "a")
            saga.undo("second", broken, "b")
            await ctx.step("one", act)
            raise Permanent("no")

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0))
        with pytest.raises(TaskDead) as caught:
            await handle.result()
        assert ("undo-done", "second", False) in checkpoints(on, handle.id)
    assert UNDONE == ["a"]
    assert "no way back from b" in caught.value.why


@pytest.mark.parametrize("suspended", [False, True])
async def test_cancel_runs_the_undos(*, suspended: bool) -> None:
    """Of a task that runs by its holder; of one that waits by an instance that is given it for that."""
    agent = Agent("releaser", version="1.0.0")
    gate = Gate()

    @agent.capability("release", timeout=None)
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("it", withdraw, "a")
            await ctx.step("one", act)
            if suspended:
                await ctx.sleep("long", timedelta(days=1))
            await gate()

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0))
        if suspended:
            await on.reach(handle.id, "waiting")
        else:
            await until(lambda: gate.inside == 1)
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert ("undo-done", "it", True) in checkpoints(on, handle.id)
    assert UNDONE == ["a"]


async def test_an_undo_after_a_cancel_may_limit_its_own_time() -> None:
    """Its task was cancelled, it is not."""
    agent = Agent("releaser", version="1.0.0")
    gate = Gate()

    @agent.capability("release", timeout=None)
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("it", limited, "a")
            await ctx.step("one", act)
            await gate()

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0))
        await until(lambda: gate.inside == 1)
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert ("undo-done", "it", True) in checkpoints(on, handle.id)
    assert UNDONE == ["a"]


async def test_undos_have_the_time_that_the_capability_gives_them() -> None:
    """Beyond `cleanup` the end comes all the same, and names what was not undone."""
    agent = Agent("releaser", version="1.0.0")
    gate = Gate()

    @agent.capability("release", timeout=None, cleanup=timedelta(seconds=30))
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("first", withdraw, "a")
            saga.undo("endless", slow, "b")
            await ctx.step("one", act)
            await gate()

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0))
        await until(lambda: gate.inside == 1)
        began = on.site.clock.now()
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
        with pytest.raises(TaskCancelled, match="undos not run"):
            await handle.result()
        took = on.site.clock.now() - began
    assert timedelta(seconds=29) < took < timedelta(seconds=32)


async def test_deadline_runs_the_undos_and_expires_the_task() -> None:
    """The deadline of a running task is a cancel."""
    agent = Agent("releaser", version="1.0.0")
    gate = Gate()

    @agent.capability("release", timeout=None)
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("it", withdraw, "a")
            await ctx.step("one", act)
            await gate()

    async with stage(agent) as on:
        handle = await on.mesh.submit(release, Number(0), deadline=timedelta(minutes=1))
        with pytest.raises(TaskExpired):
            await handle.result()
    assert UNDONE == ["a"]


async def test_cancel_that_comes_while_a_late_attempt_is_given_up_still_runs_the_undos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever receives a task after its deadline does not run it; if it is cancelled meanwhile, its undos are run."""
    agent = Agent("releaser", version="1.0.0")
    gate = Gate()

    @agent.capability("release", timeout=None)
    async def release(value: Number, ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.undo("it", withdraw, "a")
            await ctx.step("one", act)
            await gate()

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(release, Number(0), deadline=timedelta(hours=1))
        await until(lambda: gate.inside == 1)

        def cancelled_meanwhile() -> Failure:
            scope = on.scope(handle.id)
            on.append(scope, "cancel-requested", honest=True, reason="deadline")
            return too_late()

        monkeypatch.setattr(receiving, "too_late", cancelled_meanwhile)
        second = await on.join(agent)
        second.worker._receiving._clock = Ahead(on.site.clock)
        await on.site.crash(first)
        with pytest.raises(TaskExpired):
            await handle.result()
        assert ("undo-done", "it", True) in checkpoints(on, handle.id)
        assert on.history(handle.id).failures == 0
    assert UNDONE == ["a"]


class Ahead:
    """A clock that is a day ahead of another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now() + timedelta(days=1)


async def test_undos_begun_by_a_dead_holder_are_finished_by_the_next() -> None:
    """The handler is not run again: its steps are being undone."""
    agent = Agent("releaser", version="1.0.0")
    gate, runs = Gate(), list[int]()
    GATES.append(gate)

    @agent.capability("release", timeout=None)
    async def release(value: Number, ctx: Context) -> None:
        runs.append(1)
        async with ctx.saga() as saga:
            saga.undo("first", withdraw, "a")
            saga.undo("second", gated, "b")
            await ctx.step("one", act)
            raise Permanent("no")

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(release, Number(0))
        await until(lambda: gate.inside == 1)
        await on.join(agent)
        await on.site.crash(first)
        gate.open()
        with pytest.raises(TaskDead, match="no"):
            await handle.result()
        done = [key for kind, key, _ in checkpoints(on, handle.id) if kind == "undo-done"]
        assert done == ["second", "first"]
    assert runs == [1]


GATES: list[Gate] = []


async def gated(name: str) -> None:
    """An undo that waits until a test lets it."""
    await GATES[-1](name)


async def test_undos_that_no_later_process_could_run_are_refused() -> None:
    """A local function, and arguments that are no data, are NotRecordable: bugs."""
    agent = Agent("releaser", version="1.0.0")

    @agent.capability("release")
    async def release(value: Number, ctx: Context) -> None:
        async def local() -> None: ...

        async with ctx.saga() as saga:
            if value.n:
                saga.undo("it", withdraw, object())
            else:
                saga.undo("it", local)

    async with stage(agent) as on:
        for n in (0, 1):
            with pytest.raises(TaskDead) as caught:
                await on.mesh.call(release, Number(n))
            assert caught.value.cause_code == "SG1506"
