"""Durable timers: schedules of the server (ADR-51) on SG_TIMERS, written as raw headers, which nats-py lacks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from switchgear.bus import frames
from switchgear.bus.durable import TIMERS
from switchgear.bus.publisher import Outcome
from switchgear.bus.pulling import Link


class StreamTimers:
    """`port.Timers` on the stream SG_TIMERS."""

    def __init__(self, link: Link) -> None:
        self._publish = link.publisher.publish
        self._asking = link.asking

    async def arm(self, timer: str, due: str, at: datetime, data: bytes = b"{}") -> None:
        """Have the server publish on `due` at the time (with zone); replaces the subject's former timer."""
        headers = f"NATS/1.0\r\nNats-Schedule: @at {frames.rfc3339(at)}\r\nNats-Schedule-Target: {due}\r\n\r\n"
        _stored(await self._publish(timer, headers, data))

    async def wake(self, due: str, data: bytes = b"{}") -> None:
        """Make it due now; sent again without an answer, so it may come twice."""
        _stored(await self._publish(due, "NATS/1.0\r\n\r\n", data))

    async def armed(self, subject_filter: str) -> list[str]:
        """Subjects of the timers under this filter. Raises Unavailable."""
        found: list[str] = []
        while True:
            body = {"subjects_filter": subject_filter, "offset": len(found)}
            info: dict[str, Any] = await self._asking.api(f"STREAM.INFO.{TIMERS}", body)
            page: dict[str, int] = info["state"].get("subjects") or {}
            found.extend(page)
            if not page or len(found) >= int(info.get("total", 0)):
                return found

    async def disarm(self, timer: str) -> None:
        """Take the timer away if it is still there; one that just became due is not called back."""
        await self._asking.api(f"STREAM.PURGE.{TIMERS}", {"filter": timer})


def _stored(outcome: Outcome) -> None:
    """Without an expectation nothing is refused."""
    del outcome
