"""What one owner's flood costs another: latencies of tasks one by one, alone and during the flood."""

import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from time import perf_counter

from benchmarks.echo import REQUEST
from benchmarks.results import Results
from benchmarks.sides import Product, end, line_of, spawn
from benchmarks.slow_agent import SLOW
from switchgear.bus.connection import connect
from switchgear.client.mesh import Mesh

FLOOD = 5000
"""Tasks that one owner submits at once."""
CALLS = 50
"""Tasks that the other one submits, one after another."""
OWNER = "quiet"
PATIENCE = timedelta(seconds=120)


async def measure(home: Path, results: Results) -> None:
    """Fill in the other owner's p99, alone and meanwhile, and their ratio."""
    side = Product(home)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(side.server.stop)
        await side.server.start()
        stack.push_async_callback(side.stop_roles)
        await side.start_coordinator()
        agent = await spawn("benchmarks.slow_agent", env=side.env)
        stack.push_async_callback(end, agent)
        mesh = Mesh(await connect(side.server.url, principal=OWNER), OWNER)
        stack.push_async_callback(mesh.close)
        await mesh.start()
        await mesh.call(SLOW, REQUEST, timeout=PATIENCE)  # it waits for the agent
        alone = await _p99(mesh)
        flood = await spawn("benchmarks.flood", side.server.url, "loud", str(FLOOD), env=side.env)
        stack.push_async_callback(end, flood)
        await line_of(flood)
        flooded = await _p99(mesh)
    results.fairness_alone_p99_ms = alone * 1e3
    results.fairness_flooded_p99_ms = flooded * 1e3
    results.fairness_p99_ratio = flooded / alone
    print(
        f"fairness: p99 {alone * 1e3:,.0f} ms alone, {flooded * 1e3:,.0f} ms during a flood of {FLOOD}",
        file=sys.stderr,
        flush=True,
    )


async def _p99(mesh: Mesh) -> float:
    """Seconds; of so few calls it is the slowest but none."""
    taken: list[float] = []
    for _ in range(CALLS):
        began = perf_counter()
        await mesh.call(SLOW, REQUEST, timeout=PATIENCE)
        taken.append(perf_counter() - began)
    return sorted(taken)[CALLS * 99 // 100]
