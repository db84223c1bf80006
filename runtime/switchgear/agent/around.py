"""What the plan of a command knows of the attempt that it is of, and what it may ask of it.

Above: `stepping`. Below: `steps.rollout`, which is imported with the first command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.steps.rollout import Surroundings

if TYPE_CHECKING:
    from switchgear.agent.run import Run

_MOVES = 0.1
"""Seconds; far below any stall."""


class Around(Surroundings):
    """Of one command of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @contextmanager
    def aside(self, wanted: timedelta) -> Generator[timedelta]:
        """No time of the attempt passes, nothing stalls; half of the task's time until its deadline is left."""
        moving = asyncio.ensure_future(self._move())
        self._run.limit.pause(self)
        try:
            yield min(wanted, max(self._run.left() / 2, timedelta(0)))
        finally:
            self._run.limit.resume(self)
            moving.cancel()

    async def _move(self) -> None:
        while True:
            self._run.attempt.move()
            await asyncio.sleep(_MOVES)
