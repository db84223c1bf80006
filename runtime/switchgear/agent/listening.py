"""Hears topics and answers direct requests for one instance: core messages, at most once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.contract import codec, limits, subjects
from switchgear.contract.capability import type_name
from switchgear.contract.queries import Problem, TopicMessage
from switchgear.contract.topic import Message
from switchgear.errors import InvalidInput, Overloaded, ProtocolError, SwitchgearError
from switchgear.resilience.classify import classify

if TYPE_CHECKING:
    from switchgear.agent.declare import Agent
    from switchgear.agent.listener import Listener, Responder
    from switchgear.bus import port
    from switchgear.clock import Clock

log = logging.getLogger(__name__)

AT_A_TIME = 16
"""Messages that one function is handling at a time."""
MAX_BACKLOG = 1000
"""Messages that wait for it; beyond that they are dropped, or refused."""
_LIMIT = limits.MAX_MESSAGE + 16 * limits.KIB
"""Bytes of a message's body: its value and what is around it."""


class Backlog:
    """What one function is given faster than it handles it."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Do this when there is a slot. Returns False, and does nothing, where too much waits already."""
        if len(self._tasks) >= MAX_BACKLOG + AT_A_TIME:
            return False
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def stop(self) -> None:
        """Let go of what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._slots:
            await work()


class Listening:
    """The listeners and the responder of one instance. `start`, then `stop`."""

    def __init__(self, agent: Agent, bus: port.Bus, clock: Clock) -> None:
        self._agent = agent
        self._bus = bus
        self._clock = clock
        self._backlogs: list[Backlog] = []
        self._subscriptions: list[port.Subscription] = []

    async def start(self) -> None:
        """Subscribe what the agent declares."""
        name = self._agent.name
        for one in self._agent.listeners:
            heard = self._heard(one)
            place = subjects.topic if one.topic.durable else subjects.cast
            for subject in (place(one.topic.name), place(one.topic.name, name)):
                self._subscriptions.append(await self._bus.core.subscribe(subject, heard))
        if self._agent.responder is not None:
            asked = self._asked(self._agent.responder)
            subject = subjects.request(name)
            self._subscriptions.append(
                await self._bus.core.subscribe(subject, asked, queue=f"respond-{name}")
            )

    async def stop(self) -> None:
        """Hear no more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            with contextlib.suppress(SwitchgearError):
                await subscription.unsubscribe()
        for backlog in self._backlogs:
            await backlog.stop()

    def _backlog(self) -> Backlog:
        backlog = Backlog()
        self._backlogs.append(backlog)
        return backlog

    def _heard(self, listener: Listener[Any]) -> Callable[[port.Message], None]:
        backlog = self._backlog()
        name = listener.topic.name

        def receive(message: port.Message) -> None:
            if not backlog.begin(lambda: self._listen(listener, message)):
                log.warning("listener.dropped a message on %s: %d wait", name, MAX_BACKLOG)

        return receive

    async def _listen(self, listener: Listener[Any], message: port.Message) -> None:
        name = listener.topic.name
        try:
            heard, value = _read(message, listener.topic.type)
            if heard.expires is not None and heard.expires <= self._clock.now():
                log.info("listener.expired %s on %s", heard.id, name)
                return
            await listener.handler(value, Message(heard.id, heard.sender, heard.time))
        except (InvalidInput, ProtocolError) as error:
            log.warning("listener.message-refused on %s: %s", name, error)
        except Exception:
            log.exception("listener.failed on %s", name)

    def _asked(self, responder: Responder[Any, Any]) -> Callable[[port.Message], None]:
        backlog = self._backlog()

        def receive(message: port.Message) -> None:
            if message.reply and not backlog.begin(lambda: self._respond(responder, message)):
                busy = Overloaded(f"{self._agent.name} has too many requests", retry_after=1.0)
                self._bus.core.publish(message.reply, codec.encode(_problem(busy)))

        return receive

    async def _respond(self, responder: Responder[Any, Any], message: port.Message) -> None:
        try:
            asked, question = _read(message, responder.question)
            if asked.expires is not None and asked.expires <= self._clock.now():
                return  # nobody waits any more
            made = await responder.handler(question, Message(asked.id, asked.sender, asked.time))
            answer = codec.encode(made)
            codec.decoder(responder.answer).decode(answer)
        except Exception as error:
            if not isinstance(error, SwitchgearError):
                log.exception("responder.failed %s", self._agent.name)
            answer = codec.encode(_problem(error))
        self._bus.core.publish(message.reply, answer)


def _read(message: port.Message, kind: Any) -> tuple[TopicMessage, Any]:
    """The message and its value. Raises ProtocolError, InvalidInput."""
    heard = codec.decode(message.data, TopicMessage, limit=_LIMIT)
    try:
        return heard, codec.decoder(Any if kind is object else kind).decode(heard.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text, _, path = str(error).partition(" - at ")
        raise InvalidInput(
            f"the value does not fit {type_name(kind)}: {text}",
            path=path.strip("`") or "$",
            fix="send what the function's annotation says",
        ) from error


def _problem(error: Exception) -> Problem:
    failure = classify(error)
    return Problem(
        code=failure.code,
        what=failure.message,
        why=failure.why,
        fix=failure.fix,
        retry_after=failure.retry_after,
    )
