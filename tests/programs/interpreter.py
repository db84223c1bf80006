"""Agents that interpret programs. Each execution is told to a `Witness` before anything else happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from switchgear import Agent, Capability, Context, Permanent, Retry, Retryable
from tests.programs import program as made
from tests.programs.program import ANSWER, CAPABILITIES, MAX_ATTEMPTS, SIGNAL, Program

RETRY = Retry(
    max_attempts=MAX_ATTEMPTS, initial=timedelta(seconds=0.2), max_delay=timedelta(seconds=2)
)
Job = dict[str, Any]
"""A program as plain data: its own type's schema would make every announcement large."""
WANTED: dict[str, Capability[Job, int]] = {
    name: Capability(name, Job, int) for name in CAPABILITIES
}


class Witness(Protocol):
    """Takes down what is executed."""

    def executes(self, what: str, ctx: Context, key: str) -> int:
        """Take an execution down; returns the how-manieth of this task and key it is, from 1."""
        ...

    async def dies(self) -> None:
        """Let this process die, as by SIGKILL. Does not return."""
        ...


_witness: Witness | None = None


def testify(witness: Witness) -> None:
    """Tell executions to this witness from now on."""
    global _witness  # noqa: PLW0603  # undos are found by their name: nothing can be passed to them
    _witness = witness


def _executes(what: str, ctx: Context, key: str) -> int:
    assert _witness is not None, "nobody testifies"
    return _witness.executes(what, ctx, key)


async def undo(ctx: Context, key: str) -> None:
    """What `Undo` registers."""
    _executes("undo", ctx, key)


async def work(ctx: Context, step: made.Step) -> int:
    """The body of a step."""
    number = _executes("step", ctx, step.key)
    if step.seconds:
        await asyncio.sleep(step.seconds)
    if number <= step.fails:
        raise Retryable(f"execution {number} of {step.key} fails")
    return step.value


async def _fail(ctx: Context, op: made.Fail) -> int:
    number = _executes("step", ctx, op.key)
    if number > op.times:
        return 0
    if op.kind == "crash":
        assert _witness is not None
        await _witness.dies()
    if op.kind == "permanent":
        raise Permanent(f"{op.key} is meant to fail")
    raise Retryable(f"execution {number} of {op.key} fails")


async def run(job: Job, ctx: Context) -> int:
    """The handler of every capability here."""
    program = msgspec.convert(job, Program)
    _executes("handler", ctx, "")
    async with ctx.saga() as saga:
        return sum([await _run(op, ctx, saga) for op in program.ops])


async def _run(op: made.Op, ctx: Context, saga: Any) -> int:
    if isinstance(op, made.Step):
        return await ctx.step(op.key, work, ctx, op)
    if isinstance(op, made.Call):
        return await ctx.call(WANTED[op.capability], msgspec.to_builtins(op.program), key=op.key)
    if isinstance(op, made.Map):
        return await _map(op, ctx)
    if isinstance(op, made.Gather):
        return sum(await ctx.gather(*(_run(one, ctx, saga) for one in op.ops)))
    if isinstance(op, made.Sleep):
        await ctx.sleep(op.key, timedelta(seconds=op.seconds))
    elif isinstance(op, made.Signal):
        return await ctx.wait_for_signal(SIGNAL, int, key=op.key) * ANSWER // ANSWER
    elif isinstance(op, made.Undo):
        saga.undo(op.key, undo, ctx, op.key)
    elif isinstance(op, made.Tell):
        ctx.progress(op.fraction, "on the way")
        ctx.emit(op.fraction)
    else:
        return await _fail(ctx, op)
    return 0


async def _map(op: made.Map, ctx: Context) -> int:
    jobs = [msgspec.to_builtins(one) for one in op.programs]
    found = await ctx.map(WANTED[op.capability], jobs, key=op.key, limit=op.limit)
    return sum(one.value or 0 for one in found)


@lru_cache
def agent(
    capability: str, *, concurrency: int = 4, timeout: timedelta | None = timedelta(minutes=10)
) -> Agent:
    """An agent that offers this capability."""
    made_agent = Agent(f"{capability}-agent", version="1.0.0")
    declare: Callable[[Any], Any] = made_agent.capability(
        capability,
        calls=list(CAPABILITIES),
        retry=RETRY,
        concurrency=concurrency,
        timeout=timeout,
        cleanup=timedelta(seconds=5),
    )
    declare(run)
    return made_agent
