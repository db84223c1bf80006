"""Submitting: keys, batches, options, and what callers meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from switchgear import (
    Agent,
    Capability,
    Conflict,
    Context,
    NotFound,
    ProtocolError,
    TaskHandle,
    TaskRejected,
    Unavailable,
    UsageError,
    WaitTimeout,
)
from tests.unit.agent.stage import Gate, Number, Text, stage, until


def echo(*, version: str = "1.0.0", labels: dict[str, str] | None = None) -> Agent:
    agent = Agent("echo", version=version, labels=labels or {})

    @agent.capability("echo")
    async def answer(value: Number, ctx: Context) -> Number:
        """Give the number back."""
        await asyncio.sleep(value.n)
        return value

    return agent


async def test_key_makes_a_submission_happen_once() -> None:
    """The same key, input and options give the same task, also later and from another client."""
    async with stage(echo()) as on:
        first = await on.mesh.submit("echo", Number(1), key="k")
        second = await on.mesh.submit("echo", Number(1), key="k")
        assert first.id == second.id
        assert await first.result() == await second.result() == {"n": 1}
        third = await on.mesh.submit("echo", Number(1), key="k")
        assert await third.result() == {"n": 1}
        assert on.events(first.id).count("submitted") == 1


@pytest.mark.parametrize("other", [{"priority": "low"}, {"input": Number(2)}])
async def test_key_with_another_submission_is_a_conflict(other: dict[str, Any]) -> None:
    """Another input or other options are refused, and who waits for the first one is not disturbed."""
    changed: dict[str, Any] = {"input": Number(5)} | other
    async with stage(echo()) as on:
        first = await on.mesh.submit("echo", Number(5), key="k")
        waiting = asyncio.create_task(first.result())
        await asyncio.sleep(1)
        with pytest.raises(Conflict):
            await on.mesh.submit("echo", **changed, key="k")
        assert await waiting == {"n": 5}
        with pytest.raises(Conflict):
            await on.mesh.submit("echo", **changed, key="k")


async def test_batch_keeps_order_and_happens_once() -> None:
    """Handles come in the inputs' order; a repeated batch key gives the same tasks."""
    async with stage(echo()) as on:
        numbers = [Number(n % 3) for n in range(20)]
        tasks = await on.mesh.submit_many("echo", numbers, key="batch")
        again = await on.mesh.submit_many("echo", numbers, key="batch")
        assert [task.id for task in tasks] == [task.id for task in again]
        assert [await task.result() for task in tasks] == [{"n": n % 3} for n in range(20)]
        assert len(on.site.broker.ledger.under("sg.task.echo.*.*.submitted")) == 20


async def test_as_completed_gives_tasks_as_they_end() -> None:
    """The quickest comes first, whatever was submitted first."""
    async with stage(echo()) as on:
        tasks = await on.mesh.submit_many("echo", [Number(n) for n in (30, 10, 20)])
        ended = [await task.result() async for task in on.mesh.as_completed(tasks)]
        assert ended == [{"n": 10}, {"n": 20}, {"n": 30}]
        assert [task.id async for task in on.mesh.as_completed(tasks[:1])] == [tasks[0].id]


async def test_as_completed_gives_up_after_its_timeout() -> None:
    """WaitTimeout says how many are left; those that ended were given before."""
    async with stage(echo()) as on:
        tasks = await on.mesh.submit_many("echo", [Number(1), Number(100)])
        seen: list[str] = []
        with pytest.raises(WaitTimeout, match="1 tasks"):
            await note(on.mesh.as_completed(tasks, timeout=timedelta(seconds=50)), seen)
        assert seen == [tasks[0].id]


async def test_wait_that_ends_early_leaves_the_task_alone() -> None:
    """After WaitTimeout the same handle gives the result."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(60))
        with pytest.raises(WaitTimeout):
            await handle.result(timeout=timedelta(seconds=10))
        assert await handle.result() == {"n": 60}


async def test_result_is_read_as_the_type_that_is_asked_for() -> None:
    """An untyped handle gives plain data, or the type given; another type is a ProtocolError."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(1))
        assert await handle.result() == {"n": 1}
        assert await handle.result(Number) == Number(1)
        with pytest.raises(ProtocolError) as caught:
            await handle.result(Text)
        assert caught.value.code == "SG1102"


async def test_handle_of_an_old_task_gives_its_result() -> None:
    """`get` finds a task by its id, also one that ended long ago or runs still."""
    async with stage(echo()) as on:
        ended = await on.mesh.submit("echo", Number(1))
        await ended.result()
        running = await on.mesh.submit("echo", Number(100))
        again = await on.mesh.get(ended.id)
        assert (again.id, again.capability) == (ended.id, "echo")
        assert await again.result() == {"n": 1}
        assert await (await on.mesh.get(running.id)).result() == {"n": 100}
        assert await (await on.mesh.get(running.id)).result() == {"n": 100}


async def test_unknown_task_is_not_found() -> None:
    """By `get`, `status` and `explain`; an id that is no token is a protocol error."""
    async with stage(echo()) as on:
        for ask in (on.mesh.get, on.mesh.status, on.mesh.explain):
            with pytest.raises(NotFound):
                await ask("nothing")
        with pytest.raises(ProtocolError):
            await on.mesh.get("no such.thing")


async def test_input_that_is_no_json_is_refused_before_anything_is_sent() -> None:
    """UsageError names the input; the ledger stays empty."""
    async with stage(echo()) as on:
        with pytest.raises(UsageError, match="the input of echo"):
            await on.mesh.submit("echo", object())
        assert on.site.broker.ledger.last_sequence == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"deadline": datetime(2030, 1, 1)}, "the deadline .* has no time zone"),  # noqa: DTZ001
        ({"start": datetime(2030, 1, 1)}, "the start .* has no time zone"),  # noqa: DTZ001
        ({"start": timedelta.max}, "the start .* is beyond the calendar"),
    ],
)
async def test_time_that_cannot_be_kept_is_refused_before_anything_is_sent(
    options: dict[str, Any], told: str
) -> None:
    """A coordinator could only say that it cannot read the submission."""
    async with stage(echo()) as on:
        with pytest.raises(UsageError, match=told):
            await on.mesh.submit("echo", Number(1), **options)
        assert on.site.broker.ledger.last_sequence == 0


async def test_name_that_is_no_token_is_refused() -> None:
    """A capability's name becomes part of a subject."""
    async with stage(echo()) as on:
        with pytest.raises(UsageError):
            await on.mesh.submit("no such thing", Number(1))


async def test_what_mesh_offers_can_be_listed() -> None:
    """`capabilities` and `agents` show offers, descriptions, instances and free slots."""
    async with stage(echo()) as on:
        await on.join(echo())
        [row] = (await on.mesh.capabilities()).rows
        assert (row.offer.name, row.offer.description) == ("echo", "Give the number back.")
        assert (row.instances, row.free) == (2, 8)
        names = {one.instance for one in (await on.mesh.agents()).instances}
        assert names == {member.bus.name for member in on.site.members}


async def test_list_without_a_read_model_says_so() -> None:
    """Nobody answers: Unavailable, not an empty list."""
    async with stage(echo()) as on:
        with pytest.raises(Unavailable):
            await on.mesh.list()


async def test_status_follows_the_task() -> None:
    """One read of the newest entry tells state, attempt and instance."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(100))
        await on.reach(handle.id, "dispatched")
        assert ((await handle.status()).state, (await handle.status()).attempt) == ("held", 1)
        await handle.result()
        row = await on.mesh.status(handle.id)
        assert (row.state, row.agent) == ("completed", on.site.members[0].bus.name)


async def test_events_are_complete_and_in_order_for_who_comes_late() -> None:
    """A watcher of an ended task, of a running one and the submitter see the same entries."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(10))
        mine = asyncio.create_task(names(handle.events()))
        await asyncio.sleep(5)
        during = asyncio.create_task(names((await on.mesh.get(handle.id)).events()))
        await handle.result()
        after = await names((await on.mesh.get(handle.id)).events())
        assert await mine == await during == after == ["submitted", "dispatched", "completed"]


async def test_events_may_be_left_early() -> None:
    """Who stops listening leaves nothing behind."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(10))
        events = handle.events()
        assert (await anext(events)).event == "submitted"
        await events.aclose()  # type: ignore[attr-defined]  # an async generator
        assert await handle.result() == {"n": 10}


async def test_result_survives_lost_live_entries() -> None:
    """Republished entries are stored nowhere: whoever missed the end reads the ledger in time."""
    async with stage(echo()) as on:
        handle = await on.mesh.submit("echo", Number(10))
        deaf = asyncio.create_task(handle.result())
        await asyncio.sleep(1)
        on.site.broker.interests.drop(on.bus.link)
        assert await deaf == {"n": 10}


async def test_leaving_does_not_let_waiters_hang() -> None:
    """Who waits for a result while the connection is closed meets Unavailable."""
    gate = Gate()
    agent = Agent("gated", version="1.0.0")

    @agent.capability("pass")
    async def through(value: Number, ctx: Context) -> None:
        await gate()

    async with stage(agent) as on:
        handle = await on.mesh.submit(through, Number(1))
        waiting = asyncio.create_task(handle.result())
        await until(lambda: gate.inside == 1)
        await on.mesh.close()
        with pytest.raises(Unavailable):
            await waiting


async def test_reference_without_the_agents_code_is_typed() -> None:
    """`Capability(name, In, Out)` is enough to call with types."""
    async with stage(echo()) as on:
        assert await on.mesh.call(Capability("echo", Number, Number), Number(1)) == Number(1)


async def test_rejection_names_its_code() -> None:
    """TaskRejected carries the code of the refusal and its fix."""
    async with stage(echo()) as on:
        with pytest.raises(TaskRejected) as caught:
            await (await on.mesh.submit("echo", Number(1), priority="urgent")).result()
        assert (caught.value.cause_code, caught.value.state) == ("SG1201", "rejected")
        assert "high, normal or low" in caught.value.fix


async def names(events: Any) -> list[str]:
    return [event.event async for event in events]


async def note(tasks: AsyncIterator[TaskHandle[Any]], seen: list[str]) -> None:
    async for task in tasks:
        seen.append(task.id)  # noqa: PERF401  # what was seen counts, also when an error ends it
