"""Progress of one attempt: rate limited, the newest always sent, stored by the broker for late watchers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.contract import codec, subjects
from switchgear.contract.queries import Progress

if TYPE_CHECKING:
    from switchgear.agent.attempt import Attempt

_TEXT = 500


class Reports:
    """Sends the newest report at most every `every`."""

    def __init__(self, attempt: Attempt, every: timedelta) -> None:
        self._attempt = attempt
        self._every = every.total_seconds()
        self._newest: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent = float("-inf")

    def report(self, fraction: float | None, message: str, counters: dict[str, float]) -> None:
        """Take a report; it is sent now, or, unless a newer one comes, in a moment."""
        attempt = self._attempt
        self._newest = Progress(
            task=attempt.subject.task,
            time=attempt.clock.now(),
            attempt=attempt.dispatched.attempt,
            fraction=None if fraction is None else min(max(float(fraction), 0.0), 1.0),
            message=str(message)[:_TEXT].encode("utf-8", "replace").decode(),
            counters={name: float(value) for name, value in counters.items()},
            writer=attempt.bus.name,
        )
        loop = asyncio.get_running_loop()
        wait = self._sent + self._every - loop.time()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_later(wait, self.flush)

    def flush(self) -> None:
        """Send what has not been sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._newest is None:
            return
        report, self._newest = self._newest, None
        self._sent = asyncio.get_running_loop().time()
        subject = subjects.progress(self._attempt.scope)
        self._attempt.bus.core.publish(subject, codec.encode(report))
