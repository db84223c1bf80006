"""The product's client as a process: keeps tasks in flight and prints what a window gave, as JSON.

`python -m benchmarks.client URL IN_FLIGHT WARM_UP SECONDS PIDS CAPABILITY`
"""

import asyncio
import os
import sys
from datetime import timedelta
from time import perf_counter

import msgspec

from benchmarks.echo import ECHO, OWNER, REQUEST, STEPPED, Text
from benchmarks.profiling import profiled
from benchmarks.window import Rate, Window
from switchgear import Capability, connect
from switchgear.loop import run

FIRST = timedelta(seconds=15)
"""How long the agent may take to join."""

LAST = 3.0
"""Seconds that calls under way may take when the window has closed."""


async def drive(url: str, wanted: Capability[Text, Text], in_flight: int, window: Window) -> Rate:
    """Call the capability with so many calls under way at any time."""
    os.environ["SWITCHGEAR_PRINCIPAL"] = OWNER
    async with connect(url) as mesh:
        await mesh.call(wanted, REQUEST, timeout=FIRST)

        async def one_after_another() -> None:
            while True:
                started = perf_counter()
                await mesh.call(wanted, REQUEST)
                if not window.ended(started):
                    return

        callers = [asyncio.create_task(one_after_another()) for _ in range(in_flight)]
        await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
        done, stuck = await asyncio.wait(callers, timeout=LAST)
        for caller in stuck:
            caller.cancel()
        for caller in done:
            caller.result()
        return msgspec.structs.replace(window.rate(in_flight), stuck=len(stuck))


def main() -> None:
    """Drive as the arguments say."""
    url, in_flight, warm_up, seconds, pids, name = sys.argv[1:]
    others = msgspec.json.decode(pids, type=dict[str, int])
    wanted = next(one for one in (ECHO, STEPPED) if one.name == name)
    window = Window(float(warm_up), float(seconds), others)
    rate = run(drive(url, wanted, int(in_flight), window))
    print(msgspec.json.encode(rate).decode(), flush=True)


if __name__ == "__main__":
    profiled("client", main)
