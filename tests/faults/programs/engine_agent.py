"""An agent whose tasks are containers, as a process of its own: `engine_agent.py URL CLI RUNNER`.

Each instance has an engine of its own. Tasks whose text begins with `held` wait at the gate before they need it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from nats.aio.client import Client

from switchgear import Agent, Breaker, Context, Retry, container
from switchgear.agent import process
from switchgear.settings import Settings
from switchgear.steps.executors.dagger import settings
from tests.faults.programs.agent import GATE, PATIENCE, Text

CONCURRENCY = 4
IN_A_ROW = 2
OPEN_FOR = timedelta(seconds=3)
POLICY = Breaker(
    window=4, minimum_calls=4, in_a_row=IN_A_ROW, open_for=OPEN_FOR, growth=1.0, jitter=0.0
)
"""Two failures open it, whether it has seen four calls before or not; and each open time is as long as the first."""
RETRY = Retry(
    max_attempts=10,
    initial=timedelta(milliseconds=20),
    max_delay=timedelta(milliseconds=100),
    budget=10.0,
)
BUILD = container("registry.example/tools:1").exec("sh", "-c", "sleep 0.05; echo built")


def declare(url: str) -> Agent:
    """An agent that offers `build`: one container a task, which may run twice."""
    agent = Agent("builder", version="1.0.0")
    agent.breaker("dagger", POLICY)

    @agent.resource
    async def line() -> AsyncIterator[Client]:
        client: Any = Client()
        await client.connect(url)
        yield client
        await client.close()

    @agent.capability("build", concurrency=CONCURRENCY, retry=RETRY)
    async def build(value: Text, ctx: Context) -> Text:
        if value.text.startswith("held"):
            said = f"{os.getpid()} {value.text}".encode()
            await ctx.use(line).request(GATE, said, timeout=PATIENCE)
        ran = await ctx.run("build", BUILD.idempotent())
        assert ran.executor == "dagger"
        return Text(f"{value.text} {ran.stdout.strip()} by {os.getpid()}")

    assert build.name == "build"
    return agent


def main() -> None:
    """Serve until SIGTERM."""
    url, cli, runner = sys.argv[1:]
    os.environ.update({settings.CLI: cli, settings.RUNNER: runner})
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    asyncio.run(process.serve(declare(url), Settings(url=url)))


if __name__ == "__main__":
    main()
