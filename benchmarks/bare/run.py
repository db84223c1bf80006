"""One run: fresh stream, coordinator and agent as processes of their own, the client here."""

import asyncio
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from pathlib import Path

import msgspec

from benchmarks.bare import stream, wire
from benchmarks.bare.link import Link
from benchmarks.bare.roles import Load

_ROOT = Path(__file__).parents[2]
_LIMIT = 120.0
"""Seconds after which a run counts as stuck."""
_SIZES = wire.Sizes()


class Rate(msgspec.Struct, frozen=True):
    """What one run gave."""

    in_flight: int
    tasks: int
    """Measured tasks, the warm-up not among them."""
    tasks_per_s: float
    p50_s: float
    """Median of submit to completed, seconds."""
    p99_s: float
    """99th percentile of the same, seconds."""


async def measure(
    url: str, *, in_flight: int, tasks: int, sizes: wire.Sizes = _SIZES, direct: bool = True
) -> Rate:
    """Time `tasks` on a fresh ledger, an old one is deleted; wants to run in a uvloop."""
    await stream.prepare(url)
    roles = [await _spawn(role, url, sizes, direct=direct) for role in ("coordinator", "agent")]
    ends = [asyncio.create_task(role.wait()) for role in roles]
    client = asyncio.create_task(
        drive(url, in_flight=in_flight, tasks=tasks, sizes=sizes, direct=direct)
    )
    try:
        await asyncio.wait({client, *ends}, timeout=_LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if not client.done():
            lost = any(end.done() for end in ends)
            raise RuntimeError("a role ended early" if lost else "the run is stuck")
        return client.result()
    finally:
        client.cancel()
        for role, end in zip(roles, ends, strict=True):
            if not end.done():
                role.terminate()
        await asyncio.gather(client, *ends, return_exceptions=True)


async def drive(
    url: str, *, in_flight: int, tasks: int, sizes: wire.Sizes = _SIZES, direct: bool = True
) -> Rate:
    """Be the client only: coordinator and agent are on the ledger at `url`, or will be."""
    link = Link()
    await link.open(url, direct=direct)
    try:
        load = Load(link, sizes)
        warm_up = max(500, 2 * in_flight)  # the roles start meanwhile
        await load.drive(in_flight=in_flight, tasks=warm_up + tasks)
    finally:
        await link.close()
    latencies = sorted(load.latencies[warm_up:])
    return Rate(
        in_flight=in_flight,
        tasks=tasks,
        tasks_per_s=tasks / (load.ended[-1] - load.ended[warm_up - 1]),
        p50_s=latencies[tasks // 2],
        p99_s=latencies[tasks * 99 // 100],
    )


async def _spawn(role: str, url: str, sizes: wire.Sizes, *, direct: bool) -> Process:
    options = ["--url", url, "--role", role, "--reader", "direct" if direct else "library"]
    bodies = [str(size) for size in msgspec.structs.astuple(sizes)]
    module = [sys.executable, "-m", "benchmarks.bare"]
    return await create_subprocess_exec(*module, *options, "--sizes", *bodies, cwd=_ROOT)
