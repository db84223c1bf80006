"""What a failing handler means for its task: class by class, attempt by attempt."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, Permanent, Retry, Retryable, TaskDead, command, testing
from tests.unit.agent.stage import Number, Text, stage


def failing(error: BaseException, **options: Any) -> tuple[Agent, list[int]]:
    """An agent whose only handler raises, and the attempts that it made."""
    agent = Agent("failing", version="1.0.0")
    attempts: list[int] = []

    @agent.capability("fail", **options)
    async def fail(value: Number, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise error

    return agent, attempts


@pytest.mark.parametrize(
    ("error", "attempts", "error_class", "code"),
    [
        (OSError("gone"), 3, "transient", "SG1510"),
        (Retryable("later"), 3, "transient", "SG1502"),
        (TimeoutError("slow"), 3, "timeout", "SG1510"),
        (MemoryError("full"), 3, "resource", "SG1510"),
        (Permanent("never"), 1, "step", "SG1501"),
        (TypeError("oops"), 1, "bug", "SG1510"),
        (AssertionError("oops"), 1, "bug", "SG1510"),
    ],
)
async def test_error_class_decides_how_often_it_is_tried(
    error: Exception, attempts: int, error_class: str, code: str
) -> None:
    """What may pass is tried up to three times, a bug or a final word once; then the task is dead."""
    agent, made = failing(error)
    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit("fail", {"n": 1})
        with pytest.raises(TaskDead) as caught:
            await handle.result()
        status = await handle.status()
    assert made == list(range(1, attempts + 1))
    assert (caught.value.error_class, caught.value.cause_code) == (error_class, code)
    assert (caught.value.state, caught.value.task_id) == ("dead", handle.id)
    assert (status.state, status.attempt, status.failures) == ("dead", attempts, attempts)
    assert str(error.args[0]) in str(caught.value)


async def test_retry_of_the_submission_overrides_the_capability() -> None:
    """The client's policy is the one in force."""
    agent, made = failing(OSError("gone"), retry=Retry(max_attempts=5))
    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit("fail", {"n": 1}, retry=Retry(max_attempts=2))
        with pytest.raises(TaskDead, match="2 of 2"):
            await handle.result()
    assert made == [1, 2]


async def test_policy_decides_which_classes_are_tried_again() -> None:
    """With `bug` in `on=`, a bug is tried again."""
    agent, made = failing(TypeError("oops"), retry=Retry(max_attempts=2, on=frozenset({"bug"})))
    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead):
            await mesh.call("fail", {"n": 1})
    assert made == [1, 2]


async def test_second_attempt_may_succeed() -> None:
    """A failure is followed by another attempt after a pause, and its success is the result."""
    agent = Agent("shaky", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Number:
        if ctx.attempt == 1:
            raise OSError("not yet")
        return Number(ctx.attempt)

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(0))
        assert await handle.result() == Number(2)
        assert on.events(handle.id) == [
            "submitted",
            "dispatched",
            "attempt-failed",
            "waiting",
            "dispatched",
            "completed",
        ]


async def test_attempt_longer_than_its_timeout_fails_and_is_tried_again() -> None:
    """`timeout=` bounds each attempt by itself; the class is `timeout`."""
    agent = Agent("slow", version="1.0.0")

    at_once = Retry(initial=timedelta(), max_delay=timedelta())

    @agent.capability("work", timeout=timedelta(minutes=2), retry=at_once)
    async def work(value: Number, ctx: Context) -> None:
        await asyncio.sleep(3600)

    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(work, Number(0))
        with pytest.raises(TaskDead) as caught:
            await handle.result()
        row = await handle.status()
    assert (caught.value.cause_code, caught.value.error_class) == ("SG1511", "timeout")
    took = row.updated_at - row.submitted_at
    assert timedelta(minutes=6) <= took < timedelta(minutes=6, seconds=1)


async def test_handler_that_cancels_itself_fails_but_does_not_hang() -> None:
    """A CancelledError that nobody asked for is a failure like others."""
    agent, made = failing(asyncio.CancelledError())
    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead, match="cancelled itself"):
            await mesh.call("fail", {"n": 1})
    assert made == [1, 2, 3]


async def test_output_of_another_type_is_a_bug() -> None:
    """What the handler returns is checked before any caller meets it."""
    agent = Agent("liar", version="1.0.0")

    @agent.capability("lie")
    async def lie(value: Number, ctx: Context) -> Number:
        return {"n": "many"}  # type: ignore[return-value]  # the fault under test

    @agent.capability("odd")
    async def odd(value: Number, ctx: Context) -> Any:
        return object()

    async with testing.mesh(agent) as mesh:
        for capability in (lie, odd):
            with pytest.raises(TaskDead) as caught:
                await mesh.call(capability, Number(1))
            assert (caught.value.cause_code, caught.value.error_class) == ("SG1513", "bug")


async def test_unexpected_exit_code_fails_the_step_and_the_task() -> None:
    """`ctx.run` raises StepFailed; uncaught, the task is dead and names the step."""
    agent = Agent("runner", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Text:
        return Text((await ctx.run("lint", command("lint", "."))).stdout)

    async with testing.mesh(agent) as mesh:
        mesh.fake_run("lint", stdout="3 errors", exit_code=3, stderr="bad line")
        with pytest.raises(TaskDead, match="exit code 3") as caught:
            await mesh.call(work, Number(0))
    assert (caught.value.step, caught.value.error_class) == ("lint", "step")
