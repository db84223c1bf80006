"""`python -m tests.faults.runs`: seeded schedules of faults over meshes of real processes, and one line of counts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.faults.runs import schedule
from tests.faults.runs.schedule import Result


def main() -> int:
    """Run the schedules. Returns the exit code: 1 where an invariant was violated."""
    asked = _asked()
    logging.disable(logging.CRITICAL)  # what the clients of a broken mesh have to say
    place = asked.folder or Path(tempfile.mkdtemp(prefix="fault-runs-"))
    if asked.soak:
        from tests.faults.runs import soak

        result = asyncio.run(soak.run(asked.first, asked.soak * 60, place))
        return _told([result])
    seeds = range(asked.first, asked.first + asked.schedules)
    results = asyncio.run(many(seeds, asked.seconds, place, at_once=asked.at_once, verbose=True))
    return _told(results)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.runs", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first")
    parser.add_argument("--seconds", type=float, default=12, help="of faults in each")
    parser.add_argument(
        "--at-once", type=int, default=2, help="schedules that run at the same time"
    )
    parser.add_argument("--soak", type=float, default=0, help="one schedule of so many minutes")
    parser.add_argument("--folder", type=Path, help="where failing schedules are kept")
    return parser.parse_args()


async def many(
    seeds: Iterable[int], seconds: float, place: Path, *, at_once: int = 2, verbose: bool = False
) -> list[Result]:
    """The results of these seeds, in their order."""
    free = asyncio.Semaphore(at_once)

    async def one(seed: int) -> Result:
        async with free:
            result = await schedule.run(seed, seconds, place)
            if verbose:
                print(_line(result), flush=True)
            return result

    return await asyncio.gather(*map(one, seeds))


def summary(results: list[Result]) -> str:
    """The one line at the end."""
    bad = [one.seed for one in results if one.violations]
    replay = f"; replay with --first S --schedules 1, S of {bad[:20]}" if bad else ""
    return (
        f"{len(results)} schedules run, {sum(one.faults.total() for one in results)} faults,"
        f" {sum(one.tasks for one in results)} tasks,"
        f" {sum(len(one.violations) for one in results)} violations{replay}"
    )


def _line(result: Result) -> str:
    told = "".join(f"\n    {one}" for one in result.violations[:12])
    noted = "".join(f"\n    wrote: {one}" for one in sorted(set(result.notes))[:6])
    return (
        f"  schedule {result.seed}: {result.faults.total()} faults, {result.tasks} tasks,"
        f" {result.entries} entries, {result.executions} executions in {result.seconds:.1f} s,"
        f" all ended {result.healed:.1f} s after the last fault{told}{noted}"
    )


def _told(results: list[Result]) -> int:
    fired = sum((one.faults for one in results), Counter[str]())
    for kind, count in fired.most_common():
        print(f"  {count:6}  {kind}")
    print(summary(results))
    return 1 if any(one.violations for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
