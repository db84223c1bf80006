"""An agent that is watched, as `switchgear agent run` starts it: `crashing.py URL NAME [OPTION=SECONDS…]`.

Its capability `die` dies in the way that its input names.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from switchgear import Agent, Context
from switchgear.agent import process
from switchgear.agent.settings import WorkerSettings
from switchgear.settings import Settings


@dataclass
class Text:
    """What the capability takes and returns."""

    text: str


def die(how: str) -> None:
    """End this process, except by name `pid`."""
    sys.stderr.write(f"now comes {how}\n")
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(0)
        case "flood":
            sys.stderr.write("".join(f"line {number}\n" for number in range(200_000)))
            os._exit(3)
        case "orphan":
            subprocess.Popen(["sleep", "20"])
            os._exit(3)
        case _:
            pass


def declare(name: str) -> Agent:
    """The agent."""
    agent = Agent(name, version="1.0.0")

    @agent.capability("die")
    async def handler(value: Text, ctx: Context) -> Text:
        del ctx
        die(value.text)
        if value.text == "wait":
            await asyncio.sleep(3600)
        return Text(str(os.getpid()))

    assert handler.name == "die"
    return agent


def main() -> None:
    """Serve until SIGTERM."""
    url, name, *options = sys.argv[1:]
    times: dict[str, Any] = {
        option: timedelta(seconds=float(seconds))
        for option, _, seconds in (one.partition("=") for one in options)
    }
    process.run(declare(name), Settings(url=url), WorkerSettings(**times))


if __name__ == "__main__":
    main()
