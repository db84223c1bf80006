"""The registry's stream: one announcement a subject, with a TTL, and a watch that loses nothing.

Above it: `registry/`, which judges freshness. An end is a message without data: the mark that the server leaves when
a TTL runs out, or the one that `remove` stores. After an outage the watch reads everything again and reports what
it knew and is gone, since the marks themselves may have expired.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from switchgear.bus import frames, reading
from switchgear.bus.consumer import ensure_consumer
from switchgear.bus.port import Announced
from switchgear.bus.pulling import Link, Pulling
from switchgear.contract import subjects
from switchgear.errors import SwitchgearError, UsageError

log = logging.getLogger("switchgear.bus")

REGISTRY: Final = "SG_REGISTRY"
GONE_TTL: Final = 60
"""Seconds that the mark of a removal is kept, for watchers that were away."""
RETRY: Final = 0.1
"""Seconds between attempts to watch again."""
_CREDIT: Final = 1000


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

    async def watch(self, receive: Callable[[Announced], None]) -> RegistryWatch:
        """See `port.Announcements.watch`. Raises Unavailable, ServerUnfit."""
        watch = RegistryWatch(self._link, receive)
        try:
            await watch.begin()
        except BaseException:
            await watch.end()
            raise
        return watch


class RegistryWatch:
    """A running watch: reads all that is there, then follows; again from the start when anything breaks."""

    def __init__(self, link: Link, receive: Callable[[Announced], None]) -> None:
        self._link = link
        self._receive = receive
        self._known: dict[str, int] = {}
        self._fresh: set[str] | None = None
        """Subjects seen since a new reading began; None once it is complete."""
        self._expected = 1
        self._newest = 0
        self._pulling: Pulling | None = None
        self._caught_up: asyncio.Future[None] | None = None
        self._again: asyncio.Task[None] | None = None
        self._ended = False
        link.client.on_back(self._restart)

    async def begin(self) -> None:
        """Read what is there; returns when all of it has been received."""
        await self._drop()
        name = reading.fresh_name()
        config = reading.ephemeral(
            name, subjects.ANNOUNCE_SUBJECTS, {"deliver_policy": "last_per_subject"}
        )
        self._fresh = set()
        self._expected = 1
        self._caught_up = asyncio.get_running_loop().create_future()
        info = await ensure_consumer(self._link, REGISTRY, config)
        if not int(info["num_pending"]):
            self._complete()

        async def revive() -> None:
            self._restart()

        self._pulling = Pulling(
            self._link,
            REGISTRY,
            name,
            self._take,
            credit=_CREDIT,
            revive=revive,
            idle=self._on_idle,
        )
        self._pulling.start()
        async with asyncio.timeout(reading.PATIENCE):
            await asyncio.shield(self._caught_up)

    async def end(self) -> None:
        """Stop watching."""
        self._ended = True
        self._link.client.forget_listener(self._restart)
        if self._again is not None:
            self._again.cancel()
        await self._drop()

    async def _drop(self) -> None:
        pulling, self._pulling = self._pulling, None
        if pulling is not None:
            reading.forget(self._link, REGISTRY, pulling.consumer)
            await pulling.stop()

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002 - Take
        meta = frames.handed(reply)
        pulling = self._pulling
        if pulling is None or pulling.consumer != meta.consumer:
            return
        pulling.give_back()
        if meta.consumer_sequence != self._expected:
            self._restart()
            return
        self._expected += 1
        self._newest = max(self._newest, meta.time_ns)
        name = subject.decode()
        if self._fresh is not None:
            self._fresh.add(name)
        if self._known.get(name) != meta.sequence:
            known = name in self._known
            if data:
                self._known[name] = meta.sequence
            else:
                self._known.pop(name, None)
            # The end of what was never heard of is no news while reading what is there.
            if data or known or self._fresh is None:
                self._receive(Announced(name, data or None, meta.time_ns, meta.sequence))
        if self._fresh is not None and meta.pending == 0:
            self._complete()

    def _on_idle(self, last: int) -> None:
        """The server has nothing more to deliver now."""
        if last != self._expected - 1:
            self._restart()
        elif self._fresh is not None:
            self._complete()

    def _complete(self) -> None:
        """What is there has been received: whatever was known and is not there has ended."""
        fresh, self._fresh = self._fresh, None
        for name in [one for one in self._known if one not in (fresh or ())]:
            sequence = self._known.pop(name)
            self._receive(Announced(name, None, self._newest, sequence))
        if self._caught_up is not None and not self._caught_up.done():
            self._caught_up.set_result(None)

    def _restart(self) -> None:
        if not self._ended and (self._again is None or self._again.done()):
            self._again = asyncio.get_running_loop().create_task(self._read_again())

    async def _read_again(self) -> None:
        while True:
            try:
                await self.begin()
            except (SwitchgearError, TimeoutError) as error:
                log.warning("bus.watch_interrupted", extra={"error": str(error)})
                await asyncio.sleep(RETRY)
            else:
                return
