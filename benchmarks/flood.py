"""A client that submits many tasks at once: `python -m benchmarks.flood URL OWNER COUNT`; prints a line then."""

import asyncio
import os
import signal
import sys

from benchmarks.echo import REQUEST
from benchmarks.slow_agent import SLOW
from switchgear import connect
from switchgear.loop import run


async def flood(url: str, owner: str, count: int) -> None:
    """Submit, and stay until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    os.environ["SWITCHGEAR_PRINCIPAL"] = owner
    async with connect(url) as mesh:
        await mesh.submit_many(SLOW, [REQUEST] * count)
        print("submitted", flush=True)
        await told.wait()


if __name__ == "__main__":
    run(flood(sys.argv[1], sys.argv[2], int(sys.argv[3])))
