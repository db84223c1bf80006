"""Product and bare programs side by side: latency and throughput, in turns."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.bare.wire import Sizes
from benchmarks.echo import OWNER, REQUEST
from benchmarks.results import Results, paired
from benchmarks.sides import ECHOING, Bare, Kind, Product, Side, Window
from benchmarks.window import Rate
from switchgear.bus.connection import connect
from switchgear.client.mesh import Mesh

LOADS = (1, 256, 1024)
"""Tasks in flight; 1 is serial."""
Rates = dict[tuple[str, int], list[Rate]]
"""By side and load, one a round."""


async def entry_sizes(home: Path, kind: Kind = ECHOING) -> Sizes:
    """Run one task and return the sizes of its entries' bodies."""
    side = Product(home, kind=kind)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(side.stop)
        await side.start()
        bus = await connect(side.server.url, principal=OWNER)
        mesh = Mesh(bus, OWNER)
        stack.push_async_callback(mesh.close)
        await mesh.start()
        wanted = kind.capability
        await mesh.call(wanted, REQUEST)  # it waits for the agent, which leaves one entry more
        handle = await mesh.submit(wanted, REQUEST)
        await handle.result()
        history = await bus.ledger.history(f"sg.task.{wanted}.{OWNER}.{handle.id}.>")
    submitted, dispatched, *checkpoints, completed = [len(one.data) for one in history]
    if len(checkpoints) != kind.checkpoints:
        raise RuntimeError(f"a task of {wanted} left {len(history)} entries")
    return Sizes(submitted, dispatched, completed, max(checkpoints, default=Sizes().checkpoint))


async def measure(
    home: Path, results: Results, *, rounds: int, window: Window, hooked: bool
) -> None:
    """Fill in rates, latencies, CPU times and their ratios."""
    sizes = await entry_sizes(home)
    results.entry_bytes_submitted = sizes.submitted
    results.entry_bytes_dispatched = sizes.dispatched
    results.entry_bytes_completed = sizes.completed
    results.rounds = rounds
    rates: Rates = defaultdict(list)
    for number in range(rounds):
        sides: dict[str, Side] = {"bare": Bare("public", sizes), "product": Product(home)}
        if hooked:
            sides["hooked"] = Bare("library", sizes)
        await take_turns(sides, LOADS, window, rates, number)
    _summarise(results, rates, hooked=hooked)


async def take_turns(
    sides: dict[str, Side], loads: Sequence[int], window: Window, rates: Rates, number: int
) -> None:
    """Measure all sides at these loads, each side on a fresh server; who goes first changes by the round."""
    names = list(sides)
    order = names[number % len(names) :] + names[: number % len(names)]
    async with AsyncExitStack() as stack:
        for side in sides.values():
            stack.push_async_callback(side.stop)
            await side.start()
        for load in loads:
            for name in order:
                rate = await sides[name].measure(load, window)
                rates[name, load].append(rate)
                tell(f"round {number + 1}, {name}", rate)


def tell(what: str, rate: Rate) -> None:
    """Print what a window gave."""
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
