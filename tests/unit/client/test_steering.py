"""Steering a task that is under way: cancel, signal, chunks, progress, later starts and earlier retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from switchgear import (
    Agent,
    Conflict,
    Context,
    NotFound,
    Permanent,
    ProtocolError,
    Retry,
    Retryable,
    TaskCancelled,
    UsageError,
    testing,
)
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, queries, subjects
from switchgear.contract.approval import Approval
from switchgear.coordinator.service import Coordinator
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.errors import Forbidden
from switchgear.tasks import chunks
from switchgear.tasks.chunks import Chunk
from switchgear.testing.mesh import MemoryMesh
from tests.unit.agent.stage import Gate, Number, Text, stage, until


def worker(gate: Gate | None = None) -> Agent:
    """Streams, asks, fails and waits."""
    agent = Agent("worker", version="1.0.0")
    failed: list[int] = []

    @agent.capability("count")
    async def count(value: Number, ctx: Context) -> Number:
        for number in range(value.n):
            ctx.emit(number)
            await asyncio.sleep(0.01)
        return value

    @agent.capability("ask", timeout=None)
    async def ask(value: Text, ctx: Context) -> Text:
        said = await ctx.wait_for_signal("review", Approval, question=value.text)
        if not said.approved:
            raise Permanent(said.note)
        return Text(said.note)

    @agent.capability("ask-group", timeout=None)
    async def ask_group(value: Text, ctx: Context) -> Text:
        said = await ctx.wait_for_signal("review", Approval, sender="approvers")
        return Text(said.note)

    @agent.capability("hold", timeout=None)
    async def hold(value: Text, ctx: Context) -> Text:
        assert gate is not None
        ctx.progress(0.25, "a quarter")
        await gate(value.text)
        return value

    @agent.capability(
        "flaky", retry=Retry(initial=timedelta(hours=1), max_delay=timedelta(hours=2))
    )
    async def flaky(value: Number, ctx: Context) -> Number:
        failed.append(value.n)
        if len(failed) == 1:
            raise Retryable("not now", retry_after=1800)
        return value

    return agent


async def test_a_cancelled_task_ends_as_cancelled_with_its_reason() -> None:
    gate = Gate()
    async with stage(worker(gate)) as on:
        handle = await on.mesh.submit("hold", Text("x"))
        await until(lambda: gate.inside == 1)
        assert await handle.cancel("wrong branch")
        with pytest.raises(TaskCancelled, match="wrong branch"):
            await handle.result()
        assert not await handle.cancel("again")
        assert (await handle.status()).state == "cancelled"


async def test_whoever_cancels_for_a_deadline_does_not_make_the_task_expire() -> None:
    """That word alone is a coordinator's reason: only a deadline that has passed ends a task as expired."""
    gate = Gate()
    async with stage(worker(gate)) as on:
        handle = await on.mesh.submit("hold", Text("x"))
        await until(lambda: gate.inside == 1)
        assert await handle.cancel("deadline")
        with pytest.raises(TaskCancelled, match="deadline"):
            await handle.result()


async def test_a_cancel_of_what_was_never_submitted_is_not_found() -> None:
    async with stage() as on:
        with pytest.raises(NotFound):
            await (await on.mesh.get("nothing")).cancel()


async def test_a_signal_is_taken_by_the_wait_for_it() -> None:
    """Before it waits, while it holds its slot, and when it is suspended."""
    async with stage(worker()) as on:
        for wait in (0.0, 1.0, 60.0):
            handle = await on.mesh.submit("ask", Text("go?"))
            await asyncio.sleep(wait)
            sequence = await handle.signal("review", Approval(approved=True, note="go"))
            assert await handle.result() == {"text": "go"}
            sent = on.history(handle.id).valid
            assert [one.subject.event for one in sent if one.stored.sequence == sequence] == [
                "signalled"
            ]


async def test_a_signal_to_an_ended_task_is_a_conflict() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(1))
        await handle.result()
        with pytest.raises(Conflict, match="has ended as completed"):
            await handle.signal("review")
        with pytest.raises(UsageError, match="cannot be written"):
            await handle.signal("review", object())
        with pytest.raises(ProtocolError, match="SG1107"):
            await handle.signal("no token")


class Grouped(Coordinator):
    """A coordinator that knows who belongs to the approvers."""

    def __init__(self, bus: Any, clock: Any) -> None:
        super().__init__(
            bus, clock, CoordinatorSettings(groups={"approvers": frozenset({"bob", "carol"})})
        )


async def test_a_member_of_the_group_answers_another_owners_task() -> None:
    """Who is no member is refused, the owner too: the wait would not take it."""
    async with stage(coordinators=0) as on:
        await on.site.coordinate(Grouped)
        await on.join(worker())
        handle = await on.mesh.submit("ask-group", Text("go?"))
        await asyncio.sleep(60)
        eve = Mesh(on.site.bus("eve"), "eve", clock=on.site.clock)
        bob = Mesh(on.site.bus("bob"), "bob", clock=on.site.clock)
        yes = Approval(approved=True, note="yes")
        with pytest.raises(Forbidden, match="eve"):
            await eve.signal(handle.id, "review", yes)
        with pytest.raises(Forbidden, match="alice"):
            await handle.signal("review", yes)
        assert on.events(handle.id).count("signalled") == 0
        assert await bob.signal(handle.id, "review", yes) > 0
        assert await handle.result() == {"text": "yes"}
        await eve.watch.close()
        await bob.watch.close()


async def test_a_signal_that_a_coordinator_could_not_take_is_refused_at_once() -> None:
    async with stage() as on:
        with pytest.raises(UsageError, match="a signal of 70002 bytes"):
            await on.mesh.signal("another", "review", "x" * 70_000)


async def test_signalling_an_unknown_task_is_not_found() -> None:
    async with stage() as on:
        with pytest.raises(NotFound, match="no task nothing"):
            await on.mesh.signal("nothing", "review")


async def read(source: AsyncIterator[Chunk[Any]]) -> list[Any]:
    return [chunk.value async for chunk in source]


async def test_live_submission_misses_no_chunk() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(5), live=True)
        await handle.result()
        seen = [chunk async for chunk in handle.chunks(int)]
        assert [(chunk.number, chunk.value) for chunk in seen] == [(n, n) for n in range(5)]
        assert {chunk.run for chunk in seen} == {on.history(handle.id).dispatched_at}
        assert await read(handle.chunks()) == []


async def test_chunks_end_with_the_task_and_come_while_it_runs() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(3), live=True)
        seen = [
            (chunk.value, on.history(handle.id).ended is None) async for chunk in handle.chunks(int)
        ]
        assert seen == [(0, True), (1, True), (2, True)]


async def test_chunks_of_another_type_are_told() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(2), live=True)
        with pytest.raises(ProtocolError, match="SG1102"):
            await read(handle.chunks(str))


async def test_chunks_of_a_former_holder_are_dropped_and_garbage_is_ignored() -> None:
    gate = Gate()
    async with stage(worker(gate)) as on:
        handle = await on.mesh.submit("hold", Text("x"), live=True)
        await until(lambda: gate.inside == 1)
        subject = subjects.chunks(on.scope(handle.id))

        def send(run: int, number: int) -> None:
            value = codec.encode(f"{run}.{number}")
            chunk = queries.Chunk(step="draft", run=run, number=number, value=queries.Raw(value))
            on.bus.core.publish(subject, codec.encode(chunk))

        send(7, 0)
        send(9, 0)
        send(7, 1)
        on.bus.core.publish(subject, b"{")
        send(9, 1)
        gate.open()
        await handle.result()
        assert await read(handle.chunks(str)) == ["7.0", "9.0", "9.1"]


async def test_slow_reader_of_chunks_loses_the_oldest_not_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "MAX_KEPT", 200)
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(50), live=True)
        await handle.result()
        numbers = [chunk.number async for chunk in handle.chunks()]
        assert 1 < len(numbers) < 10
        assert numbers == [*range(50)][-len(numbers) :]


async def test_chunks_that_nobody_reads_are_heard_no_longer_than_the_task_runs() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("count", Number(2), live=True)
        await handle.result()
        await asyncio.sleep(1)
        subject = subjects.chunks(on.scope(handle.id))
        late = queries.Chunk(step="", run=10**6, number=9, value=queries.Raw(b"9"))
        on.bus.core.publish(subject, codec.encode(late))
        assert await read(handle.chunks()) == [0, 1]


async def test_progress_is_the_newest_report() -> None:
    gate = Gate()
    async with stage(worker(gate)) as on:
        handle = await on.mesh.submit("hold", Text("x"))
        assert await handle.progress() is None
        await until(lambda: gate.inside == 1)
        await asyncio.sleep(1)
        report = await handle.progress()
        assert report is not None
        assert (report.fraction, report.message, report.task) == (0.25, "a quarter", handle.id)


async def test_late_watchers_are_told_the_newest_progress() -> None:
    """After the entries that they missed, before what happens next; once."""
    gate = Gate()
    async with stage(worker(gate)) as on:
        handle = await on.mesh.submit("hold", Text("x"))
        await until(lambda: gate.inside == 1)
        await asyncio.sleep(60)
        seen: list[str] = []
        async for event in (await on.mesh.get(handle.id)).events():
            seen.append(event.event)
            if event.event == "progress":
                gate.open()
        assert seen == ["submitted", "dispatched", "progress", "completed"]


async def test_a_later_start_is_waited_for_and_can_be_brought_forward() -> None:
    async with stage(worker()) as on:
        began = on.site.clock.now()
        later = await on.mesh.submit("count", Number(1), start=timedelta(hours=1))
        assert await later.result() == {"n": 1}
        assert on.site.clock.now() - began >= timedelta(hours=1)
        now = await on.mesh.submit(
            "count", Number(1), start=on.site.clock.now() + timedelta(days=1)
        )
        await on.reach(now.id, "waiting")
        assert (await now.retry_now()).state == "held"
        before = on.site.clock.now()
        await now.result()
        assert on.site.clock.now() - before < timedelta(minutes=1)


async def test_the_start_that_was_asked_for_belongs_to_a_key() -> None:
    """A relative one by what was asked, whenever it is asked again."""
    async with stage(worker()) as on:
        first = await on.mesh.submit("count", Number(1), key="k", start=timedelta(hours=1))
        await asyncio.sleep(60)
        again = await on.mesh.submit("count", Number(1), key="k", start=timedelta(hours=1))
        assert again.id == first.id
        with pytest.raises(Conflict):
            await on.mesh.submit("count", Number(1), key="k", start=timedelta(hours=2))
        with pytest.raises(Conflict):
            await on.mesh.submit("count", Number(1), key="k")


async def test_a_retry_can_be_brought_forward() -> None:
    async with stage(worker()) as on:
        handle = await on.mesh.submit("flaky", Number(1))
        await on.reach(handle.id, "waiting")
        before = on.site.clock.now()
        assert (await handle.retry_now()).state == "held"
        assert await handle.result() == {"n": 1}
        assert on.site.clock.now() - before < timedelta(minutes=1)
        assert (await handle.retry_now()).state == "completed"


async def test_what_a_task_asks_is_listed() -> None:
    """The row of a suspended task shows the question; once answered it does not."""
    async with testing.mesh(worker()) as mesh:
        handle = await mesh.submit("ask", Text("ship it?"))
        await asyncio.sleep(60)
        [wait] = await asked(mesh)
        assert (wait.signal, wait.question, wait.sender) == ("review", "ship it?", "")
        [row] = (await mesh.list()).tasks
        assert row.reason == "signal review: ship it?"
        await handle.signal("review", Approval(approved=True))
        await handle.result()
        assert await asked(mesh) == []


async def asked(mesh: MemoryMesh) -> list[Any]:
    return [wait for row in (await mesh.list()).tasks for wait in row.asks]
