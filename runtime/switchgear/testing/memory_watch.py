"""A watch on a stream of the memory broker: what is there, then every change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchgear.testing.memory_stream import matcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchgear.contract.stored import Stored
    from switchgear.testing.memory_link import Link
    from switchgear.testing.memory_stream import Stream


async def begin_watch(
    stream: Stream, subject_filter: str, link: Link, receive: Callable[[Stored], None]
) -> MemoryWatch:
    """Watch; returns when what was there has been received. Messages without data are ends."""
    await link.turn()
    watch = MemoryWatch(stream, subject_filter, link, receive)
    try:
        await link.turn()
    except BaseException:
        # Whoever gave up in this turn has no handle to end the watch with.
        watch.stop()
        raise
    return watch


class MemoryWatch:
    """A running watch (`port.Consuming`)."""

    def __init__(
        self, stream: Stream, subject_filter: str, link: Link, receive: Callable[[Stored], None]
    ) -> None:
        self._stream = stream
        self._covers = matcher((subject_filter,))
        self._link = link
        self._receive = receive
        for stored in stream.beyond(0):
            if stored.data:
                self._heard(stored)
        stream.heard.append(self._heard)

    def stop(self) -> None:
        """Hear of nothing that is stored from now on."""
        if self._heard in self._stream.heard:
            self._stream.heard.remove(self._heard)

    async def end(self) -> None:
        """Stop watching; what was stored before has been received when this returns."""
        self.stop()
        await self._link.settle()

    def _heard(self, stored: Stored) -> None:
        if self._covers(stored.subject):
            self._link.call(self._receive, stored)
