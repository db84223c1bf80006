"""How fast an agent is there, and what it weighs: first task, memory, imports."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process, create_subprocess_exec
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.echo import OWNER, REQUEST
from benchmarks.results import Results
from benchmarks.sides import PATIENCE, Product, line_of, spawn
from benchmarks.ten_agent import PREFIX
from benchmarks.window import children
from switchgear.bus.connection import connect
from switchgear.client.mesh import Mesh

IDLE = 5.0
"""Seconds between the first task and the look at the memory."""

_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
_AGENT = "import switchgear.agent.process"


async def first_task(home: Path, results: Results, *, tries: int) -> None:
    """Fill in the time from spawn to the first handler call, and the memory afterwards."""
    side = Product(home)
    fresh: list[float] = []
    again: list[float] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(side.server.stop)
        await side.server.start()
        stack.push_async_callback(side.stop_roles)
        await side.start_coordinator()
        mesh = Mesh(await connect(side.server.url, principal=OWNER), OWNER)
        stack.push_async_callback(mesh.close)
        await mesh.start()
        for number in range(tries + 1):
            trial = Trial(side, mesh, f"ten{number}")
            stack.push_async_callback(trial.kill)
            taken = await trial.once("waiting")
            if number == 0:  # not counted: it may have had to compile what was edited
                await asyncio.sleep(IDLE)
                results.agent_rss_mb = trial.rss() / 1e6
                continue
            fresh.append(taken)
            # Killed, it stays announced for a while: the task is dispatched to a lane that nobody pulls.
            await trial.kill()
            again.append(await trial.once("held"))
            await trial.kill()
    results.agent_first_task_s = median(fresh)
    results.agent_first_task_max_s = max(fresh)
    results.agent_restart_first_task_s = median(again)


class Trial:
    """Ten capabilities of their own, and an agent that comes to a task that waits for it."""

    def __init__(self, side: Product, mesh: Mesh, prefix: str) -> None:
        self._env = {**side.env, PREFIX: prefix}
        self._mesh = mesh
        self._capability = f"{prefix}-0"
        self._agent: Process | None = None

    async def once(self, state: str) -> float:
        """Submit, wait until the task is in this state, spawn; return the seconds to the handler's call."""
        handle = await self._mesh.submit(self._capability, REQUEST)
        async with asyncio.timeout(PATIENCE):
            while (await self._mesh.status(handle.id)).state != state:  # noqa: ASYNC110 - over the bus
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # the machine is quiet again
        began = time.monotonic()
        self._agent = await spawn("benchmarks.ten_agent", env=self._env)
        called = float(await line_of(self._agent))
        await handle.result()
        return called - began

    def rss(self) -> int:
        """Resident memory of the agent's processes in bytes; what they share counts for each."""
        assert self._agent is not None
        pids = (self._agent.pid, *children(self._agent.pid))
        return sum(map(_resident, pids))

    async def kill(self) -> None:
        """End the agent as a crash would."""
        if self._agent is None or self._agent.returncode is not None:
            return
        # The one that serves: the other sees its end, and ends too.
        for pid in children(self._agent.pid) or [self._agent.pid]:
            os.kill(pid, signal.SIGKILL)
        await self._agent.wait()


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def imports(results: Results, *, tries: int) -> None:
    """Fill in the import times, each in a fresh interpreter."""
    results.import_switchgear_ms = await _timed("import switchgear", tries)
    results.import_agent_ms = await _timed(_AGENT, tries)


async def _timed(statement: str, tries: int) -> float:
    taken: list[float] = []
    for _ in range(tries):
        process = await create_subprocess_exec(
            sys.executable, "-c", _TIMED.format(statement), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        taken.append(float(out) * 1e3)
    return median(taken)
