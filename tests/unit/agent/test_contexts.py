"""Context variables of one task's handler are not those of the next one that its slot runs."""

from __future__ import annotations

from contextvars import ContextVar

from switchgear import Agent, Context
from tests.unit.agent.stage import Number, Text, stage

MINE: ContextVar[str] = ContextVar("mine", default="nobody's")


async def test_a_handler_does_not_see_what_the_one_before_it_set() -> None:
    agent = Agent("setter", version="1.0.0")

    @agent.capability("set", concurrency=1)
    async def set_it(value: Number, ctx: Context) -> Text:
        before = MINE.get()
        MINE.set(f"of {value}")
        return Text(before)

    async with stage(agent) as on:
        handles = [await on.mesh.submit(set_it, Number(number)) for number in range(3)]
        assert [(await one.result()).text for one in handles] == ["nobody's"] * 3
