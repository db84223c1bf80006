"""Dead letters: by cause, and tried again as new tasks, each once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from switchgear import (
    Agent,
    Conflict,
    Context,
    NotFound,
    Permanent,
    Retry,
    TaskCancelled,
    TaskDead,
    testing,
)
from switchgear.client.dead_letters import DeadLetters, Redrive
from switchgear.contract import entries
from switchgear.lifecycle.history import fold
from switchgear.tasks.handle import TaskHandle
from switchgear.testing.mesh import MemoryMesh
from tests.unit.agent.stage import Number, Text

Told = Redrive[TaskHandle[Any]]


class Mill:
    """An agent whose capability refuses what it is told to."""

    def __init__(self) -> None:
        self.refused: set[str] = {"bad", "worse"}
        self.ran: list[str] = []
        self.agent = Agent("mill", version="1.0.0")

        @self.agent.capability("grind")
        async def grind(value: Text, ctx: Context) -> Text:
            word = value.text.split()[0]
            self.ran.append(value.text)
            if word in self.refused:
                raise Permanent(f"no {word}: it cannot be ground")
            await asyncio.sleep(1)
            return Text(f"ground {value.text}")

        @self.agent.capability("count")
        async def count(value: Number, ctx: Context) -> Number:
            raise Permanent("no counting")


async def die(mesh: MemoryMesh, text: str, **options: Any) -> str:
    """A task that is dead."""
    handle = await mesh.submit("grind", Text(text), **options)
    with pytest.raises(TaskDead):
        await handle.result()
    return handle.id


async def submitted(mesh: MemoryMesh, told: Told) -> entries.Submitted:
    """The entry that opened the further try."""
    scope = f"sg.task.{told.capability}.{mesh.principal}.{told.task}.>"
    found = fold(scope, await mesh.bus.ledger.history(scope)).submitted
    assert found is not None
    return found


async def test_dead_tasks_are_grouped_by_cause() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        for text in ("bad 1", "bad 2", "worse 3"):
            await die(mesh, text)
        await asyncio.sleep(60)
        newest = await die(mesh, "bad 4")
        with pytest.raises(TaskDead):
            await mesh.call("count", Number(1))
        found = await mesh.dead_letters.groups()
        assert [one.count for one in found.groups] == [3, 1, 1]
        assert {one.capability for one in found.groups[1:]} == {"count", "grind"}
        biggest = found.groups[0]
        assert (biggest.newest, biggest.error.code, biggest.redriven) == (newest, "SG1501", 0)
        assert biggest.last - biggest.first == timedelta(seconds=60)
        listed = await mesh.dead_letters.list(fingerprint=biggest.fingerprint)
        assert len(listed.tasks) == 3
        only = await mesh.dead_letters.groups(capability="count")
        assert [one.count for one in only.groups] == [1]
        assert (await mesh.dead_letters.groups(fingerprint="unknown")).groups == ()


async def test_a_redrive_is_a_new_task_with_the_same_input_and_options() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        retry = Retry(max_attempts=7)
        dead = await die(
            mesh, "bad 1", priority="high", retry=retry, deadline=timedelta(hours=3), labels={}
        )
        await asyncio.sleep(3600 * 5)
        mill.refused.clear()
        told = await mesh.dead_letters.redrive(dead)
        assert (told.started, told.changed, told.redrives) == (True, False, dead)
        assert told.handle is not None
        assert await told.handle.result(Text) == Text("ground bad 1")
        entry = await submitted(mesh, told)
        assert (entry.redrives, entry.priority, entry.retry) == (dead, "high", retry)
        assert entry.deadline is not None
        assert entry.deadline - entry.time == timedelta(hours=3)
        [group] = (await mesh.dead_letters.groups()).groups
        assert (group.count, group.redriven) == (1, 1)
        rows = (await mesh.list(redrives=dead)).tasks
        assert [(row.id, row.redrives) for row in rows] == [(told.task, dead)]


async def test_the_same_redrive_is_started_once() -> None:
    """As long as it is open or has succeeded; another input is another redrive."""
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        mill.refused.clear()
        first = await mesh.dead_letters.redrive(dead)
        again = await mesh.dead_letters.redrive(dead)
        assert (again.task, again.started) == (first.task, False)
        assert again.handle is not None
        await again.handle.result()
        third = await mesh.dead_letters.redrive(dead)
        assert (third.task, third.started, third.state) == (first.task, False, "completed")
        other = await mesh.dead_letters.redrive(dead, input=Text("good"))
        assert (other.started, other.changed) == (True, True)
        assert other.task != first.task
        assert other.handle is not None
        assert await other.handle.result(Text) == Text("ground good")


async def test_what_asks_at_the_same_time_starts_one_task() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        mill.refused.clear()
        asked = [mesh.dead_letters.redrive(dead) for _ in range(5)]
        told = await asyncio.gather(*asked)
        assert len({one.task for one in told}) == 1
        assert told[0].handle is not None
        await told[0].handle.result()
        assert mill.ran == ["bad 1"] * 2


async def test_a_redrive_that_died_is_followed_by_another() -> None:
    """Whichever of them is named: both are tries of the first dead task."""
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        first = await mesh.dead_letters.redrive(dead)
        assert first.handle is not None
        with pytest.raises(TaskDead):
            await first.handle.result()
        mill.refused.clear()
        by_second = await mesh.dead_letters.redrive(first.task)
        by_first = await mesh.dead_letters.redrive(dead)
        assert by_second.task == by_first.task != first.task
        assert [by_second.started, by_first.started] == [True, False]
        assert (await submitted(mesh, by_second)).redrives == dead


async def test_a_redrive_that_was_cancelled_may_be_repeated() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        mill.refused.clear()
        first = await mesh.dead_letters.redrive(dead)
        assert first.handle is not None
        await first.handle.cancel()
        with pytest.raises(TaskCancelled):
            await first.handle.result()
        assert (await mesh.dead_letters.redrive(dead)).task != first.task


async def test_many_are_redriven_each_cause_once() -> None:
    """Of a dead task and its dead redrive one is started, of what runs already nothing."""
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = [await die(mesh, f"bad {number}") for number in range(3)]
        tried = await mesh.dead_letters.redrive(dead[0])
        assert tried.handle is not None
        with pytest.raises(TaskDead):
            await tried.handle.result()
        [group] = (await mesh.dead_letters.groups()).groups
        assert (group.count, group.redriven) == (4, 1)
        planned = await mesh.dead_letters.redrive_many(fingerprint=group.fingerprint, dry_run=True)
        assert [(one.redrives, one.started) for one in planned] == [(one, False) for one in dead]
        mill.refused.clear()
        mill.ran.clear()
        told = await mesh.dead_letters.redrive_many(fingerprint=group.fingerprint)
        assert [one.task for one in told] == [one.task for one in planned]
        for one in told:
            assert one.handle is not None
            await one.handle.result()
        assert sorted(mill.ran) == ["bad 0", "bad 1", "bad 2"]
        again = await mesh.dead_letters.redrive_many(capability="grind")
        assert [one.started for one in again] == [False] * 3


async def test_many_that_die_again_at_once_are_each_tried_once() -> None:
    """The try that one of a dead task's rows started may be dead before the next row of it comes."""
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        tried = await mesh.dead_letters.redrive(dead)
        assert tried.handle is not None
        with pytest.raises(TaskDead):
            await tried.handle.result()
        other = await mesh.dead_letters.redrive(dead, input=Text("bad 2"))
        assert other.handle is not None
        with pytest.raises(TaskDead):
            await other.handle.result()
        start = vars(mesh.dead_letters)["_start"]

        async def started(*args: Any) -> TaskHandle[Any]:
            handle = await start(*args)
            with pytest.raises(TaskDead):
                await handle.result()
            return handle

        letters = DeadLetters(mesh, started)
        [told] = await letters.redrive_many(capability="grind")
        assert (told.redrives, told.input) == (dead, {"text": "bad 2"})
        assert mill.ran == ["bad 1", "bad 1", "bad 2", "bad 2"]


async def test_many_are_bounded() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = [await die(mesh, f"bad {number}") for number in range(5)]
        told = await mesh.dead_letters.redrive_many(limit=2, dry_run=True)
        assert [one.redrives for one in told] == dead[-2:]
        assert await mesh.dead_letters.redrive_many(limit=0) == []


async def test_a_dry_run_submits_nothing() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, "bad 1")
        before = await mesh.bus.ledger.last_sequence()
        told = await mesh.dead_letters.redrive(dead, input=None, dry_run=True)
        assert (told.input, told.changed, told.state, told.handle) == (None, True, "none", None)
        told = await mesh.dead_letters.redrive(dead, dry_run=True)
        assert (told.input, told.changed, told.started) == ({"text": "bad 1"}, False, False)
        assert await mesh.bus.ledger.last_sequence() == before


async def test_a_large_input_goes_by_reference() -> None:
    mill = Mill()
    text = f"bad {'x' * 400_000}"
    async with testing.mesh(mill.agent) as mesh:
        dead = await die(mesh, text)
        mill.refused.clear()
        told = await mesh.dead_letters.redrive(dead)
        assert (told.input, len(told.blob), told.changed) == (None, 64, False)
        assert told.handle is not None
        assert await told.handle.result(Text) == Text(f"ground {text}")


async def test_only_the_dead_are_redriven() -> None:
    mill = Mill()
    async with testing.mesh(mill.agent) as mesh:
        handle = await mesh.submit("grind", Text("good"))
        with pytest.raises(Conflict, match="not dead"):
            await mesh.dead_letters.redrive(handle.id)
        await handle.result()
        with pytest.raises(Conflict, match="is completed"):
            await mesh.dead_letters.redrive(handle.id)
        with pytest.raises(NotFound):
            await mesh.dead_letters.redrive("unknown")
