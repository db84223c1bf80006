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


class NotBefore:
    """A clock that is never behind a moment that is known to have passed, such as a message's store time."""

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Clock, at: datetime) -> None:
        self._clock = clock
        self._at = at

    def now(self) -> datetime:
        """The later of the two."""
        return max(self._clock.now(), self._at)


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970, for ids."""
    return int(at.timestamp() * 1000)


def nanoseconds(at: datetime) -> int:
    """Nanoseconds since 1970, to the microsecond."""
    return int(at.timestamp() * 1_000_000) * 1000
