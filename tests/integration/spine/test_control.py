"""Control over running tasks on a real server: cancel, signal, chunks, progress, starts, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from switchgear.agent.context import Context
from switchgear.agent.declare import Agent
from switchgear.client.mesh import Mesh
from switchgear.contract.approval import Approval
from switchgear.contract.values import Retry
from switchgear.errors import (
    Conflict,
    Forbidden,
    Permanent,
    Retryable,
    TaskCancelled,
    TaskDead,
)
from switchgear.projections.service import observe
from tests.integration.spine.stage import (
    OWNER,
    SOON,
    Gate,
    Stage,
    Text,
    gated,
    history_of,
    reach,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


class Refusing:
    """What an agent refuses, and what it ran."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.ran: list[str] = []

    def agent(self) -> Agent:
        """One capability that refuses for good, one that fails and waits for long, one that streams, one that asks."""
        made = Agent("mill", version="1.0.0")

        @made.capability("grind")
        async def grind(value: Text, ctx: Context) -> Text:
            self.ran.append(value.text)
            if value.text in self.refused:
                raise Permanent(f"no {value.text}")
            return Text(f"ground {value.text}")

        @made.capability("flaky", retry=Retry(initial=timedelta(hours=1)))
        async def flaky(value: Text, ctx: Context) -> Text:
            self.ran.append(value.text)
            if len(self.ran) == 1:
                raise Retryable("not now", retry_after=3600)
            return value

        @made.capability("stream")
        async def stream(value: Text, ctx: Context) -> Text:
            for word in value.text.split():
                ctx.emit(word)
            return value

        @made.capability("ask")
        async def ask(value: Text, ctx: Context) -> Text:
            said = await ctx.wait_for_signal("review", Approval, question=value.text)
            return Text(said.note)

        return made


@pytest_asyncio.fixture
async def observed(stage: Stage, mesh: Mesh, tmp_path: Path) -> AsyncIterator[Mesh]:
    """The client of a mesh with a read model."""
    ready = asyncio.Event()
    bus = await stage.bus("observe", "observe")
    running = asyncio.create_task(observe(bus, tmp_path / "history.sqlite", ready=ready.set))
    async with asyncio.timeout(PATIENCE):
        await ready.wait()
    yield mesh
    running.cancel()
    await asyncio.wait({running})


async def caught_up(mesh: Mesh) -> None:
    """Wait until the read model has read all there is."""

    async def is_level() -> bool:
        return (await mesh.list()).lag == 0

    await until(is_level)


async def test_cancel_reaches_the_running_handler(stage: Stage, mesh: Mesh, gate: Gate) -> None:
    await stage.join(gated(gate))
    handle = await mesh.submit("work", Text("x"))
    await gate.holds()
    assert await handle.cancel("wrong branch")
    with pytest.raises(TaskCancelled, match="wrong branch"):
        await handle.result(timeout=SOON)
    assert gate.cancelled == ["x"]
    assert not await handle.cancel()
    with pytest.raises(Conflict, match="has ended as cancelled"):
        await handle.signal("review")


async def test_cancel_ends_what_waits_for_an_agent(mesh: Mesh) -> None:
    handle = await mesh.submit("nobody", Text("x"))
    await reach(handle, "waiting")
    assert await handle.cancel()
    with pytest.raises(TaskCancelled):
        await handle.result(timeout=SOON)


async def test_signal_is_taken_by_the_handler_that_waits(stage: Stage, mesh: Mesh) -> None:
    """Sent early, by a handle, and by the mesh; nobody else may."""
    await stage.join(Refusing().agent())
    eve = await stage.client("eve")
    yes = Approval(approved=True, note="go")
    first = await mesh.submit("ask", Text("go?"))
    second = await mesh.submit("ask", Text("go?"))
    with pytest.raises(Forbidden, match="eve"):
        await eve.signal(first.id, "review", yes)
    sequence = await first.signal("review", yes)
    assert await mesh.signal(second.id, "review", yes) > sequence
    assert await first.result(Text, timeout=SOON) == Text("go")
    assert await second.result(Text, timeout=SOON) == Text("go")
    signals = [
        one for one in (await history_of(mesh, first)).valid if one.stored.sequence == sequence
    ]
    assert [one.subject.event for one in signals] == ["signalled"]


async def test_signal_that_does_not_fit_is_refused_and_loses_nothing(
    stage: Stage, observed: Mesh
) -> None:
    """Its sender finds in the timeline what was wrong, and answers again."""
    await stage.join(Refusing().agent())
    handle = await observed.submit("ask", Text("go?"))
    wrong = await handle.signal("review", {"approved": "yes"})
    await handle.signal("review", Approval(approved=True, note="go"))
    assert await handle.result(Text, timeout=SOON) == Text("go")
    await caught_up(observed)
    moments = (await observed.timeline(handle.id)).moments
    refused, taken = [one for one in moments if one.event == "checkpoint"]
    assert refused.detail.startswith(f"refused entry {wrong}: SG1507 at $.approved: ")
    assert (refused.ok, taken.ok) == (False, True)


async def test_live_submission_hears_every_chunk(stage: Stage, mesh: Mesh) -> None:
    await stage.join(Refusing().agent())
    words = [f"w{number}" for number in range(200)]
    handle = await mesh.submit("stream", Text(" ".join(words)), live=True)
    async with asyncio.timeout(PATIENCE):
        seen = [chunk async for chunk in handle.chunks(str)]
    assert [chunk.value for chunk in seen] == words
    assert [chunk.number for chunk in seen] == [*range(200)]


async def test_late_watcher_is_told_the_newest_progress(stage: Stage, mesh: Mesh) -> None:
    agent, go = Agent("slow", version="1.0.0"), asyncio.Event()

    @agent.capability("slow")
    async def slow(value: Text, ctx: Context) -> Text:
        ctx.progress(0.25, "a quarter")
        await go.wait()
        return value

    await stage.join(agent)
    handle = await mesh.submit("slow", Text("x"))

    async def reported() -> bool:
        return await handle.progress() is not None

    await until(reported)
    late = await (await stage.client(OWNER)).get(handle.id)
    seen: list[tuple[str, Any]] = []
    async with asyncio.timeout(PATIENCE):
        async for event in late.events():
            seen.append((event.event, event.fraction))
            if event.event == "progress":
                go.set()
    assert [event for event, _ in seen] == ["submitted", "dispatched", "progress", "completed"]
    assert seen[2] == ("progress", 0.25)


async def test_waiting_tasks_begin_at_once_when_told(stage: Stage, mesh: Mesh) -> None:
    """One that waits for its start, one that waits for its next attempt."""
    given = Refusing()
    await stage.join(given.agent())
    later = await mesh.submit("stream", Text("x"), start=timedelta(hours=1))
    await reach(later, "waiting")
    assert (await later.retry_now()).state == "held"
    await later.result(timeout=SOON)
    flaky = await mesh.submit("flaky", Text("y"))
    await reach(flaky, "waiting")
    assert (await flaky.retry_now()).state == "held"
    assert await flaky.result(Text, timeout=SOON) == Text("y")
    assert (await flaky.retry_now()).state == "completed"


async def test_start_is_waited_for(stage: Stage, mesh: Mesh) -> None:
    await stage.join(Refusing().agent())
    handle = await mesh.submit("stream", Text("x"), start=timedelta(seconds=1))
    await handle.result(timeout=SOON)
    history = await history_of(mesh, handle)
    assert history.submitted is not None
    assert history.submitted.start is not None
    assert history.dispatched_time is not None
    assert history.dispatched_time >= history.submitted.start


async def test_dead_tasks_are_found_by_cause_and_tried_again(stage: Stage, observed: Mesh) -> None:
    given = Refusing("bad")
    await stage.join(given.agent())
    dead = await observed.submit("grind", Text("bad"))
    with pytest.raises(TaskDead):
        await dead.result(timeout=SOON)
    await caught_up(observed)
    [group] = (await observed.dead_letters.groups()).groups
    assert (group.capability, group.count, group.newest) == ("grind", 1, dead.id)
    given.refused.clear()
    [told] = await observed.dead_letters.redrive_many(fingerprint=group.fingerprint)
    assert told.handle is not None
    assert await told.handle.result(Text, timeout=SOON) == Text("ground bad")
    again = await observed.dead_letters.redrive(dead.id)
    assert (again.task, again.started, again.state) == (told.task, False, "completed")
    assert given.ran == ["bad", "bad"]
    await caught_up(observed)
    [group] = (await observed.dead_letters.groups()).groups
    assert group.redriven == 1
    assert [row.id for row in (await observed.list(redrives=dead.id)).tasks] == [told.task]


async def test_timeline_of_a_long_run_is_told_in_full(
    stage: Stage, observed: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than one answer: the client asks page by page."""
    from switchgear.projections import lists

    monkeypatch.setattr(lists, "MAX_MOMENTS", 3)
    agent = Agent("steps", version="1.0.0")

    def step(number: int) -> int:
        return number

    @agent.capability("steps")
    async def steps(value: Text, ctx: Context) -> Text:
        for number in range(10):
            await ctx.step(f"step-{number}", step, number)
        return value

    await stage.join(agent)
    handle = await observed.submit("steps", Text("x"))
    await handle.result(timeout=SOON)
    await caught_up(observed)
    told = await observed.timeline(handle.id)
    keys = [moment.key for moment in told.moments if moment.event == "checkpoint"]
    assert keys == [f"step-{number}" for number in range(10)]
    assert [moment.event for moment in told.moments][-1] == "completed"
    assert not told.more
