"""What finished tasks cost: the same loads on an empty ledger and on one that holds many, in turns."""

import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.rates import tell
from benchmarks.results import Results, paired
from benchmarks.sides import Product, Window, end, line_of, spawn
from benchmarks.window import Rate

FINISHED = 100_000
_FILL = 600.0
"""Seconds that filling in so many may take."""


async def measure(
    home: Path, results: Results, *, rounds: int, window: Window, tasks: int = FINISHED
) -> None:
    """Fill in the ratios of the full to the empty ledger; full has so many finished tasks."""
    keep = {"SWITCHGEAR_RETENTION_COUNT": str(2 * tasks)}
    sides = {"empty": Product(home, settings=keep), "full": Product(home, settings=keep)}
    rates: dict[tuple[str, int], list[Rate]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        for side in sides.values():
            stack.push_async_callback(side.stop)
            await side.start()
        results.finished_tasks = await _fill(sides["full"], tasks)
        for number in range(rounds):
            order = ("empty", "full") if number % 2 else ("full", "empty")
            for load in (1, 256):
                for name in order:
                    rate = await sides[name].measure(load, window)
                    rates[name, load].append(rate)
                    tell(f"round {number + 1}, {name}", rate)

    def speeds(name: str) -> list[float]:
        return [rate.tasks_per_s for rate in rates[name, 256]]

    def middles(name: str) -> list[float]:
        return [rate.p50_s for rate in rates[name, 1]]

    throughput = paired(speeds("full"), speeds("empty"))
    p50 = paired(middles("full"), middles("empty"))
    if tasks == FINISHED:
        results.finished_100k_throughput_ratio, results.finished_100k_p50_ratio = throughput, p50
    else:
        results.finished_throughput_ratio, results.finished_p50_ratio = throughput, p50


async def _fill(side: Product, tasks: int) -> int:
    """Fill the side's ledger while nobody else is on it; return how many finished tasks it holds."""
    await side.measure(1, Window(0, 0))  # lanes and intakes exist from here on
    await side.stop_roles()
    filler = await spawn("benchmarks.fill", side.server.url, str(tasks), env=side.env)
    try:
        said = await line_of(filler, max(_FILL, _FILL * tasks / FINISHED))
    finally:
        await end(filler)
    print(f"filled: {said}", file=sys.stderr, flush=True)
    await side.start_roles()
    return int(said.split()[0])
