"""One run: fresh stream, coordinator and agent as processes of their own, the client here."""

import asyncio
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from pathlib import Path

import msgspec

from benchmarks.bare import stream, wire
from benchmarks.bare.link import Variant
from benchmarks.bare.public import link_of
from benchmarks.bare.roles import Burst, Submitter
from benchmarks.window import Rate, Window

_ROOT = Path(__file__).parents[2]


class Program(msgspec.Struct, frozen=True):
    """Which program, and where."""

    url: str
    variant: Variant = "library"
    sizes: wire.Sizes = wire.Sizes()


class Load(msgspec.Struct, frozen=True):
    """What the client does."""

    in_flight: int
    warm_up: float = 0.5
    """Seconds."""
    seconds: float = 3.0
    """How long is measured."""


async def measure(program: Program, load: Load) -> Rate:
    """Time a window on a fresh ledger, an old one is deleted; wants to run in a uvloop."""
    await stream.prepare(program.url)
    relays = [await _spawn(role, program) for role in ("coordinator", "agent")]
    ends = [asyncio.create_task(relay.wait()) for relay in relays]
    client = asyncio.create_task(drive(program, load, {}))
    limit = 30 + 2 * load.seconds
    try:
        await asyncio.wait({client, *ends}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not client.done():
            lost = any(end.done() for end in ends)
            raise RuntimeError("a role ended early" if lost else "the run is stuck")
        return client.result()
    finally:
        client.cancel()
        for relay, end in zip(relays, ends, strict=True):
            if not end.done():
                relay.terminate()
        await asyncio.gather(client, *ends, return_exceptions=True)


async def drive(program: Program, load: Load, pids: dict[str, int]) -> Rate:
    """Be the client only: coordinator and agent are on the ledger, or will be."""
    link = link_of(program.variant)
    await link.open(program.url)
    try:
        window = Window(load.warm_up, load.seconds, pids)
        await Submitter(link, program.sizes, window).drive(in_flight=load.in_flight)
    finally:
        await link.close()
    return window.rate(load.in_flight)


async def burst(program: Program, tasks: int, in_flight: int) -> float:
    """Return the seconds that so many tasks take, with at most `in_flight` open."""
    link = link_of(program.variant)
    await link.open(program.url)
    try:
        return await Burst(link, program.sizes, tasks).seconds(in_flight=in_flight)
    finally:
        await link.close()


async def _spawn(role: str, program: Program) -> Process:
    options = ["--url", program.url, "--role", role, "--variant", program.variant]
    bodies = [str(size) for size in msgspec.structs.astuple(program.sizes)]
    module = [sys.executable, "-m", "benchmarks.bare"]
    return await create_subprocess_exec(*module, *options, "--sizes", *bodies, cwd=_ROOT)
