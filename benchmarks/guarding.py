"""What a permit costs: from asking a closed breaker to its verdict, alone and around a step; the fastest windows."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from benchmarks.results import Results
from switchgear.resilience.breaker import Breaker
from switchgear.resilience.circuit import Circuit
from switchgear.steps.guard import Guards

CALLS = 500
"""In one window."""


async def measure(results: Results, *, rounds: int) -> None:
    """Fill in microseconds a permit, over a window of time as by default."""
    guards = Guards({"svc": Breaker()}, monotonic=time.monotonic, dice=random.random)
    circuit = Circuit(Breaker(), time.monotonic(), random.random)

    async def bare() -> None:
        for _ in range(CALLS):
            now = time.monotonic()
            circuit.success(circuit.acquire(now), now, 0.001)

    async def block() -> None:
        for _ in range(CALLS):
            async with guards.guard("svc"):
                pass

    results.permit_us = await _us(bare, rounds * 20)
    results.guard_us = await _us(block, rounds * 20)


async def _us(run: Callable[[], Awaitable[None]], windows: int) -> float:
    """Microseconds a call: in the fastest window, since others share the machine."""
    best = float("inf")
    for _ in range(windows):
        began = time.perf_counter()
        await run()
        best = min(best, time.perf_counter() - began)
        await asyncio.sleep(0)
    return best / CALLS * 1e6
