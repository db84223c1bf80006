"""What a handler streams while it runs: heard live, stored nowhere, until the task ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from switchgear.bus.port import Bus, Message, Subscription
from switchgear.contract import codec, limits, subjects
from switchgear.contract.capability import type_name
from switchgear.contract.queries import Chunk as Sent
from switchgear.errors import ProtocolError, SwitchgearError
from switchgear.lifecycle.history import History

T = TypeVar("T")

MAX_KEPT = 64 << 20
"""Bytes that wait for a slow reader; beyond it the oldest are lost, as their numbers tell."""
_MAX_SENT = 2 * limits.MAX_CHUNK
"""Bytes of a message, the chunk's value and what stands around it."""


class Chunk(NamedTuple, Generic[T]):
    """One value that a handler emitted."""

    step: str
    """Key of the step that sent it; empty outside of steps."""
    run: int
    """A higher run replaces what this step sent in lower ones."""
    number: int
    """From 0, of this step and run; a gap is lost."""
    value: T


class ChunkFeed:
    """A subscription to one task's chunks, and what it has heard."""

    def __init__(self, bus: Bus, scope: str) -> None:
        self._bus = bus
        self._scope = scope
        self._subscription: Subscription | None = None
        self._heard: deque[tuple[Sent, int]] = deque()
        self._size = 0
        self._runs: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Hear what is sent from now on. Raises Unavailable."""
        if self._subscription is None:
            subject = subjects.chunks(self._scope)
            self._subscription = await self._bus.core.subscribe(subject, self._take)

    def close_with(self, ended: asyncio.Future[History]) -> None:
        """Hear no more once the task has ended, whether or not somebody reads."""
        ended.add_done_callback(self._end)

    async def close(self) -> None:
        """Hear no more; what was heard can still be read."""
        self._ended = True
        self._changed.set()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(SwitchgearError):  # without a broker there is nothing to end
                await subscription.unsubscribe()

    async def read(self, ended: asyncio.Future[History], kind: Any) -> AsyncIterator[Chunk[Any]]:
        """The chunks with values of this type, until the task has ended and all that was heard was given.

        Raises ProtocolError for a value of another type, and what `ended` raises.
        """
        ended.add_done_callback(self._wake)
        decoder = codec.decoder(Any if kind is object else kind)
        try:
            while True:
                self._changed.clear()
                while self._heard:
                    sent, size = self._heard.popleft()
                    self._size -= size
                    yield Chunk(sent.step, sent.run, sent.number, _value(decoder, sent, kind))
                if ended.done():
                    ended.result()
                    return
                if self._ended:
                    return
                await self._changed.wait()
        finally:
            ended.remove_done_callback(self._wake)
            await self.close()

    def _end(self, _: object) -> None:
        self._closing = asyncio.ensure_future(self.close())

    def _wake(self, _: object) -> None:
        self._changed.set()

    def _take(self, message: Message) -> None:
        try:
            sent = codec.decode(message.data, Sent, limit=_MAX_SENT)
        except ProtocolError:
            return  # anybody may publish there
        if sent.run < self._runs.get(sent.step, 0):
            return  # of a holder that has lost the task
        self._runs[sent.step] = sent.run
        self._heard.append((sent, len(message.data)))
        self._size += len(message.data)
        while self._size > MAX_KEPT:
            self._size -= self._heard.popleft()[1]
        self._changed.set()


def _value(decoder: msgspec.json.Decoder[Any], sent: Sent, kind: Any) -> Any:
    try:
        return decoder.decode(sent.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"chunk {sent.number} of step {sent.step!r} does not fit {type_name(kind)}: {error}",
            code="SG1102",
            fix="read the chunks as the type that the handler emits",
        ) from error
