"""An agent that fans out to itself: `python -m benchmarks.fan_agent`."""

from benchmarks.echo import ECHO, REQUEST, Text
from benchmarks.echo_agent import SLOTS
from benchmarks.fan_out import FAN, Fan
from switchgear import Agent, Context

agent = Agent("fan", version="1.0.0")


@agent.capability(ECHO, concurrency=SLOTS)
async def echo(given: Text, ctx: Context) -> Text:  # noqa: ARG001  # a handler's shape
    """Give back what was given."""
    return given


@agent.capability(FAN, calls=[ECHO])
async def fan(given: Fan, ctx: Context) -> int:
    """Run that many children; return how many there were."""
    outcomes = await ctx.map(ECHO, [REQUEST] * given.children, limit=given.limit)
    return len(outcomes)


if __name__ == "__main__":
    agent.run()
