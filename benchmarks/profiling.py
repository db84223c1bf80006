"""Runs a role, under the profiler when it is the one to be profiled."""

import cProfile
import os
import pstats
import sys
from collections.abc import Callable

PROFILE = "BENCH_PROFILE"
"""Environment variable that names the role."""


def profiled(role: str, body: Callable[[], None]) -> None:
    """Run `body`; print its top 40 functions by own time on stderr if this role is to be profiled."""
    if os.environ.get(PROFILE) != role:
        body()
        return
    profile = cProfile.Profile()
    try:
        profile.runcall(body)
    finally:
        stats = pstats.Stats(profile, stream=sys.stderr)
        stats.sort_stats("tottime").print_stats(40)
