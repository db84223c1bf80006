"""An agent whose tasks take a while: `python -m benchmarks.slow_agent`."""

import asyncio

from benchmarks.echo import Text
from switchgear import Agent, Capability, Context

SLOTS = 64
TAKES = 0.2
"""Seconds that each task takes."""
SLOW: Capability[Text, Text] = Capability("slow", Text, Text)

agent = Agent("sleeper", version="1.0.0")


@agent.capability(SLOW, concurrency=SLOTS)
async def slow(given: Text, ctx: Context) -> Text:  # noqa: ARG001  # a handler's shape
    """Give back what was given, after a while."""
    await asyncio.sleep(TAKES)
    return given


if __name__ == "__main__":
    agent.run()
