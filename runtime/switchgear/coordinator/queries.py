"""Answers what clients and agents ask coordinators, any replica for all: `sg.api.<verb>.<principal>`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from switchgear.bus.port import Bus, Message, Subscription
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Problem
from switchgear.errors import SwitchgearError

log = logging.getLogger(__name__)

QUEUE = "coordinators"


class Verb(NamedTuple):
    """One kind of query."""

    name: str
    query: type[Any]
    answer: Callable[[str, Any], Awaitable[Any]]
    """From the asking principal and its query; a SwitchgearError is answered as a Problem."""


class Queries:
    """The queries' shell: decodes, answers, and turns every error into a Problem."""

    def __init__(self, bus: Bus, *verbs: Verb) -> None:
        self._bus = bus
        self._verbs = verbs
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer."""
        for verb in self._verbs:
            self._subscriptions.append(
                await self._bus.core.subscribe(
                    subjects.api_filter(verb.name), self._receiver(verb), queue=QUEUE
                )
            )

    async def stop(self) -> None:
        """Answer nothing more."""
        for subscription in self._subscriptions:
            with contextlib.suppress(SwitchgearError):
                await subscription.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _receiver(self, verb: Verb) -> Callable[[Message], None]:
        def receive(message: Message) -> None:
            task = asyncio.create_task(self._answer(verb, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return receive

    async def _answer(self, verb: Verb, message: Message) -> None:
        if not message.reply:
            return
        try:
            _, principal = subjects.parse_api(message.subject)
            query = codec.decode(message.data or b"{}", verb.query)
            answer = await verb.answer(principal, query)
        except SwitchgearError as error:
            answer = _problem(error)
        except Exception as error:
            log.exception("query.failed %s", message.subject)
            answer = Problem(code=SwitchgearError.code, what=f"{type(error).__name__}: {error}")
        data = codec.encode(answer)
        if len(data) > limits.MAX_ENTRY:
            data = codec.encode(_too_large(message.subject, len(data)))
        self._bus.core.publish(message.reply, data)


def _problem(error: SwitchgearError) -> Problem:
    after: object = getattr(error, "retry_after", None)
    return Problem(
        code=error.code,
        what=error.what[: limits.MAX_TEXT],
        why=error.why[: limits.MAX_TEXT],
        fix=error.fix[: limits.MAX_TEXT],
        retry_after=float(after) if isinstance(after, int | float) else None,
    )


def _too_large(subject: str, size: int) -> Problem:
    return Problem(
        code="SG1103",
        what=f"the answer to {subject} has {size} bytes",
        why=f"{limits.MAX_ENTRY} are the limit",
        fix="ask for less at a time",
    )
