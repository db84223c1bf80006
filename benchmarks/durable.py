"""Durable execution against bare programs: writes that are synced before their answer, tasks that record steps."""

from collections import defaultdict
from pathlib import Path
from statistics import median

from benchmarks.rates import Rates, entry_sizes, take_turns
from benchmarks.results import Results, paired
from benchmarks.sides import ECHOING, STEPPING, Bare, Kind, Product, Side, Window
from switchgear.server.embedded import Durability

LOADS = (1, 256)


async def synced(home: Path, results: Results, *, rounds: int, window: Window) -> None:
    """Fill in rates and latencies of plain tasks with `sync_interval: always`."""
    rates = await _against_bare(home, ECHOING, "durable", rounds, window)
    ours, bare = rates["product", 256], rates["bare", 256]
    results.durable_throughput = median(one.tasks_per_s for one in ours)
    results.bare_durable_throughput = median(one.tasks_per_s for one in bare)
    results.durable_throughput_ratio = paired(
        [one.tasks_per_s for one in ours], [one.tasks_per_s for one in bare]
    )
    alone, bare_alone = rates["product", 1], rates["bare", 1]
    results.durable_serial_p50_ms = median(one.p50_s for one in alone) * 1e3
    results.bare_durable_serial_p50_ms = median(one.p50_s for one in bare_alone) * 1e3
    results.durable_serial_p50_ratio = paired(
        [one.p50_s for one in alone], [one.p50_s for one in bare_alone]
    )


async def recorded(home: Path, results: Results, *, rounds: int, window: Window) -> None:
    """Fill in rates and latencies of tasks with five steps."""
    rates = await _against_bare(home, STEPPING, "standard", rounds, window)
    ours, bare = rates["product", 256], rates["bare", 256]
    results.checkpoints_throughput = median(one.tasks_per_s for one in ours)
    results.bare_checkpoints_throughput = median(one.tasks_per_s for one in bare)
    results.checkpoints_throughput_ratio = paired(
        [one.tasks_per_s for one in ours], [one.tasks_per_s for one in bare]
    )
    alone, bare_alone = rates["product", 1], rates["bare", 1]
    results.checkpoints_serial_p50_ms = median(one.p50_s for one in alone) * 1e3
    results.checkpoints_serial_p50_ratio = paired(
        [one.p50_s for one in alone], [one.p50_s for one in bare_alone]
    )
    results.checkpoints_cpu_us_agent = median(one.cpu_us["agent"] for one in ours)
    results.bare_checkpoints_cpu_us_agent = median(one.cpu_us["agent"] for one in bare)


async def _against_bare(
    home: Path, kind: Kind, durability: Durability, rounds: int, window: Window
) -> Rates:
    """Rates of the product and of the bare program that makes the same appends."""
    sizes = await entry_sizes(home, kind)
    rates: Rates = defaultdict(list)
    for number in range(rounds):
        sides: dict[str, Side] = {
            "bare": Bare("public", sizes, kind=kind, durability=durability),
            "product": Product(home, kind=kind, durability=durability),
        }
        await take_turns(sides, LOADS, window, rates, number)
    return rates
