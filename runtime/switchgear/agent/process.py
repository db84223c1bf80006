"""An agent as a process: connects by its settings, serves until SIGTERM or Ctrl-C, drains, leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from switchgear.agent import crash_reporter
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.worker import Worker
from switchgear.bus.connection import connect
from switchgear.loop import run as run_loop
from switchgear.settings import Settings

if TYPE_CHECKING:
    from switchgear.agent.declare import Agent

log = logging.getLogger(__name__)


def run(
    agent: Agent,
    settings: Settings | None = None,
    worker_settings: WorkerSettings = WorkerSettings(),  # noqa: B008  # frozen
) -> None:
    """Serve until told to leave. Raises Unavailable when no broker answers at first.

    On Linux the serving goes on in a child of this process, which watches it and reports its death.
    """
    crash_reporter.watch()
    run_loop(serve(agent, settings or Settings.load(), worker_settings))


async def serve(
    agent: Agent,
    settings: Settings,
    worker_settings: WorkerSettings = WorkerSettings(),  # noqa: B008  # frozen
) -> None:
    """Serve on this event loop until SIGTERM, SIGINT, or an order to drain."""
    bus = await connect(settings.url, name=agent.name, principal=agent.name)
    crash_reporter.serving(settings.url, agent.name, bus.name)
    worker = Worker(agent, bus, settings=worker_settings)
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, told.set)
    try:
        await worker.start()
        waits = [asyncio.create_task(told.wait()), asyncio.create_task(worker.drained.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not worker.drained.is_set():
            await worker.drain()
    finally:
        await bus.close()
    crash_reporter.left()
