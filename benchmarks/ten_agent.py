"""An agent with ten capabilities that tells when a handler is called: `python -m benchmarks.ten_agent`."""

import os
import time

from benchmarks.echo import Text
from switchgear import Agent, Context

PREFIX = "BENCH_PREFIX"
"""Environment variable: what the names of the capabilities begin with."""

agent = Agent("ten", version="1.0.0")


async def tell(given: Text, ctx: Context) -> Text:  # noqa: ARG001  # a handler's shape
    """Print the moment, on the clock that all processes of a machine share."""
    print(time.monotonic(), flush=True)
    return given


if __name__ == "__main__":
    for number in range(10):
        agent.capability(f"{os.environ[PREFIX]}-{number}")(tell)
    agent.run()
