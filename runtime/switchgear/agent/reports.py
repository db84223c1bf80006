"""Progress of one run: rate limited, the newest always sent, stored by the broker for late watchers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import LogLine, Progress

if TYPE_CHECKING:
    from switchgear.agent.attempt import Attempt

_TEXT = 500


class Reports:
    """Sends the newest report at most every `every`, with what was logged since the one before."""

    # Defaults of the class: each task has one of these, and most never report.
    _newest: Progress | None = None
    _lines: deque[LogLine] | None = None
    _unsent = False
    _timer: asyncio.TimerHandle | None = None
    _sent = float("-inf")

    def __init__(self, attempt: Attempt, every: timedelta) -> None:
        self._attempt = attempt
        self._every = every.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def report(self, fraction: float | None, message: str, counters: dict[str, float]) -> None:
        """Take a report, from whatever thread; it is sent now, or, unless a newer one comes, in a moment."""
        attempt = self._attempt
        report = Progress(
            task=attempt.subject.task,
            time=attempt.clock.now(),
            attempt=attempt.dispatched.attempt,
            fraction=None if fraction is None else min(max(float(fraction), 0.0), 1.0),
            message=_cut(str(message)),
            counters={name: float(value) for name, value in counters.items()},
            writer=attempt.bus.name,
        )
        self._here(report)

    def line(self, level: str, text: str) -> None:
        """Take a log line, from whatever thread; it goes with the next report."""
        self._here(LogLine(time=self._attempt.clock.now(), level=level, text=_cut(text)))

    def output(self, stream: str, text: str) -> None:
        """Take a line of a command's output."""
        self.line(stream, text)

    def flush(self) -> None:
        """Send what has not been sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._unsent:
            return
        self._unsent = False
        self._sent = self._loop.time()
        attempt = self._attempt
        # lines alone say nothing new about how far it is
        report = self._newest or Progress(
            task=attempt.subject.task,
            time=attempt.clock.now(),
            attempt=attempt.dispatched.attempt,
            writer=attempt.bus.name,
        )
        lines, self._lines = tuple(self._lines or ()), None
        attempt.bus.core.publish(subjects.progress(attempt.scope), _fitting(report, lines))

    def _here(self, news: Progress | LogLine) -> None:
        if threading.get_ident() == self._thread:
            self._take(news)
        else:
            self._loop.call_soon_threadsafe(self._take, news)

    def _take(self, news: Progress | LogLine) -> None:
        if isinstance(news, Progress):
            self._newest = news
        else:
            self._lines = self._lines or deque(maxlen=limits.MAX_LINES)
            self._lines.append(news)
        self._unsent = True
        wait = self._sent + self._every - self._loop.time()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self.flush)


REPORTS: ContextVar[Reports | None] = ContextVar("switchgear_reports", default=None)
"""Where what is logged now belongs: set within a handler."""


def _fitting(report: Progress, lines: tuple[LogLine, ...]) -> bytes:
    """The report with as many of its newest lines as it may carry."""
    while len(data := codec.encode(replace(report, lines=lines))) > limits.MAX_PROGRESS and lines:
        lines = lines[1:]
    return data


def _cut(text: str) -> str:
    return text[:_TEXT].encode("utf-8", "replace").decode()
