"""Reading a stream in order by a consumer that is confined to one filter: a history, or everything without end.

The filter stands in the API subject, so that permissions can confine who reads what. Consumers are ephemeral, in
memory, without acks; the server forgets them when nobody reads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, Final

from switchgear.bus import frames
from switchgear.bus.durable import ensure_consumer
from switchgear.bus.frames import Handed
from switchgear.bus.pulling import Link, Pulling
from switchgear.contract.stored import Stored
from switchgear.errors import Unavailable

BATCH: Final = 500
"""Messages that a reader holds at most, and that one pull asks for."""
IDLE: Final = 10.0
"""Seconds without a reader after which the server forgets the consumer."""
PATIENCE: Final = 10.0
"""Seconds without progress after which a history gives up."""
_TRIES: Final = 3
_REPLACED: Final = 10
"""Reads in a row that may come out short since a message was replaced meanwhile."""


async def everything(
    link: Link, stream: str, scope: str, *, replacing: bool = False
) -> list[Stored]:
    """All messages under the filter, oldest first. Raises Unavailable, ServerUnfit.

    `replacing`: of a stream whose messages replace others, one of which a single read can miss in both forms.
    """
    short = interrupted = 0
    while interrupted < _TRIES:
        one = _Pass(link, stream, scope)
        found = await one.read()
        if found is None:
            interrupted += 1
        elif replacing and one.short and short < _REPLACED:
            short += 1
        else:
            return found
    raise Unavailable(f"reading {scope} was interrupted {_TRIES} times")


class _Pass:
    """One consumer's read of what a filter holds."""

    def __init__(self, link: Link, stream: str, scope: str) -> None:
        self._link = link
        self._stream = stream
        self._scope = scope
        self._name = fresh_name()
        self._inbox = f"{link.inbox}h.{self._name}"
        self._found: list[Stored] = []
        self.short = False
        """Fewer came than were promised."""
        self._done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def read(self) -> list[Stored] | None:
        """The messages; None where the read was interrupted (a restart, a gap) and must begin again."""
        config = ephemeral(self._name, self._scope, {"deliver_policy": "all"})
        info = await ensure_consumer(self._link, self._stream, config)
        client = self._link.client
        sid = 0
        try:
            if not int(info["num_pending"]):
                return []
            sid = client.subscribe_direct(self._inbox, self._take)
            client.on_lost(self._lost)
            self._ask()
            async with asyncio.timeout(PATIENCE):
                return self._found if await self._done else None
        except TimeoutError:
            raise Unavailable(f"the broker did not deliver {self._scope} in time") from None
        finally:
            client.forget_listener(self._lost)
            if sid:
                client.send(b"UNSUB %d\r\n" % sid)
                client.forget(sid)
            forget(self._link, self._stream, self._name)

    def _ask(self) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        self._link.client.publish_now(subject, b'{"batch":%d,"no_wait":true}' % BATCH, self._inbox)

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if self._done.done():
            return
        if not reply:
            # The rest was deleted meanwhile, or replaced.
            self.short = True
            self._done.set_result(frames.status(headers) in {frames.NOTHING, frames.OVER})
            return
        meta = frames.handed(reply)
        if meta.consumer_sequence != len(self._found) + 1:
            self._done.set_result(False)
            return
        self._found.append(stored(subject, meta, data, headers))
        if meta.pending == 0:
            self._done.set_result(True)
        elif len(self._found) % BATCH == 0:
            self._ask()

    def _lost(self) -> None:
        if not self._done.done():
            self._done.set_result(False)


async def follow(
    link: Link, stream: str, after: int, *, filters: tuple[str, ...] = (), bodies: bool = True
) -> AsyncIterator[list[Stored]]:
    """The messages of the stream beyond the sequence, in batches; an empty one when caught up. Never ends.

    `filters` (none: all) narrow it to subjects; without `bodies` only headers are read.
    """
    reader = _Reader(link, stream, after, filters, bodies=bodies)
    try:
        while True:
            yield await reader.batch()
    finally:
        await reader.stop()


class _Reader:
    """Keeps a consumer on the stream, and makes it again after the last message it saw when that breaks."""

    def __init__(
        self, link: Link, stream: str, after: int, filters: tuple[str, ...], *, bodies: bool
    ) -> None:
        self._link = link
        self._stream = stream
        self._filters = filters or (">",)
        self._bodies = bodies
        self._last = after
        self._expected = 1
        self._held: list[Stored] = []
        self._news = asyncio.Event()
        self._pulling: Pulling | None = None
        self._broken = False
        self._caught_up = False
        self._told = False

    async def batch(self) -> list[Stored]:
        """What has come since, at most BATCH; empty once each time everything was handed over."""
        while True:
            if self._pulling is None:
                await self._begin()
            if self._held:
                held, self._held = self._held, []
                self._told = False
                pulling = self._pulling
                if pulling is not None:
                    for _ in held:
                        pulling.give_back()
                return held
            if self._broken:
                await self.stop()
                continue
            if self._caught_up and not self._told:
                self._told = True
                return []
            self._news.clear()
            await self._news.wait()

    async def stop(self) -> None:
        """Give the consumer up; what is held stays."""
        pulling, self._pulling = self._pulling, None
        if pulling is not None:
            self._link.client.forget_listener(self._break)
            forget(self._link, self._stream, pulling.consumer)
            await pulling.stop()

    async def _begin(self) -> None:
        name = fresh_name()
        start: dict[str, object] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last + 1,
            "headers_only": not self._bodies,
        }
        config = ephemeral(name, self._filters[0], start)
        if len(self._filters) > 1:
            del config["filter_subject"]
            config["filter_subjects"] = list(self._filters)
        try:
            info = await ensure_consumer(self._link, self._stream, config)
        except Unavailable:
            if self._link.client.is_closed:
                raise
            # An outage, or an election: the call has waited its time, and a projection has all the time there is.
            self._broken = True
            return
        self._broken = False
        self._expected = 1
        self._caught_up = not int(info["num_pending"])

        async def broken() -> None:
            self._break()

        self._pulling = Pulling(
            self._link,
            self._stream,
            name,
            self._take,
            credit=BATCH,
            revive=broken,
            idle=self._on_idle,
        )
        self._pulling.start()
        # What was on its way when the connection broke is gone, and without acks nobody sends it again.
        self._link.client.on_lost(self._break)

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if self._broken:
            return
        meta = frames.handed(reply)
        if meta.consumer_sequence != self._expected:
            self._break()
            return
        self._expected += 1
        self._last = meta.sequence
        if not self._bodies:
            headers = frames.without_size(headers)
        self._held.append(stored(subject, meta, data, headers))
        self._caught_up = meta.pending == 0
        self._news.set()

    def _on_idle(self, last: int) -> None:
        """The server has nothing more, whatever its count of pending messages said (wrong after elections)."""
        if last != self._expected - 1:
            self._break()
            return
        self._caught_up = True
        self._news.set()

    def _break(self) -> None:
        self._broken = True
        self._news.set()


def stored(subject: bytes, meta: Handed, data: bytes, headers: bytes) -> Stored:
    """A delivered message as the stream keeps it."""
    return Stored(subject.decode(), meta.sequence, meta.time_ns, frames.whole(headers), data)


def fresh_name() -> str:
    """A name for an ephemeral consumer."""
    return f"read-{os.urandom(8).hex()}"


def ephemeral(name: str, scope: str, start: dict[str, object]) -> dict[str, Any]:
    """The settings of a reader's consumer."""
    return {
        "name": name,
        "filter_subject": scope,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(IDLE * 1e9),
        **start,
    }


def forget(link: Link, stream: str, name: str) -> None:
    """Delete the consumer; without the permission to, or an answer, the server forgets it by itself."""
    link.client.publish_now(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")
