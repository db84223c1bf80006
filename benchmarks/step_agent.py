"""An agent whose tasks record five steps: `python -m benchmarks.step_agent`."""

from benchmarks.echo import STEPPED, STEPS, Text
from benchmarks.echo_agent import SLOTS
from benchmarks.profiling import profiled
from switchgear import Agent, Context

KEYS = [f"step-{number}" for number in range(STEPS)]
agent = Agent("stepper", version="1.0.0")


async def part(given: Text) -> Text:
    """Give back what was given: what is measured is the recording."""
    return given


@agent.capability(STEPPED, concurrency=SLOTS)
async def stepped(given: Text, ctx: Context) -> Text:
    """Give back what was given, after the steps."""
    for key in KEYS:
        given = await ctx.step(key, part, given)
    return given


if __name__ == "__main__":
    profiled("agent", agent.run)
