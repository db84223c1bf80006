"""What one parent with many children takes: `ctx.map` against a bare program that runs as many tasks."""

import asyncio
import json
import sys
import urllib.request
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

from benchmarks.rates import entry_sizes
from benchmarks.results import Results, paired
from benchmarks.sides import Bare, Kind, Product
from switchgear import Capability
from switchgear.bus.connection import connect
from switchgear.client.mesh import Mesh

CHILDREN = 1000
LIMIT = 100
"""The limit that `ctx.map` has by default."""
PATIENCE = timedelta(seconds=120)


class Fan(msgspec.Struct):
    """The parent's input."""

    children: int
    limit: int
    """How many of them may be open at a time."""


FAN: Capability[Fan, int] = Capability("fan", Fan, int)
FANNING = Kind("benchmarks.fan_agent", FAN.name)


async def measure(home: Path, results: Results, *, rounds: int) -> None:
    """Fill in the seconds of a parent with all children open at a time, and with the default limit."""
    sizes = await entry_sizes(home)
    side, bare = Product(home, kind=FANNING), Bare("public", sizes)
    ours: dict[int, list[float]] = {CHILDREN: [], LIMIT: []}
    theirs: dict[int, list[float]] = {CHILDREN: [], LIMIT: []}
    sent: list[float] = []
    async with AsyncExitStack() as stack:
        for one in (side, bare):
            stack.push_async_callback(one.stop)
            await one.start()
        mesh = Mesh(await connect(side.server.url, principal="bench"), "bench")
        stack.push_async_callback(mesh.close)
        await mesh.start()
        await mesh.call(FAN, Fan(CHILDREN // 10, LIMIT), timeout=PATIENCE)
        await bare.burst(CHILDREN // 10, LIMIT)
        for _ in range(rounds):
            for limit in (CHILDREN, LIMIT):
                before = await asyncio.to_thread(coordinators_messages, side)
                began = perf_counter()
                await mesh.call(FAN, Fan(CHILDREN, limit), timeout=PATIENCE)
                ours[limit].append(perf_counter() - began)
                after = await asyncio.to_thread(coordinators_messages, side)
                theirs[limit].append(await bare.burst(CHILDREN, limit))
                if limit == CHILDREN:
                    sent.append((after - before) / CHILDREN)
                _tell(limit, ours[limit][-1], theirs[limit][-1], (after - before) / CHILDREN)
    results.fan_out_s = median(ours[CHILDREN])
    results.fan_out_children_per_s = CHILDREN / results.fan_out_s
    results.fan_out_ratio = paired(theirs[CHILDREN], ours[CHILDREN])
    results.fan_out_limited_s = median(ours[LIMIT])
    results.fan_out_limited_ratio = paired(theirs[LIMIT], ours[LIMIT])
    results.fan_out_coordinator_messages = median(sent)


def coordinators_messages(side: Product) -> int:
    """How many messages the side's coordinator has published."""
    with urllib.request.urlopen(f"{side.server.monitoring_url}/connz") as answer:  # noqa: S310 - our own server
        connections = json.load(answer)["connections"]
    return sum(
        one["in_msgs"] for one in connections if one.get("name", "").startswith("coordinator-")
    )


def _tell(limit: int, ours: float, bare: float, messages: float) -> None:
    print(
        f"fan-out of {CHILDREN}, {limit} at a time: {ours:.2f} s, bare {bare:.2f} s; "
        f"the coordinator sent {messages:.1f} messages a child",
        file=sys.stderr,
        flush=True,
    )
