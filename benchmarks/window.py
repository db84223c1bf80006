"""The measuring window of a client: rate, latencies and CPU time of what ends inside it.

The bare program and the product are measured by the same code. A window opens after a warm-up, with all
tasks in flight, and closes with them still in flight: neither start nor drain counts.
"""

import os
from pathlib import Path
from time import perf_counter, process_time

import msgspec

_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


class Rate(msgspec.Struct, frozen=True):
    """What one window gave."""

    in_flight: int
    tasks: int
    """Tasks that ended inside the window."""
    tasks_per_s: float
    p50_s: float
    """Median of submit to result, seconds."""
    p99_s: float
    """99th percentile of the same, seconds."""
    cpu_us: dict[str, float] = {}
    """CPU time a task by process, microseconds."""
    stuck: int = 0
    """Tasks that were still open seconds after the window had closed."""


class Window:
    """Counts ended tasks for `seconds`, from `warm_up` seconds after the first one ended."""

    def __init__(self, warm_up: float, seconds: float, pids: dict[str, int]) -> None:
        """`pids` are the other processes whose CPU time is of interest."""
        self._warm_up = warm_up
        self._seconds = seconds
        self._pids = pids
        self._opens = 0.0
        self._opened = 0.0
        self._closed = 0.0
        self._latencies: list[float] = []
        self._cpu: list[dict[str, float]] = []

    def ended(self, started: float) -> bool:
        """Note the end of a task that began at `started`; whether the caller is to begin another."""
        now = perf_counter()
        if self._closed:
            return False
        if self._opened:
            self._latencies.append(now - started)
            if now - self._opened >= self._seconds:
                self._closed = now
                self._cpu.append(self._spent())
                return False
        elif not self._opens:
            self._opens = now + self._warm_up
        elif now >= self._opens:
            self._cpu.append(self._spent())
            self._opened = perf_counter()
        return True

    def rate(self, in_flight: int) -> Rate:
        """Return what the closed window gave."""
        latencies = sorted(self._latencies)
        tasks = len(latencies)
        before, after = self._cpu
        return Rate(
            in_flight=in_flight,
            tasks=tasks,
            tasks_per_s=tasks / (self._closed - self._opened),
            p50_s=latencies[tasks // 2],
            p99_s=latencies[tasks * 99 // 100],
            cpu_us={name: (after[name] - before[name]) / tasks for name in before},
        )

    def _spent(self) -> dict[str, float]:
        spent = {name: cpu_us(pid) for name, pid in self._pids.items()}
        return {"client": process_time() * 1e6, **spent}


def cpu_us(pid: int) -> float:
    """CPU time that the process and its children have used, microseconds in steps of a clock tick (10 ms).

    An agent is two processes: one serves, the other watches it.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) * _TICK  # utime, stime
    return own + sum(map(cpu_us, children(pid)))


def children(pid: int) -> list[int]:
    """The processes that this one has started and that live."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
