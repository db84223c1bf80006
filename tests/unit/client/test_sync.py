"""The client for scripts, against a mesh in memory that lives on the client's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from switchgear import (
    Agent,
    Capability,
    Conflict,
    Context,
    NotFound,
    Permanent,
    SyncMesh,
    TaskCancelled,
    TaskDead,
    TaskRejected,
    UsageError,
    WaitTimeout,
)
from switchgear.client.loop_thread import LoopThread
from switchgear.testing import MemoryMesh, mesh, virtual_time
from tests.unit.agent.stage import Number

echo = Capability("echo", Number, Number)


def agent() -> Agent:
    made = Agent("echo", version="1.0.0")

    @made.capability("refuse")
    async def refuse(value: Number, ctx: Context) -> Number:
        if value.n < 0:
            raise Permanent("too small")
        return value

    @made.capability("ask", timeout=None)
    async def ask(value: Number, ctx: Context) -> Number:
        return await ctx.wait_for_signal("number", Number)

    @made.capability("echo", timeout=None)
    async def answer(value: Number, ctx: Context) -> Number:
        ctx.progress(0.5, "half")
        ctx.emit(value.n)
        await asyncio.sleep(value.n / 100)
        return value

    return made


@pytest.fixture
def memory() -> Iterator[SyncMesh]:
    """A synchronous client of a test mesh, in real time: its loop idles between the calls."""
    thread = LoopThread()
    opened = mesh(agent())

    async def enter() -> MemoryMesh:
        made = await opened.__aenter__()
        virtual_time.of_running_loop().leave()
        return made

    async def leave() -> None:
        virtual_time.of_running_loop().enter()
        await opened.__aexit__(None, None, None)

    made = thread.call(enter())
    try:
        yield SyncMesh(thread, made)
    finally:
        thread.call(leave())
        thread.stop()


def test_script_submits_and_waits(memory: SyncMesh) -> None:
    """The same names as the asynchronous client, without `await`."""
    assert memory.call(echo, Number(1)) == Number(1)
    handle = memory.submit(echo, Number(3), key="k", priority="high")
    assert handle.result() == Number(3)
    assert handle.status().state == "completed"
    assert memory.get(handle.id).result(Number) == Number(3)
    assert repr(handle) == f"SyncTaskHandle({handle.id!r}, 'echo')"


def test_script_follows_many_tasks(memory: SyncMesh) -> None:
    """`as_completed` gives the very handles that were submitted, in the order of their ends."""
    tasks = memory.submit_many(echo, [Number(n) for n in (6, 2, 4)], key="batch")
    ended = list(memory.as_completed(tasks))
    assert [task.result().n for task in ended] == [2, 4, 6]
    assert {id(task) for task in ended} == {id(task) for task in tasks}
    assert [task.id for task in memory.as_completed(tasks)] == [task.id for task in ended]
    assert memory.list(state="completed").lag == 0


def test_script_sees_events(memory: SyncMesh) -> None:
    """Events come one by one and end with the task; an iteration may be left."""
    handle = memory.submit(echo, Number(1))
    seen = [event.event for event in handle.events()]
    assert [event for event in seen if event != "progress"] == [
        "submitted",
        "dispatched",
        "completed",
    ]
    assert next(memory.submit(echo, Number(5)).events()).event == "submitted"


def test_script_meets_the_same_errors(memory: SyncMesh) -> None:
    """Each is raised in the script's thread."""
    with pytest.raises(TaskRejected):
        memory.call("nobody", Number(1))
    with pytest.raises(NotFound):
        memory.get("nothing")
    with pytest.raises(WaitTimeout):
        memory.submit(echo, Number(100_000)).result(timeout=timedelta(milliseconds=10))
    memory.submit(echo, Number(1), key="k")
    with pytest.raises(Conflict):
        memory.submit(echo, Number(2), key="k")


def test_script_steers_its_tasks(memory: SyncMesh) -> None:
    """Cancel, signal, chunks, progress, a later start and an earlier one."""
    asked = memory.submit("ask", Number(1))
    assert asked.signal("number", Number(7)) > 0
    assert asked.result(Number) == Number(7)
    other = memory.submit("ask", Number(1))
    assert memory.signal(other.id, "number", Number(8)) > 0
    assert other.result(Number) == Number(8)
    live = memory.submit(echo, Number(2), live=True)
    assert [chunk.value for chunk in live.chunks(int)] == [2]
    report = live.progress()
    assert report is not None
    assert report.message == "half"
    later = memory.submit(echo, Number(1), start=timedelta(days=1))
    while later.status().state != "waiting":
        pass
    assert later.retry_now().state == "held"
    assert later.result() == Number(1)
    stopped = memory.submit(echo, Number(100_000))
    assert stopped.cancel("enough")
    with pytest.raises(TaskCancelled, match="enough"):
        stopped.result()


def test_script_tries_dead_tasks_again(memory: SyncMesh) -> None:
    """The same names as the asynchronous client; handles without `await`."""
    with pytest.raises(TaskDead):
        memory.call("refuse", Number(-1))
    [group] = memory.dead_letters.groups().groups
    assert [row.id for row in memory.dead_letters.list().tasks] == [group.newest]
    planned = memory.dead_letters.redrive(group.newest, dry_run=True)
    assert (planned.handle, planned.started) == (None, False)
    told = memory.dead_letters.redrive(group.newest, input=Number(1))
    assert told.handle is not None
    assert told.handle.result(Number) == Number(1)
    [again] = memory.dead_letters.redrive_many(fingerprint=group.fingerprint)
    assert again.redrives == group.newest


def test_script_looks_at_the_mesh(memory: SyncMesh) -> None:
    """Queries give the same answers."""
    offered = {row.offer.name for row in memory.capabilities().rows}
    assert offered == {"ask", "echo", "refuse"}
    assert [one.agent for one in memory.agents().instances] == ["echo"]
    handle = memory.submit(echo, Number(1))
    handle.result()
    assert memory.explain(handle.id).state == "completed"
    assert len(memory.timeline(handle.id).moments) == 3
    assert memory.drain("echo").instances


def test_use_on_its_own_loop_is_refused() -> None:
    """It would wait for itself for ever."""
    thread = LoopThread()

    async def inside() -> None:
        async def work() -> None: ...

        thread.call(work())

    try:
        with pytest.raises(UsageError, match="its own event loop"):
            thread.call(inside())
    finally:
        thread.stop()
