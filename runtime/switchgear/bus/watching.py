"""A watch on a stream that keeps the newest message of each subject; it loses nothing.

Above it: the registry's announcements, and documents. An end is a message without data: a mark of the server, or of
whoever removed something. After an outage the watch reads everything again and reports what it knew and is gone,
since the marks themselves may have expired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from switchgear.bus import frames, reading
from switchgear.bus.durable import ensure_consumer
from switchgear.bus.pulling import Link, Pulling
from switchgear.errors import SwitchgearError

log = logging.getLogger("switchgear.bus")

GONE_TTL: Final = 60
"""Seconds that the mark of a removal is kept, for watchers that were away."""
RETRY: Final = 0.1
"""Seconds between attempts to watch again."""
_CREDIT: Final = 1000

Hear = Callable[[str, bytes | None, int, int], None]
"""Takes a change: subject, data (None: its end), store time in nanoseconds, sequence."""


async def watch(link: Link, stream: str, subject_filter: str, receive: Hear) -> Watch:
    """What is there now, then every change; returns when what was there has been received.

    Raises Unavailable, ServerUnfit.
    """
    watching = Watch(link, stream, subject_filter, receive)
    try:
        await watching.begin()
    except BaseException:
        await watching.end()
        raise
    return watching


class Watch:
    """A running watch: reads all that is there, then follows; again from the start when anything breaks."""

    def __init__(self, link: Link, stream: str, subject_filter: str, receive: Hear) -> None:
        self._link = link
        self._stream = stream
        self._filter = subject_filter
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
        config = reading.ephemeral(name, self._filter, {"deliver_policy": "last_per_subject"})
        self._fresh = set()
        self._expected = 1
        self._caught_up = asyncio.get_running_loop().create_future()
        info = await ensure_consumer(self._link, self._stream, config)
        if not int(info["num_pending"]):
            self._complete()

        async def revive() -> None:
            self._restart()

        self._pulling = Pulling(
            self._link,
            self._stream,
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
            reading.forget(self._link, self._stream, pulling.consumer)
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
                self._receive(name, data or None, meta.time_ns, meta.sequence)
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
            self._receive(name, None, self._newest, sequence)
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
