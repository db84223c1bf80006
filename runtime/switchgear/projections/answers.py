"""Answers to core requests: lists, timelines and dead letters from the read model, to each principal its own.

Whatever arrives is answered, if only by a Problem: raw clients send anything. How far the read
model is behind the ledger is asked of the ledger for every answer.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec.structs import replace

from switchgear import errors
from switchgear.contract import codec, limits, queries, subjects
from switchgear.contract.dead_letters import DeadGroups, DeadQuery
from switchgear.contract.rollout import RolloutCounts, RolloutCountsQuery
from switchgear.projections.lists import Reader
from switchgear.projections.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from switchgear.bus.port import Bus, Message

QUEUE = "observe"
"""Replicas share the requests: each has a file of its own."""
READERS = 2
"""Queries that run at the same time."""
MAX_WAITING = 256
"""Requests being answered; more are refused, to be asked again later."""
MAX_ANSWER = 1000 * limits.KIB
"""Bytes of an answer; below nats-server's `max_payload` of 1 MiB."""
RETRY_AFTER = 1.0
"""Seconds that a refused client waits."""
_MAX_SHOWN = 1000

log = logging.getLogger(__name__)
T = TypeVar("T")
Answer = queries.TaskList | queries.Timeline | DeadGroups | RolloutCounts


class Answers:
    """The subscriptions on what the read model answers, `sg.api.list.*` and others, while entered."""

    def __init__(self, bus: Bus, path: Path, doubt: Callable[[], None]) -> None:
        """`doubt` is called when the ledger ends before what was read of it."""
        self._bus = bus
        self._path = path
        self._doubt = doubt
        self._readers: asyncio.Queue[Reader] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for _ in range(READERS):
                reader = Reader(self._path)
                stack.callback(reader.close)
                self._readers.put_nowait(reader)
            stack.push_async_callback(self._stop_answering)
            for verb, answer in (
                ("list", self.list),
                ("timeline", self.timeline),
                ("dead", self.dead),
                ("rollout-counts", self.rollout),
            ):
                subscription = await self._bus.core.subscribe(
                    subjects.api_filter(verb), self._receiver(answer), queue=QUEUE
                )
                stack.push_async_callback(subscription.unsubscribe)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def list(self, principal: str, data: bytes) -> queries.TaskList:
        """The principal's tasks. Raises SwitchgearError."""
        query = codec.decode(data, queries.ListQuery)
        page = await self._read(lambda reader: reader.tasks(principal, query))
        lag = await self._lag(page.cursor)
        return queries.TaskList(tasks=page.tasks, lag=lag, more=page.more)

    async def timeline(self, principal: str, data: bytes) -> queries.Timeline:
        """A page of the entries of one of the principal's runs. Raises SwitchgearError."""
        query = codec.decode(data, queries.TimelineQuery)
        found = await self._read(lambda reader: reader.timeline(principal, query.root, query.after))
        lag = await self._lag(found.cursor)
        return queries.Timeline(moments=found.moments, lag=lag, more=found.more)

    async def dead(self, principal: str, data: bytes) -> DeadGroups:
        """The principal's dead tasks by cause. Raises SwitchgearError."""
        query = codec.decode(data, DeadQuery)
        found = await self._read(lambda reader: reader.dead(principal, query))
        lag = await self._lag(found.cursor)
        return DeadGroups(groups=found.groups, lag=lag, more=found.more)

    async def rollout(self, principal: str, data: bytes) -> RolloutCounts:
        """What came of a rollout's decisions, over all owners. Raises SwitchgearError."""
        query = codec.decode(data, RolloutCountsQuery)
        counts, cursor = await self._read(lambda reader: reader.decisions(principal, query))
        return replace(counts, lag=await self._lag(cursor))

    async def _read(self, ask: Callable[[Reader], T]) -> T:
        reader = await self._readers.get()
        try:
            return await in_thread(ask, reader)
        finally:
            self._readers.put_nowait(reader)

    async def _lag(self, cursor: int) -> int:
        """Entries of the ledger that an answer from this cursor lacks; asked after it was read."""
        last = await self._bus.ledger.last_sequence()
        if last < cursor:
            self._doubt()
            raise errors.Unavailable(
                "the read model is being rebuilt",
                why="the ledger was rolled back or made anew",
                fix="ask again in a moment",
                retry_after=RETRY_AFTER,
            )
        return last - cursor

    def _receiver(
        self, answer: Callable[[str, bytes], Awaitable[Answer]]
    ) -> Callable[[Message], None]:
        def receive(message: Message) -> None:
            if not message.reply:
                return
            if len(self._answering) >= MAX_WAITING:
                refusal = errors.Unavailable(
                    "too many queries at once", fix="ask again later", retry_after=RETRY_AFTER
                )
                self._bus.core.publish(message.reply, codec.encode(problem(refusal)))
                return
            task = asyncio.create_task(self._reply(message, answer))
            self._answering.add(task)
            task.add_done_callback(self._answered)

        return receive

    async def _reply(
        self, message: Message, answer: Callable[[str, bytes], Awaitable[Answer]]
    ) -> None:
        try:
            _, principal = subjects.parse_api(message.subject)
            body = codec.encode(await answer(principal, message.data))
            if len(body) > MAX_ANSWER:
                raise _too_long()
        except errors.SwitchgearError as error:
            body = codec.encode(problem(error))
        except sqlite3.Error as error:
            log.warning("observe.unreadable: %s", error)
            body = codec.encode(
                problem(errors.Unavailable("the read model cannot be read", why=str(error)))
            )
        self._bus.core.publish(message.reply, body)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("observe.answer-failed", exc_info=error)

    async def _stop_answering(self) -> None:
        for task in self._answering:
            task.cancel()
        if self._answering:
            await asyncio.wait(tuple(self._answering))


def problem(error: errors.SwitchgearError) -> queries.Problem:
    """The error as an answer."""
    return queries.Problem(
        code=error.code,
        what=error.what[:_MAX_SHOWN],
        why=error.why[:_MAX_SHOWN],
        fix=error.fix[:_MAX_SHOWN],
        retry_after=error.retry_after if isinstance(error, errors.Unavailable) else None,
    )


def _too_long() -> errors.ProtocolError:
    return errors.ProtocolError(
        "the answer is larger than a message can be",
        code="SG1103",
        fix="ask for less at a time",
    )
