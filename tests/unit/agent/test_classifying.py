"""What failures mean for steps and attempts: own classes, unknown outcomes, waits that servers ask for."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, Retry, StepFailed, TaskDead, step, testing
from switchgear.contract import entries
from switchgear.errors import UsageError
from tests.unit.agent.stage import Number, stage

PATIENT = Retry(max_attempts=4, on=frozenset({"transient", "timeout", "rate-limited"}))


class Limited(Exception):
    """As an HTTP client raises it."""

    def __init__(self, seconds: int) -> None:
        super().__init__("429 Too Many Requests")
        self.status_code = 429
        self.headers = {"retry-after": str(seconds)}


class Quota(Exception):
    """Something of this agent's own."""


@pytest.mark.parametrize(
    ("error", "idempotent", "tries", "attempts"),
    [
        (ConnectionResetError("cut"), False, 1, 1),
        (ConnectionResetError("cut"), True, 2, 2),
        (ConnectionRefusedError("down"), False, 2, 2),
        (TimeoutError("late"), False, 1, 1),
        (TimeoutError("late"), True, 2, 2),
    ],
)
async def test_an_unknown_outcome_is_repeated_only_if_the_step_is_idempotent(
    error: Exception, tries: int, attempts: int, *, idempotent: bool
) -> None:
    """Neither in place nor by another attempt."""
    agent = Agent("steps", version="1.0.0")
    made: list[int] = []

    @step(retry=Retry(max_attempts=2, on=PATIENT.on), idempotent=idempotent)
    async def pay() -> None:
        made.append(1)
        raise error

    @agent.capability("work", retry=Retry(max_attempts=2, on=PATIENT.on))
    async def work(value: Number, ctx: Context) -> None:
        await ctx.step("pay", pay)

    async with stage(agent) as scene:
        handle = await scene.mesh.submit(work, Number(0))
        with pytest.raises(TaskDead) as caught:
            await handle.result()
        history = scene.history(handle.id)
    assert len(made) == tries * attempts
    assert history.failures == attempts
    if not idempotent and attempts == 1:
        assert "outcome is unknown" in str(caught.value)


async def test_a_handler_may_not_hide_an_unknown_outcome_by_raising_another_error() -> None:
    agent = Agent("steps", version="1.0.0")
    made: list[int] = []

    async def pay() -> None:
        made.append(1)
        raise ConnectionResetError("cut")

    @agent.capability("work", retry=PATIENT)
    async def work(value: Number, ctx: Context) -> None:
        try:
            await ctx.step("pay", pay)
        except StepFailed as failed:
            raise ValueError("cannot pay") from failed

    async with testing.mesh(agent) as mesh:
        with pytest.raises(TaskDead):
            await mesh.call(work, Number(0))
    assert made == [1]


async def test_a_short_wait_that_a_server_asks_for_passes_within_the_step() -> None:
    agent = Agent("steps", version="1.0.0")
    at: list[float] = []

    @step(retry=Retry(max_attempts=2, initial=timedelta(0)))
    async def ask() -> int:
        at.append(asyncio.get_running_loop().time())
        if len(at) == 1:
            raise Limited(30)
        return len(at)

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> int:
        return await ctx.step("ask", ask)

    async with testing.mesh(agent) as mesh:
        assert await mesh.call(work, Number(0)) == 2
    assert at[1] - at[0] >= 30


async def test_a_long_wait_that_a_server_asks_for_holds_no_slot() -> None:
    """The step fails at once; the next attempt comes when the server said."""
    agent = Agent("steps", version="1.0.0")
    at: list[float] = []

    @step(retry=Retry(max_attempts=2))
    async def ask() -> int:
        at.append(asyncio.get_running_loop().time())
        if len(at) == 1:
            raise Limited(600)
        return len(at)

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> int:
        return await ctx.step("ask", ask)

    async with stage(agent) as scene:
        handle = await scene.mesh.submit(work, Number(0))
        assert await handle.result() == 2
        failed = scene.history(handle.id).valid
    assert round(at[1] - at[0], 6) >= 600  # the clock counts in floats
    [failure] = [one.entry.error for one in failed if isinstance(one.entry, entries.AttemptFailed)]
    assert (failure.error_class, failure.retry_after) == ("rate-limited", 600)


async def test_an_agent_names_the_class_of_its_own_exceptions() -> None:
    """In handlers and in steps; what it does not know is left to the tables."""
    agent = Agent("own", version="1.0.0")
    attempts: list[int] = []

    @agent.classify
    def of_ours(error: BaseException) -> Any:
        return "auth" if isinstance(error, Quota) else None

    async def refuse() -> None:
        raise Quota("no credit")

    @agent.capability("plain")
    async def plain(value: Number, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise Quota("no credit") if value.n else OSError("gone")

    @agent.capability("stepped")
    async def stepped(value: Number, ctx: Context) -> None:
        await ctx.step("refuse", refuse)

    async with testing.mesh(agent) as mesh:
        for capability in (plain, stepped):
            with pytest.raises(TaskDead) as caught:
                await mesh.call(capability, Number(1))
            assert caught.value.error_class == "auth"
        assert attempts == [1]
        with pytest.raises(TaskDead) as caught:
            await mesh.call(plain, Number(0))
    assert caught.value.error_class == "transient"
    assert attempts == [1, 1, 2, 3]


async def test_a_classifier_that_breaks_is_as_one_that_does_not_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = Agent("own", version="1.0.0")

    @agent.classify
    def broken(error: BaseException) -> Any:
        raise KeyError("oops")

    @agent.classify
    def odd(error: BaseException) -> Any:
        return "terrible"

    @agent.classify
    def good(error: BaseException) -> Any:
        return "bug"

    @agent.capability("plain")
    async def plain(value: Number, ctx: Context) -> None:
        raise OSError("gone")

    with caplog.at_level(logging.ERROR):
        async with testing.mesh(agent) as mesh:
            with pytest.raises(TaskDead) as caught:
                await mesh.call(plain, Number(0))
    assert caught.value.error_class == "bug"
    told = {record.getMessage().split()[0] for record in caplog.records}
    assert {"classifier.failed", "classifier.unknown-class"} <= told


@pytest.mark.parametrize("fn", ["no function", asyncio.sleep])
def test_what_cannot_classify_is_refused(fn: Any) -> None:
    with pytest.raises(UsageError, match="cannot classify"):
        Agent("own", version="1.0.0").classify(fn)


@pytest.mark.parametrize(
    ("name", "fields", "error_class", "known"),
    [
        ("ExecError", {"exit_code": 3, "command": ["make"]}, "step", True),
        ("TransportError", {}, "transient", False),
    ],
)
async def test_an_exception_of_the_dagger_sdk_has_its_class(
    name: str, fields: dict[str, Any], error_class: str, *, known: bool
) -> None:
    """As a handler meets it that uses an engine itself; the SDK is not installed here."""
    agent = Agent("own", version="1.0.0")
    error = type(name, (Exception,), {"__module__": "dagger._exceptions"})("it broke")
    vars(error).update(fields)

    @agent.capability("plain", retry=Retry(max_attempts=1))
    async def plain(value: Number, ctx: Context) -> None:
        raise error

    async with stage(agent) as scene:
        handle = await scene.mesh.submit(plain, Number(0))
        with pytest.raises(TaskDead):
            await handle.result()
        failure = scene.history(handle.id).failure
    assert failure is not None
    assert (failure.error.error_class, failure.error.outcome_known) == (error_class, known)
