"""Handlers in a mesh in memory: types, steps, commands, progress, large payloads."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear import (
    Agent,
    Context,
    Permanent,
    Retry,
    Retryable,
    TaskDead,
    TaskInfo,
    command,
    step,
    testing,
)
from switchgear.contract import limits
from tests.unit.agent.stage import Number, Text


@dataclass
class Page:
    title: str
    words: list[str]


def shout(text: str) -> str:
    """A step in a thread: it may block."""
    assert threading.current_thread() is not threading.main_thread()
    time.sleep(0.02)
    return text.upper()


async def count(text: str) -> dict[str, int]:
    await asyncio.sleep(60)
    return {"letters": len(text)}


async def test_handler_gets_and_gives_typed_values() -> None:
    """The input is an instance of the annotated type, the result one of the output's."""
    agent = Agent("reader", version="1.0.0")

    @agent.capability("read")
    async def read(page: Page, ctx: Context) -> Number:
        assert isinstance(page, Page)
        return Number(len(page.words))

    async with testing.mesh(agent) as mesh:
        assert await mesh.call(read, Page("a", ["b", "c"])) == Number(2)
        assert await mesh.call("read", {"title": "a", "words": []}) == {"n": 0}


async def test_context_tells_the_task() -> None:
    """What `ctx.task` says is what was submitted."""
    agent = Agent("teller", version="1.0.0")
    seen: list[tuple[TaskInfo, int, int]] = []

    @agent.capability("tell")
    async def tell(value: Number, ctx: Context) -> None:
        seen.append((ctx.task, ctx.attempt, ctx.fence))

    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(tell, Number(1), deadline=timedelta(hours=1))
        assert await handle.result() is None
    [(task, attempt, fence)] = seen
    assert (task.id, task.root, task.parent) == (handle.id, handle.id, None)
    assert (task.capability, task.owner, attempt) == ("tell", "tester", 1)
    assert task.deadline is not None
    assert task.deadline - task.submitted_at == timedelta(hours=1)
    assert fence == 2


async def test_steps_run_in_threads_and_on_the_loop() -> None:
    """A sync step may block, an async one may wait; both results come back through the codec."""
    agent = Agent("steps", version="1.0.0")

    @agent.capability("work")
    async def work(value: Text, ctx: Context) -> Text:
        loud, counted = await ctx.gather(
            ctx.step("shout", shout, value.text), ctx.step("count", count, value.text)
        )
        return Text(f"{loud} {counted['letters']}")

    async with testing.mesh(agent) as mesh:
        assert await mesh.call(work, Text("abc")) == Text("ABC 3")


async def test_step_is_repeated_by_its_own_policy() -> None:
    """A step that fails twice succeeds within one attempt of the handler."""
    agent = Agent("steps", version="1.0.0")
    tries: list[int] = []

    @step(retry=Retry(max_attempts=3))
    async def shaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Number:
        return Number(await ctx.step("shaky", shaky))

    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(work, Number(0))
        assert await handle.result() == Number(3)
        assert (await handle.status()).attempt == 1


async def test_step_waits_for_no_try_that_would_come_after_the_deadline() -> None:
    """It holds no slot for nothing, and the task ends with what went wrong instead of as expired."""
    agent = Agent("steps", version="1.0.0")
    tries: list[int] = []

    @step(retry=Retry(max_attempts=5, initial=timedelta(0), max_delay=timedelta(hours=1)))
    async def ask() -> int:
        tries.append(1)
        raise Retryable("busy", retry_after=60.0 * len(tries))

    @agent.capability("work", retry=Retry(max_attempts=5))
    async def work(value: Number, ctx: Context) -> int:
        return await ctx.step("ask", ask)

    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(work, Number(0), deadline=timedelta(seconds=150))
        with pytest.raises(TaskDead, match="busy"):
            await handle.result()
        row = await handle.status()
    assert len(tries) == 2
    assert row.updated_at - row.submitted_at < timedelta(seconds=61)


async def test_step_stops_retrying_what_is_permanent() -> None:
    """A step that says Permanent is not tried again, nor is the task."""
    agent = Agent("steps", version="1.0.0")
    tries: list[int] = []

    @step(retry=Retry(max_attempts=5))
    async def refuse() -> None:
        tries.append(1)
        raise Permanent("never")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await ctx.step("refuse", refuse)

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead, match="never"):
            await mesh.call(work, Number(0))
    assert tries == [1]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_step_that_timed_out_is_repeated_only_if_idempotent(*, idempotent: bool) -> None:
    """After a timeout the outcome is unknown: only `idempotent` allows another try."""
    agent = Agent("steps", version="1.0.0")
    tries: list[int] = []

    @step(retry=Retry(max_attempts=2), timeout=timedelta(minutes=1), idempotent=idempotent)
    async def hang() -> None:
        tries.append(1)
        await asyncio.sleep(3600)

    @agent.capability("work", retry=Retry(max_attempts=1))
    async def work(value: Number, ctx: Context) -> None:
        await ctx.step("hang", hang)

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead) as caught:
            await mesh.call(work, Number(0))
    assert caught.value.error_class == "timeout"
    assert caught.value.step == "hang"
    assert len(tries) == (2 if idempotent else 1)


async def unannotated():  # noqa: ANN201  # the fault under test
    return 1


async def a_path() -> Path:
    return Path("/tmp")  # noqa: S108  # never opened


async def a_lie() -> int:
    return "text"  # type: ignore[return-value]  # the fault under test


async def test_results_that_cannot_be_recorded_are_refused() -> None:
    """No return annotation, a path, and a value of another type are NotRecordable: bugs."""
    agent = Agent("steps", version="1.0.0")
    functions = [unannotated, a_path, a_lie]

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await ctx.step("it", functions[value.n])

    async with testing.mesh(agent) as mesh:
        for n in range(3):
            with pytest.raises(TaskDead) as caught:
                await mesh.call(work, Number(n))
            assert (caught.value.cause_code, caught.value.error_class) == ("SG1506", "bug")


async def test_key_used_twice_is_an_error() -> None:
    """A key names one recorded thing in its task."""
    agent = Agent("steps", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await ctx.step("same", shout, "a")
        await ctx.run("same", command("true"))

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead, match="'same' is used twice") as caught:
            await mesh.call(work, Number(0))
    assert caught.value.cause_code == "SG1504"


async def test_commands_really_run_and_hold_the_clock() -> None:
    """A time limit that is far longer than the command holds, though time is virtual."""
    agent = Agent("runner", version="1.0.0")

    @agent.capability("work")
    async def work(value: Text, ctx: Context) -> Text:
        spec = command("sh", "-c", "sleep 0.05; cat").stdin(value.text)
        result = await ctx.run("cat", spec.limits(timeout=timedelta(seconds=20)))
        await asyncio.sleep(300)
        return Text(result.stdout)

    async with testing.mesh(agent) as mesh:
        assert await mesh.call(work, Text("through")) == Text("through")


async def test_progress_reaches_watchers_and_the_newest_wins() -> None:
    """Reports come between the ledger's events; the last one is never left out."""
    agent = Agent("slow", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await asyncio.sleep(1)
        for done in range(value.n + 1):
            ctx.progress(done / value.n, f"{done} done", files=done)

    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(work, Number(100))
        seen = [event async for event in handle.events()]
    reports = [event for event in seen if event.event == "progress"]
    assert [event.event for event in seen if event.sequence] == [
        "submitted",
        "dispatched",
        "completed",
    ]
    assert 1 <= len(reports) < 10
    assert (reports[-1].fraction, reports[-1].detail) == (1.0, "100 done")
    assert reports[-1].counters == {"files": 100}


async def test_large_payloads_travel_as_blobs() -> None:
    """Input and output over 256 KiB stand in the object store, not in the ledger."""
    agent = Agent("echo", version="1.0.0")

    @agent.capability("echo")
    async def echo(value: Text, ctx: Context) -> Text:
        return Text(value.text * 2)

    text = "x" * limits.MAX_INLINE
    async with testing.mesh(agent) as mesh:
        result = await mesh.call(echo, Text(text))
        assert result.text == text * 2
        stored = list(mesh.site.broker.ledger.beyond(0))
        assert len(mesh.site.broker.blobs) == 2
    assert all(len(one.data) < limits.MAX_INLINE for one in stored)


async def test_idempotency_key_is_equal_in_every_run() -> None:
    """A retry gives outside systems the same key; another step's differs."""
    agent = Agent("keys", version="1.0.0")
    keys: list[str] = []

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        keys.append(ctx.idempotency_key("charge"))
        assert ctx.idempotency_key("refund") != keys[-1]
        if len(keys) < 3:
            raise OSError("again")

    async with testing.mesh(agent) as mesh:
        await mesh.call(work, Number(0))
    assert len(keys) == 3
    assert len(set(keys)) == 1
