"""The registry's stream: one announcement a subject, with a TTL, and a watch that loses nothing.

Above it: `registry/`, which judges freshness. An end is a message without data: the mark that the server leaves when
a TTL runs out, or the one that `remove` stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from switchgear.bus import watching
from switchgear.bus.port import Announced
from switchgear.bus.pulling import Link
from switchgear.bus.watching import GONE_TTL, Watch
from switchgear.contract import subjects
from switchgear.errors import UsageError

REGISTRY: Final = "SG_REGISTRY"


class StreamAnnouncements:
    """`port.Announcements` on the stream SG_REGISTRY."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._publish = link.publisher.publish

    async def put(self, subject: str, data: bytes, *, ttl: timedelta) -> None:
        """Store the announcement; gone after the TTL, which the server counts in whole seconds (rounded up)."""
        if not data:
            raise UsageError("an announcement needs data", fix="call `remove` to end one")
        seconds = max(1, math.ceil(ttl.total_seconds()))
        await self._publish(subject, f"NATS/1.0\r\nNats-TTL: {seconds}s\r\n\r\n", data)

    async def remove(self, subject: str) -> None:
        """End the announcement; watchers hear of it at once."""
        headers = f"NATS/1.0\r\nNats-Marker-Reason: Remove\r\nNats-TTL: {GONE_TTL}s\r\n\r\n"
        await self._publish(subject, headers, b"")

    async def watch(self, receive: Callable[[Announced], None]) -> Watch:
        """See `port.Announcements.watch`. Raises Unavailable, ServerUnfit."""

        def hear(subject: str, data: bytes | None, time_ns: int, sequence: int) -> None:
            receive(Announced(subject, data, time_ns, sequence))

        return await watching.watch(self._link, REGISTRY, subjects.ANNOUNCE_SUBJECTS, hear)
