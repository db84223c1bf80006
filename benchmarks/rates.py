"""Product and bare programs side by side: latency and throughput, in turns."""

import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.echo import ECHO, OWNER, REQUEST
from benchmarks.results import Results, paired
from benchmarks.sides import Bare, Product, Side, Window
from benchmarks.window import Rate
from switchgear.bus.connection import connect
from switchgear.client.mesh import Mesh

LOADS = (1, 256, 1024)
"""Tasks in flight; 1 is serial."""
Rates = dict[tuple[str, int], list[Rate]]
"""By side and load, one a round."""


async def entry_sizes(home: Path) -> tuple[int, int, int]:
    """Run one task and return the bodies' sizes in bytes: submitted, dispatched, completed."""
    side = Product(home)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(side.stop)
        await side.start()
        bus = await connect(side.server.url, principal=OWNER)
        mesh = Mesh(bus, OWNER)
        stack.push_async_callback(mesh.close)
        await mesh.start()
        await mesh.call(ECHO, REQUEST)  # it waits for the agent, which leaves a fourth entry
        handle = await mesh.submit(ECHO, REQUEST)
        await handle.result()
        scope = f"sg.task.echo.{OWNER}.{handle.id}.>"
        submitted, dispatched, completed = await bus.ledger.history(scope)
    return len(submitted.data), len(dispatched.data), len(completed.data)


async def measure(
    home: Path, results: Results, *, rounds: int, window: Window, hooked: bool
) -> None:
    """Fill in rates, latencies, CPU times and their ratios."""
    sizes = await entry_sizes(home)
    results.entry_bytes_submitted, results.entry_bytes_dispatched = sizes[:2]
    results.entry_bytes_completed = sizes[2]
    results.rounds = rounds
    rates: Rates = defaultdict(list)
    for number in range(rounds):
        sides: dict[str, Side] = {"bare": Bare("public", sizes), "product": Product(home)}
        if hooked:
            sides["hooked"] = Bare("library", sizes)
        await _round(sides, window, rates, number)
    _summarise(results, rates, hooked=hooked)


async def _round(sides: dict[str, Side], window: Window, rates: Rates, number: int) -> None:
    """Measure all sides at all loads, each side on a fresh server; who goes first changes by the round."""
    names = list(sides)
    order = names[number % len(names) :] + names[: number % len(names)]
    async with AsyncExitStack() as stack:
        for side in sides.values():
            stack.push_async_callback(side.stop)
            await side.start()
        for load in LOADS:
            for name in order:
                rate = await sides[name].measure(load, window)
                rates[name, load].append(rate)
                _tell(f"round {number + 1}, {name}", rate)


def _tell(what: str, rate: Rate) -> None:
    cpu = " ".join(f"{name} {spent:.0f}" for name, spent in sorted(rate.cpu_us.items()))
    print(
        f"{what:18} {rate.in_flight:5} in flight: {rate.tasks_per_s:7,.0f}/s, "
        f"p50 {rate.p50_s * 1e3:7.2f} ms, p99 {rate.p99_s * 1e3:7.2f} ms, us/task: {cpu}"
        + (f"  {rate.stuck} STUCK" if rate.stuck else ""),
        file=sys.stderr,
        flush=True,
    )


def _summarise(results: Results, rates: Rates, *, hooked: bool) -> None:
    def speeds(side: str, load: int) -> list[float]:
        return [rate.tasks_per_s for rate in rates[side, load]]

    def middles(side: str) -> list[float]:
        return [rate.p50_s for rate in rates[side, 1]]

    def put(key: str, value: float) -> None:
        setattr(results, key, value)

    others = {"bare": "", "hooked": "_hooked"} if hooked else {"bare": ""}
    for load in LOADS[1:]:
        put(f"throughput_{load}", median(speeds("product", load)))
        for other, suffix in others.items():
            put(f"bare_throughput_{load}{suffix}", median(speeds(other, load)))
            ratio = paired(speeds("product", load), speeds(other, load))
            put(f"throughput_ratio_{load}{suffix}", ratio)
    results.stuck_tasks = sum(
        rate.stuck for (side, _), ones in rates.items() if side == "product" for rate in ones
    )
    put("serial_p50_ms", median(middles("product")) * 1e3)
    for other, suffix in others.items():
        put(f"bare_serial_p50_ms{suffix}", median(middles(other)) * 1e3)
        put(f"serial_p50_ratio{suffix}", paired(middles("product"), middles(other)))
    for side, prefix in (("product", ""), ("bare", "bare_")):
        put(f"{prefix}serial_p99_ms", median(rate.p99_s for rate in rates[side, 1]) * 1e3)
        spent = median(sum(rate.cpu_us.values()) for rate in rates[side, 256])
        put(f"{prefix}cpu_us_per_task", spent)
        for name in ("client", "coordinator", "agent", "server"):
            spent = median(rate.cpu_us[name] for rate in rates[side, 256])
            put(f"{prefix}cpu_us_per_task_{name}", spent)
