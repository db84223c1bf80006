"""What is recorded under a key, and what a handler that runs again finds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchgear import (
    Agent,
    Context,
    Permanent,
    Retry,
    StepFailed,
    TaskDead,
    Unavailable,
    command,
    step,
)
from switchgear.contract import entries, limits
from tests.unit.agent.stage import Gate, Number, Stage, Text, stage, until

AT_ONCE = Retry(initial=timedelta(), max_delay=timedelta())


def checkpoints(on: Stage, task: str) -> list[entries.Checkpoint]:
    return [
        valid.entry
        for valid in on.history(task).valid
        if isinstance(valid.entry, entries.Checkpoint)
    ]


async def test_recorded_step_is_not_run_again_after_a_crash() -> None:
    """The next holder gets the value that the first one recorded."""
    agent = Agent("steps", version="1.0.0")
    gate, ran = Gate(), list[str]()

    async def build(text: str) -> dict[str, str]:
        ran.append(text)
        return {"built": text}

    @agent.capability("work", timeout=None)
    async def work(value: Text, ctx: Context) -> Text:
        built = await ctx.step("build", build, value.text)
        await gate()
        return Text(built["built"])

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(work, Text("a"))
        await until(lambda: gate.inside == 1)
        await on.join(agent)
        await on.site.crash(first)
        await on.reach(handle.id, "taken-over")
        gate.open()
        assert await handle.result() == Text("a")
        [recorded] = checkpoints(on, handle.id)
    assert ran == ["a"]
    assert (recorded.key, recorded.kind, recorded.ok) == ("build", "step", True)


async def test_failure_is_raised_again_on_redelivery_and_run_again_by_a_retry() -> None:
    """A recorded failure is of the same class, and only a failed attempt forgets it."""
    agent = Agent("steps", version="1.0.0")
    gate, seen, ran = Gate(), list[StepFailed](), list[int]()

    async def fragile() -> None:
        ran.append(1)
        raise OSError("gone")

    @agent.capability("work", timeout=None, retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        try:
            await ctx.step("fragile", fragile)
        except StepFailed as error:
            seen.append(error)
        if len(seen) < 3:
            await gate()
        if ctx.attempt == 1:
            raise OSError("again")
        return Number(len(ran))

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(work, Number(1))
        await until(lambda: gate.inside == 1)
        await on.join(agent)
        await first.worker.stop()
        await until(lambda: len(seen) == 2)
        assert len(ran) == 1
        gate.open()
        assert (await handle.result()).n == 2
    assert [(one.key, one.error_class, one.what) for one in seen[:2]] == [
        (seen[0].key, "transient", seen[0].what)
    ] * 2


async def test_results_survive_a_retry() -> None:
    """Only failures are run again by the next attempt."""
    agent = Agent("steps", version="1.0.0")
    ran: list[int] = []

    async def count() -> int:
        ran.append(1)
        return len(ran)

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        got = await ctx.step("count", count)
        if ctx.attempt < 3:
            raise OSError("again")
        return Number(got)

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(0))
        assert await handle.result() == Number(1)
    assert ran == [1]


@pytest.mark.parametrize("change", ["argument", "kind"])
async def test_key_that_now_stands_for_other_work_is_step_changed(change: str) -> None:
    """Another argument, or another kind of work, is a bug that no retry mends."""
    agent = Agent("steps", version="1.0.0")

    async def echo(text: str) -> str:
        return text

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> None:
        if ctx.attempt == 1:
            await ctx.step("it", echo, "first")
            raise OSError("again")
        if change == "argument":
            await ctx.step("it", echo, "second")
        else:
            await ctx.sleep("it", timedelta(seconds=1))

    async with stage(agent) as on:
        with pytest.raises(TaskDead) as caught:
            await on.mesh.call(work, Number(0))
    assert (caught.value.cause_code, caught.value.error_class) == ("SG1509", "bug")


async def test_steps_of_a_gather_are_all_recorded() -> None:
    """Appends of one attempt never get in each other's way."""
    agent = Agent("steps", version="1.0.0")

    async def square(n: int) -> int:
        await asyncio.sleep(1)
        return n * n

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Number:
        made = await ctx.gather(*(ctx.step(f"s{n}", square, n) for n in range(value.n)))
        return Number(sum(made))

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(20))
        assert await handle.result() == Number(2470)
        assert on.history(handle.id).voids == []
        assert {one.key for one in checkpoints(on, handle.id)} == {f"s{n}" for n in range(20)}


async def test_large_results_are_recorded_as_blobs() -> None:
    """A result over 256 KiB stands in the object store, and comes back from there."""
    agent = Agent("steps", version="1.0.0")
    text = "x" * (limits.MAX_INLINE + 1)

    async def much() -> str:
        return text

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        got = await ctx.step("much", much)
        if ctx.attempt == 1:
            raise OSError("again")
        return Number(len(got))

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(0))
        assert await handle.result() == Number(len(text))
        [recorded] = checkpoints(on, handle.id)
        assert recorded.result_blob is not None


@pytest.mark.parametrize("kind", ["function", "command"])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_result_that_the_store_does_not_take_is_no_reason_to_run_the_step_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, idempotent: bool
) -> None:
    """It took effect: only one that may run twice is run by another attempt."""
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", "none")
    agent = Agent("steps", version="1.0.0")
    marks = tmp_path / "marks"

    @step(idempotent=idempotent)
    async def much() -> str:
        with marks.open("a") as file:
            file.write("x\n")
        return "x" * (limits.MAX_INLINE + 1)

    size = limits.MAX_INLINE + 1
    spec = command("sh", "-c", f"echo x >> {marks}; head -c {size} /dev/zero | tr '\\0' x")
    spec = spec.limits(output=2 * size)
    spec = spec.idempotent() if idempotent else spec

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        if kind == "function":
            return Number(len(await ctx.step("much", much)))
        return Number(len((await ctx.run("much", spec)).stdout))

    async with stage() as on:
        member = await on.join(agent)
        put, full = member.bus.blobs.put, [Unavailable("full", full=True)]

        async def once_full(data: bytes) -> str:
            if full:
                raise full.pop()
            return await put(data)

        monkeypatch.setattr(member.bus.blobs, "put", once_full)
        handle = await on.mesh.submit(work, Number(0))
        if idempotent:
            assert await handle.result() == Number(size)
        else:
            with pytest.raises(TaskDead):
                await handle.result()
        [recorded, *_] = checkpoints(on, handle.id)
    assert recorded.error is not None
    assert (recorded.error.outcome_known, recorded.error.dependency) == (False, "nats")
    assert marks.read_text() == "x\n" * (1 + idempotent)


async def test_a_failure_whose_words_the_store_does_not_take_is_recorded_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full store would make of a step that must not be repeated one that may be."""
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", "none")
    agent = Agent("steps", version="1.0.0")
    marks, size = tmp_path / "marks", limits.MAX_INLINE + 1
    text = f"echo x >> {marks}; head -c {size} /dev/zero | tr '\\0' x; kill -9 $$"
    spec = command("sh", "-c", text).limits(output=2 * size)

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Number, ctx: Context) -> Number:
        await ctx.run("much", spec)
        return value

    async def full(data: bytes) -> str:
        raise Unavailable("full", full=True)

    async with stage() as on:
        member = await on.join(agent)
        monkeypatch.setattr(member.bus.blobs, "put", full)
        handle = await on.mesh.submit(work, Number(0))
        with pytest.raises(TaskDead):
            await handle.result()
        [recorded] = checkpoints(on, handle.id)
    assert recorded.error is not None
    assert (recorded.error.error_class, recorded.error.outcome_known) == ("resource", False)
    assert marks.read_text() == "x\n"


async def test_failed_command_tells_later_runs_what_it_told_the_first() -> None:
    """Exit code and output of the error come back, too."""
    agent = Agent("steps", version="1.0.0")
    seen: list[dict[str, Any]] = []
    gate = Gate()

    @agent.capability("work", timeout=None)
    async def work(value: Number, ctx: Context) -> None:
        try:
            await ctx.run("lint", command("sh", "-c", "echo out; echo bad >&2; exit 3"))
        except StepFailed as error:
            seen.append(vars(error))
        await gate()

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(work, Number(0))
        await until(lambda: len(seen) == 1)
        await on.join(agent)
        await first.worker.stop()
        await until(lambda: len(seen) == 2)
        gate.open()
        await handle.result()
    assert seen[0] == seen[1]
    assert (seen[0]["exit_code"], seen[0]["stderr"]) == (3, "bad\n")


async def test_own_error_classes_come_back_as_they_were() -> None:
    """A subclass of an error of ours is caught by the same `except` in every run."""
    agent = Agent("steps", version="1.0.0")
    seen: list[object] = []
    gate = Gate()

    class NoFunds(Permanent):
        pass

    @step()
    async def charge() -> None:
        raise NoFunds("broke")

    @agent.capability("work", timeout=None)
    async def work(value: Number, ctx: Context) -> None:
        try:
            await ctx.step("charge", charge)
        except NoFunds as error:
            seen.append(error.what)
        await gate()

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(work, Number(0))
        await until(lambda: len(seen) == 1)
        await on.join(agent)
        await first.worker.stop()
        await until(lambda: len(seen) == 2)
        gate.open()
        await handle.result()
    assert seen == ["broke", "broke"]


async def test_handler_that_records_nothing_appends_nothing() -> None:
    """A plain handler costs what it always cost."""
    agent = Agent("plain", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Number:
        return value

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(1))
        await handle.result()
        assert on.events(handle.id) == ["submitted", "dispatched", "completed"]
