"""Hearing a topic: its messages as they are published, from now on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar

from switchgear.bus import port
from switchgear.clock import Clock
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import TopicMessage
from switchgear.contract.topic import Message, Topic
from switchgear.errors import ProtocolError, SwitchgearError

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Messages that wait for a slow reader; beyond it the oldest are dropped."""
_REMEMBERED = 1024
"""Ids by which a message that was published twice is heard once."""


class Feed(Generic[T]):
    """A topic's messages, as pairs of value and `Message`.

    `async for value, message in feed` hears from its first step on; inside `async with feed` nothing is missed from
    the block's beginning on. Live only: what was published before is not heard, nor what is addressed to one agent;
    expired messages and values that are not of the topic's type are dropped.
    """

    def __init__(self, core: port.Core, clock: Clock, topic: Topic[T] | str) -> None:
        """Of a topic; of one that is given by its name alone, durable or not, values are plain data."""
        name = topic if isinstance(topic, str) else topic.name
        subjects.token(name, "topic")
        both = (subjects.topic(name), subjects.cast(name))
        self._subjects = both if isinstance(topic, str) else both[:1] if topic.durable else both[1:]
        self._decoder = codec.decoder(Any if isinstance(topic, str) else topic.type)
        self._core = core
        self._clock = clock
        self._waiting: deque[tuple[T, Message]] = deque(maxlen=MAX_WAITING)
        self._arrived = asyncio.Event()
        self._heard: dict[str, None] = {}
        self._subscriptions: list[port.Subscription] = []

    async def __aenter__(self) -> Self:
        """Begin to hear. Raises Unavailable."""
        for subject in self._subjects:
            self._subscriptions.append(await self._core.subscribe(subject, self._hear))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Hear no more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for one in subscriptions:
            with contextlib.suppress(SwitchgearError):
                await one.unsubscribe()

    async def __aiter__(self) -> AsyncIterator[tuple[T, Message]]:
        """The messages, without end."""
        async with contextlib.AsyncExitStack() as stack:
            if not self._subscriptions:
                await stack.enter_async_context(self)
            while True:
                while self._waiting:
                    yield self._waiting.popleft()
                self._arrived.clear()
                await self._arrived.wait()

    def _hear(self, heard: port.Message) -> None:
        try:
            message = codec.decode(heard.data, TopicMessage, limit=limits.MAX_ENTRY)
            value: T = self._decoder.decode(bytes(message.value))
        except (ProtocolError, ValueError, RecursionError) as error:
            log.warning("client.message-refused %s: %s", heard.subject, error)
            return
        if message.id in self._heard:
            return
        self._heard[message.id] = None
        if len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        if message.expires is not None and self._clock.now() >= message.expires:
            return
        if len(self._waiting) == MAX_WAITING:
            log.warning("client.message-dropped %s: nobody reads", heard.subject)
        self._waiting.append((value, Message(message.id, message.sender, message.time)))
        self._arrived.set()
