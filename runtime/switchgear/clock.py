"""Injected time: the only module that reads the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What services ask for the time of day. Waiting uses the event loop's own clock."""

    def now(self) -> datetime:
        """The time of day, in UTC, with time zone."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, in UTC, with time zone."""
        return datetime.now(UTC)


SYSTEM = SystemClock()


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970, for ids."""
    return int(at.timestamp() * 1000)


def nanoseconds(at: datetime) -> int:
    """Nanoseconds since 1970, to the microsecond."""
    return int(at.timestamp() * 1_000_000) * 1000
