"""A child sees its clock jump, and its stopwatch not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.tools import clocks
from tests.faults.tools.clocks import FakeClock
from tests.faults.tools.needs import need

pytestmark = pytest.mark.faults

PROGRAM = """
import asyncio, json, sys, time
async def main():
    for line in sys.stdin:
        before = time.monotonic()
        await asyncio.sleep(0.05)
        await asyncio.to_thread(time.sleep, 0.01)
        slept = time.monotonic() - before
        print(json.dumps([time.time(), time.monotonic(), slept]), flush=True)
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
HOUR = timedelta(hours=1)
SLACK = 0.1
"""Seconds by which a wall clock may be corrected meanwhile."""


class Seen(NamedTuple):
    """What the child said."""

    wall: float
    steady: float
    slept: float


class Watch:
    """The child."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def look(self) -> Seen:
        """Its clocks, once it has slept a little."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        answer: list[Any] = json.loads(self._process.stdout.readline())
        return Seen(*answer)


@contextmanager
def watch(clock: FakeClock, loop: str) -> Generator[Watch]:
    """A child with this clock."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, loop],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **clock.environment()},
    ) as process:  # fmt: skip
        try:
            yield Watch(process)
        finally:
            process.kill()
            process.wait()
            clock.forget(process.pid)


@pytest.fixture(autouse=True)
def _able() -> None:
    need(clocks.missing())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_jump_moves_the_wall_clock_and_nothing_else(tmp_path: Path, loop: str) -> None:
    """Ahead and back, while the child runs; its sleeps stay as long as they were."""
    if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    clock = FakeClock(tmp_path / "clock")
    with watch(clock, loop) as child:
        for by, ahead in [(timedelta(), 0), (HOUR, 3600), (-2 * HOUR, -3600), (HOUR, 0)]:
            clock.jump(by)
            start = time.monotonic()
            began = time.time()
            seen = child.look()
            assert began - SLACK <= seen.wall - ahead <= time.time() + SLACK
            assert start <= seen.steady <= time.monotonic()
            assert 0.05 <= seen.slept <= time.monotonic() - start


def test_clock_without_a_jump_is_right(tmp_path: Path) -> None:
    """What was set stays set for those who come later."""
    clock = FakeClock(tmp_path)
    clock.jump(timedelta(milliseconds=1500))
    clock.jump(timedelta(seconds=-2))
    assert clock.ahead == timedelta(milliseconds=-500)
    with watch(clock, "asyncio") as child:
        began = time.time()
        assert began - SLACK <= child.look().wall + 0.5 <= time.time() + SLACK
