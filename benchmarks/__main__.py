"""`python -m benchmarks`: measure, print a table, write build/bench.json."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks import (
    classifying,
    durable,
    engine,
    fairness,
    fan_out,
    finished,
    guarding,
    rates,
    starting,
    stepping,
)
from benchmarks.results import Results, table
from benchmarks.sides import ROOT, Product, Window, empty_home
from switchgear.loop import run

T = TypeVar("T")

PARTS = (
    "rates",
    "starting",
    "imports",
    "classify",
    "guard",
    "steps",
    "dagger",
    "durable",
    "checkpoints",
    "fan-out",
    "fairness",
    "finished",
)
LONG = ("durable", "checkpoints", "fan-out", "fairness", "finished")
"""Left out of a quick run."""
ROLES = ("client", "coordinator", "agent")


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int
    window: Window
    hooked: bool
    tries: int
    """Starts of agents and interpreters."""


FULL = Plan(rounds=5, window=Window(warm_up=0.5, seconds=2.0), hooked=True, tries=10)
QUICK = Plan(rounds=2, window=Window(warm_up=0.25, seconds=0.75), hooked=False, tries=3)


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help=f"at most 40 s, without {', '.join(LONG)}"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, help="how often what varies is measured")
    parser.add_argument(
        "--finished", type=int, default=finished.FINISHED, help="tasks in the full ledger"
    )
    parser.add_argument("--profile", choices=ROLES, help="profile this role with 256 in flight")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    return parser.parse_args(given)


async def measure(
    parts: list[str], plan: Plan, home: Path, tasks: int = finished.FINISHED
) -> Results:
    """Measure these parts; `tasks`: in the ledger that is full of finished ones."""
    results = Results()
    if "imports" in parts:
        await starting.imports(results, tries=plan.tries)
    if "starting" in parts:
        await starting.first_task(home, results, tries=plan.tries)
    await _alone(parts, plan, results)
    if "rates" in parts:
        await rates.measure(
            home, results, rounds=plan.rounds, window=plan.window, hooked=plan.hooked
        )
    if "durable" in parts:
        await durable.synced(home, results, rounds=plan.rounds, window=plan.window)
    if "checkpoints" in parts:
        await durable.recorded(home, results, rounds=plan.rounds, window=plan.window)
    if "fan-out" in parts:
        await fan_out.measure(home, results, rounds=plan.rounds)
    if "fairness" in parts:
        await fairness.measure(home, results)
    if "finished" in parts:
        await finished.measure(home, results, rounds=plan.rounds, window=plan.window, tasks=tasks)
    return results


async def _alone(parts: list[str], plan: Plan, results: Results) -> None:
    """What needs no server."""
    if "classify" in parts:
        classifying.measure(results, rounds=plan.rounds)
    if "guard" in parts:
        await guarding.measure(results, rounds=plan.rounds)
    if "steps" in parts:
        await stepping.measure(results, rounds=plan.rounds)
    if "dagger" in parts:
        await engine.measure(results, rounds=plan.rounds)


async def stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Cancel the work on SIGTERM, so that no process of it stays behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def profile(role: str, home: Path) -> None:
    """Run the product alone; the role prints its profile when it ends."""
    side = Product(home, role)
    try:
        await side.start()
        rate = await side.measure(256, Window(warm_up=0.5, seconds=5.0))
    finally:
        await side.stop()
    print(f"{rate.tasks_per_s:,.0f} tasks/s under the profiler of {role}")


def main() -> None:
    """Do what the command line says."""
    options = arguments(sys.argv[1:])
    with empty_home() as home:
        if options.profile:
            run(stoppable(profile(options.profile, home)))
            return
        plan = QUICK if options.quick else FULL
        if options.rounds:
            plan = msgspec.structs.replace(plan, rounds=options.rounds)
        parts = options.only or [part for part in PARTS if part not in LONG or not options.quick]
        began = time.monotonic()
        results = run(stoppable(measure(parts, plan, home, options.finished)))
    print("\n".join(table(results)))
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(f"\n{time.monotonic() - began:.0f} s; written to {out}")


if __name__ == "__main__":
    main()
