"""What clients say to agents beside tasks: messages on topics, and direct requests."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, TypeVar, overload

from msgspec import MsgspecError, Raw

from switchgear import ids
from switchgear.client.feed import Feed
from switchgear.client.rollouts import Rollouts
from switchgear.client.schedules import Schedules
from switchgear.client.view import View
from switchgear.clock import milliseconds
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Problem, TopicMessage
from switchgear.contract.topic import Topic
from switchgear.errors import ProtocolError, UsageError
from switchgear.tasks import asking, payload

T = TypeVar("T")

_CODE = re.compile(r"SG\d{4}")


class Messaging(View):
    """A connection that talks."""

    @property
    def schedules(self) -> Schedules:
        """Tasks that are submitted again and again, at the times of a cron expression."""
        return Schedules(self)

    @property
    def rollouts(self) -> Rollouts:
        """On which executor the steps of a capability run."""
        return Rollouts(self)

    @overload
    async def publish(
        self,
        topic: Topic[T],
        value: T,
        *,
        key: str | None = None,
        to: str | None = None,
        priority: str = "normal",
        ttl: timedelta | None = None,
    ) -> str: ...

    @overload
    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str | None = None,
        to: str | None = None,
        priority: str = "normal",
        ttl: timedelta | None = None,
    ) -> str: ...

    async def publish(
        self,
        topic: Topic[Any] | str,
        value: Any,
        *,
        key: str | None = None,
        to: str | None = None,
        priority: str = "normal",
        ttl: timedelta | None = None,
    ) -> str:
        """Publish a message on a topic; returns its id. A topic that is given by its name is durable.

        A durable one is stored when this returns, and starts a task of each capability that it triggers; of others
        only who listens now hears. `key`: however often it is published, each task is started once. `to`: only for
        this agent. `priority`: of the tasks. `ttl`: dropped when it is older (default: the topic's). Raises
        UsageError for a value that is no JSON, not of the topic's type or above 256 KiB, ProtocolError SG1107 for a
        name that is no token, Unavailable.
        """
        name = subjects.token(topic if isinstance(topic, str) else topic.name, "topic")
        if to is not None:
            subjects.token(to, "agent")
        if priority not in subjects.PRIORITIES:
            raise UsageError(f"{priority!r} is no priority", fix="use high, normal or low")
        given = ttl or (None if isinstance(topic, str) else topic.ttl)
        if given is not None and given <= timedelta():
            raise UsageError(f"a message with a ttl of {given} is over at once")
        message_id = ids.derived_id("message", self.principal, name, key) if key else ""
        message = self._message(f"a message on {name}", value, message_id, priority, given)
        if not isinstance(topic, str):
            _fits(topic, message)
        data = codec.encode(message)
        await self._ready()
        if isinstance(topic, str) or topic.durable:
            await self.bus.topics.publish(subjects.topic(name, to), data, id=message.id, ttl=given)
        else:
            self.bus.core.publish(subjects.cast(name, to), data)
        return message.id

    async def request(
        self, agent: str, value: Any, answer: type[T], *, timeout: timedelta = asking.PATIENCE
    ) -> T:
        """Ask one of an agent's instances; its answer, stored nowhere.

        Raises Unavailable when no instance listens or none answers in time, what the agent answers instead,
        ProtocolError for an answer that is not of this type, UsageError for a value that is no JSON or above 256 KiB.
        """
        subject = subjects.request(subjects.token(agent, "agent"))
        message = self._message(f"a request to {agent}", value, "", "normal", timeout)
        await self._ready()
        data = await self.bus.core.request(subject, codec.encode(message), timeout=timeout)
        problem = _problem(data)
        if problem is not None:
            raise asking.error_of(problem)
        return codec.decode(data, answer, limit=asking.MAX_ANSWER)

    @overload
    def subscribe(self, topic: Topic[T]) -> Feed[T]: ...

    @overload
    def subscribe(self, topic: str) -> Feed[Any]: ...

    def subscribe(self, topic: Topic[Any] | str) -> Feed[Any]:
        """Hear a topic live: `async for value, message in mesh.subscribe(topic)`.

        From the first step on; `async with mesh.subscribe(topic) as feed` misses nothing from its beginning on.
        """
        return Feed(self.bus.core, self._clock, topic)

    async def _ready(self) -> None:
        """What has to be there before a message is sent; a real mesh is."""

    def _message(
        self, what: str, value: Any, message_id: str, priority: str, ttl: timedelta | None
    ) -> TopicMessage:
        data = payload.encode_value(value, what)
        if len(data) > limits.MAX_MESSAGE:
            raise UsageError(
                f"{what} has {len(data)} bytes",
                why=f"{limits.MAX_MESSAGE} are the limit",
                fix="submit a task with it, or publish where it can be fetched",
            )
        now = self._clock.now()
        return TopicMessage(
            id=message_id or ids.new_id(milliseconds(now)),
            sender=self.principal,
            time=now,
            value=Raw(data),
            priority=priority,
            expires=None if ttl is None else now + ttl,
        )


def _fits(topic: Topic[Any], message: TopicMessage) -> None:
    try:
        codec.decoder(topic.type).decode(bytes(message.value))
    except MsgspecError as error:
        raise UsageError(
            f"the value does not fit the topic {topic.name}",
            why=str(error),
            fix=f"publish a {getattr(topic.type, '__name__', topic.type)}",
        ) from None


def _problem(data: bytes) -> Problem | None:
    """The error that an agent answers with; None for a value, also one that has fields of the same names."""
    try:
        found = codec.decode(data, Problem)
    except ProtocolError:
        return None
    return found if _CODE.fullmatch(found.code) else None
