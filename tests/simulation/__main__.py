"""`python -m tests.simulation`: many seeds in several processes, and one line of counts at the end."""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import signal
import sys
import time
import traceback
from collections import Counter

from tests.simulation import bugs
from tests.simulation.world import Result, simulate

ENDLESS = 20
"""Processor seconds of a seed, which usually takes a twentieth of one."""
TOGETHER = 25
"""Seeds whose garbage is thrown away at a time."""


def main() -> int:
    """Run the seeds. Returns the exit code: 1 where an invariant was violated."""
    asked = _asked()
    if asked.every_bug:
        return _every_bug(asked)
    if asked.bug:
        bugs.plant(asked.bug)
    started = time.monotonic()
    seeds = range(asked.first, asked.first + asked.seeds)
    results = _all(seeds, asked)
    bad = [one for one in results if one.violations]
    _fired(results)
    replay = (
        f"; replay with --first S --seeds 1, S of {[one.seed for one in bad][:20]}" if bad else ""
    )
    count = max(len(results), 1)
    tasks = sum(one.tasks for one in results) / count
    entries = sum(one.entries for one in results) / count
    faults = sum(one.injected for one in results) / count
    used = sum(one.seconds for one in results)
    print(
        f"simulated {len(results)} seeds in {time.monotonic() - started:.0f} s, {used:.0f} s of processors"
        f" ({tasks:.1f} tasks, {entries:.0f} entries, {faults:.1f} faults a seed):"
        f" {len(bad)} with violations{replay}"
    )
    return 1 if bad else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", type=int, default=5, help="seeds whose violations are printed")
    parser.add_argument("--bug", choices=sorted(bugs.BUGS), help="plant this bug first")
    parser.add_argument("--every-bug", action="store_true", help="plant each bug until it is seen")
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    return parser.parse_args()


def _every_bug(asked: argparse.Namespace) -> int:
    """Plant each bug in processes of its own until a seed sees it."""
    missed: list[str] = []
    with multiprocessing.get_context("fork").Pool(asked.processes, maxtasksperchild=1) as pool:
        given = [(name, asked.first, asked.seeds) for name in sorted(bugs.BUGS)]
        for name, seed, seen in pool.imap(_seen, given, chunksize=1):
            clean = seen and not pool.apply(one, (seed,)).violations  # in a process without it
            print(
                f"  {name}: " + (f"seed {seed}: {seen[:110]}" if clean else "NOT SEEN"), flush=True
            )
            if not clean:
                missed.append(name)
    print(f"planted {len(bugs.BUGS)} bugs: {len(missed)} not seen {missed or ''}".rstrip())
    return 1 if missed else 0


def _seen(given: tuple[str, int, int]) -> tuple[str, int, str]:
    """The first seed that sees this bug, and what it sees."""
    name, first, seeds = given
    bugs.plant(name)
    for seed in (bugs.BUGS[name].seed, *range(first, first + seeds)):
        found = one(seed)
        if found.violations:
            return name, seed, found.violations[0].strip().splitlines()[-1]
    return name, 0, ""


def one(seed: int) -> Result:
    """A seed; what it raises is a violation too, and so is a loop without end."""
    _collect_rarely()
    signal.signal(signal.SIGPROF, _endless)
    signal.setitimer(signal.ITIMER_PROF, ENDLESS, 1)
    try:
        return simulate(seed)
    except BaseException:  # noqa: BLE001  # the run of the others goes on
        return Result(seed, [traceback.format_exc()], Counter())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Endless(KeyboardInterrupt):
    """A seed does not end. Nothing that runs on a loop may catch this."""


def _endless(number: int, frame: object) -> None:
    del number, frame
    raise Endless(f"the seed took more than {ENDLESS} s of the processor")


_seeds = itertools.count(1)


def _collect_rarely() -> None:
    """A seed is thrown away as a whole: to look for garbage meanwhile costs a tenth of it."""
    number = next(_seeds)
    if number == 2:  # all is imported
        gc.collect()
        gc.freeze()
        gc.disable()
    elif number % TOGETHER == 0:
        gc.collect()


def _all(seeds: range, asked: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    if asked.processes < 2:
        for seed in seeds:
            results.append(one(seed))
            _show(results, asked)
            if asked.stop and results[-1].violations:
                break
        return results
    with multiprocessing.get_context("fork").Pool(asked.processes) as pool:
        for result in pool.imap_unordered(one, seeds, chunksize=4):
            results.append(result)
            _show(results, asked)
            if asked.stop and result.violations:
                break
    return sorted(results, key=lambda result: result.seed)


def _show(results: list[Result], asked: argparse.Namespace) -> None:
    """Print what the newest result violates, as long as there are few of them."""
    newest = results[-1]
    if newest.violations and sum(bool(result.violations) for result in results) <= asked.show:
        print(f"seed {newest.seed}:", *newest.violations[:12], sep="\n  ", flush=True)


def _fired(results: list[Result]) -> None:
    fired = Counter(kind for result in results for kind in result.faults)
    for kind, count in fired.most_common():
        print(f"  {count / max(len(results), 1):6.1%}  {kind}")


if __name__ == "__main__":
    sys.exit(main())
