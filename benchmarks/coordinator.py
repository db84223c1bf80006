"""A coordinator as a process: `python -m benchmarks.coordinator URL`; prints a line when it is ready."""

import asyncio
import os
import signal
import sys

from benchmarks.profiling import profiled
from switchgear.bus.connection import connect
from switchgear.coordinator.service import Coordinator
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.loop import run


async def serve(url: str) -> None:
    """Coordinate until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    bus = await connect(url, name="coordinator", principal="coordinator")
    coordinator = Coordinator(bus, settings=CoordinatorSettings.load(os.environ))
    await coordinator.start()
    print("ready", flush=True)
    await told.wait()
    await coordinator.stop()
    await bus.close()


if __name__ == "__main__":
    profiled("coordinator", lambda: run(serve(sys.argv[1])))
