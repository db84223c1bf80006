"""The agent that is measured, as its author would write it: `python -m benchmarks.echo_agent`."""

from benchmarks.echo import ECHO, Text
from benchmarks.profiling import profiled
from switchgear import Agent, Context

SLOTS = 1024
"""Concurrency: no task waits for a slot at either of the two loads."""

agent = Agent("echoer", version="1.0.0")


@agent.capability(ECHO, concurrency=SLOTS)
async def echo(given: Text, ctx: Context) -> Text:  # noqa: ARG001  # a handler's shape
    """Give back what was given."""
    return given


if __name__ == "__main__":
    profiled("agent", agent.run)
