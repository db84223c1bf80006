"""An agent as a process of its own, for tests that kill it: `agent.py URL NAME KIND [OPTION=SECONDS…]`.

Its handlers ask the test at `test.gate`, and go on when it answers; so the test knows who runs what, and decides.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from switchgear import Agent, Context
from switchgear.agent import process
from switchgear.agent.settings import WorkerSettings
from switchgear.settings import Settings

GATE = "test.gate"
"""Where handlers announce themselves, and wait."""
PATIENCE = 60
"""Seconds for which they wait."""


@dataclass
class Text:
    """What the capability takes and returns."""

    text: str


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exhaust() -> None:
    """Take memory until there is no more, in a process whose parent gives up on it then, as a kernel does."""
    room = 64 * 1024 * 1024
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = used * os.sysconf("SC_PAGE_SIZE") + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    taken: list[bytes] = []
    try:
        while True:
            taken.append(bytes(1024 * 1024))
    except MemoryError:
        _kill()


DEADLY: dict[str, Callable[[], object]] = {
    "poison": lambda: os._exit(9),
    "kill": _kill,
    "segfault": lambda: ctypes.string_at(0),
    "memory": _exhaust,
}
"""What handlers do to their process, by the agent's kind."""


def declare(url: str, name: str, kind: str) -> Agent:
    """An agent that offers `work`.

    Of kind `plain` it passes the gate; of a kind of `DEADLY` it takes its process down there; of kind `printing` it
    writes what it runs to its output, and needs no gate.
    """
    agent = Agent(name, version="1.0.0")

    @agent.resource
    async def line() -> AsyncIterator[Client]:
        client: Any = Client()
        await client.connect(url)
        yield client
        await client.close()

    @agent.capability("work", concurrency=4)
    async def work(value: Text, ctx: Context) -> Text:
        if kind == "printing":
            print(f"ran {value.text}.", flush=True)  # noqa: T201
        else:
            said = f"{os.getpid()} {value.text}".encode()
            await ctx.use(line).request(GATE, said, timeout=PATIENCE)
        if kind in DEADLY:
            DEADLY[kind]()
        return Text(f"{value.text} by {os.getpid()}, attempt {ctx.attempt}")

    assert work.name == "work"
    return agent


def main() -> None:
    """Serve until SIGTERM, as `switchgear agent run` does, with shorter times."""
    url, name, kind, *options = sys.argv[1:]
    times: dict[str, Any] = {
        option: timedelta(seconds=float(seconds))
        for option, _, seconds in (one.partition("=") for one in options)
    }
    settings = Settings(url=url)
    asyncio.run(process.serve(declare(url, name, kind), settings, WorkerSettings(**times)))


if __name__ == "__main__":
    main()
