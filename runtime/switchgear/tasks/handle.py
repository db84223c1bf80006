"""A handle on one task: its status, its events as they happen, its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from switchgear.bus.port import Bus, Message, Subscription
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Progress, Retried, RetryQuery, TaskRow
from switchgear.errors import ProtocolError, SwitchgearError, WaitTimeout
from switchgear.lifecycle.history import History
from switchgear.tasks import asking, events, outcome, requests, signalling
from switchgear.tasks.chunks import Chunk, ChunkFeed
from switchgear.tasks.status import status_of
from switchgear.tasks.watch import Watch

Out = TypeVar("Out")
T = TypeVar("T")

_MAX_REPORT = limits.MAX_PROGRESS


class TaskHandle(Generic[Out]):
    """A task that was submitted, here or elsewhere."""

    def __init__(
        self,
        bus: Bus,
        watch: Watch,
        scope: str,
        output: Any,
        *,
        clock: Clock = SYSTEM,
        principal: str = "",
    ) -> None:
        """`principal`: who acts by this handle; empty: the task's owner."""
        self._bus = bus
        self._watch = watch
        self._scope = scope
        self._output = output
        self._clock = clock
        self._ended: asyncio.Future[History] | None = None
        self._feed: ChunkFeed | None = None
        _, _, self.capability, self._owner, self.id, _ = scope.split(".")
        self._principal = principal or self._owner

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r}, {self.capability!r})"

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> Out: ...

    @overload
    async def result(self, output: type[T], *, timeout: timedelta | None = None) -> T: ...

    async def result(self, output: Any = None, *, timeout: timedelta | None = None) -> Any:
        """Wait for the result, read as `output` or as the capability's type.

        Raises TaskFailed (TaskRejected, TaskDead, TaskCancelled, TaskExpired), WaitTimeout (the task goes on),
        ProtocolError for a result of another type.
        """
        history = await self._end_within(timeout)
        kind = self._output if output is None else output
        return await outcome.result(self._bus, history, kind)

    async def status(self) -> TaskRow:
        """What the newest entry says of the task: one read."""
        return await status_of(self._bus.ledger, self._owner, self.id)

    async def progress(self) -> Progress | None:
        """The newest progress of the task, as the broker keeps it for an hour; None where there is none.

        Raises Unavailable.
        """
        data = await self._bus.core.newest(subjects.progress(self._scope))
        with contextlib.suppress(ProtocolError):  # anybody may publish there
            return None if data is None else codec.decode(data, Progress, limit=_MAX_REPORT)
        return None

    async def cancel(self, reason: str = "") -> bool:
        """Ask for the task's end; it ends as cancelled once its handler has left and what it registered is undone.

        False where it had ended, or was being cancelled before. Raises NotFound, Unavailable.
        """
        return await requests.request_cancel(self._bus, self._clock, self._scope, reason)

    async def signal(self, name: str, value: Any = None) -> int:
        """Send the task a signal; a wait for this name takes it, now or later. Returns its place in the ledger.

        Raises Conflict for a task that has ended, Forbidden where it waits for a group that the sender is not in,
        UsageError for a value that is no JSON or beyond 256 KiB, Unavailable.
        """
        sender = self._principal
        return await signalling.signal(
            self._bus, self._clock, self.id, name, value, principal=sender
        )

    async def retry_now(self) -> Retried:
        """Let a task that waits for its next attempt, or for its start, begin now.

        Raises NotFound, Conflict for a task that waits for something else, Unavailable.
        """
        query = RetryQuery(task=self.id)
        return await asking.ask(self._bus.core, "retry", self._principal, query, Retried)

    @overload
    def chunks(self) -> AsyncIterator[Chunk[Any]]: ...

    @overload
    def chunks(self, kind: type[T]) -> AsyncIterator[Chunk[T]]: ...

    async def chunks(self, kind: Any = object) -> AsyncIterator[Chunk[Any]]:
        """What the handler emits from now on (with `submit(…, live=True)`: from its beginning), until its end.

        Chunks are live only: what was sent while nobody listened is gone. Raises ProtocolError for a value of
        another type, Unavailable.
        """
        feed, self._feed = self._feed or ChunkFeed(self._bus, self._scope), None
        await feed.open()
        ended, followed = self._ended, None
        if ended is None:
            followed = self._watch.follow(self._scope, fresh=False)
            ended = followed.ended
        try:
            async for chunk in feed.read(ended, kind):
                yield chunk
        finally:
            await feed.close()
            if followed is not None:
                self._watch.forget(self._scope)

    async def events(self) -> AsyncIterator[events.TaskEvent]:
        """Everything that happened to the task and, until its end, everything that happens, in order.

        Of the progress so far the newest report is told.
        """
        arrived: asyncio.Queue[Progress | None] = asyncio.Queue()
        reports = await self._report_to(arrived)

        def moved(_: object) -> None:
            arrived.put_nowait(None)

        followed = self._watch.follow(self._scope, fresh=False)
        followed.watchers.append(moved)
        shown = 0
        reports_so_far: list[Progress | None] = []
        moved(None)
        try:
            while True:
                reports_so_far.append(await arrived.get())
                while not arrived.empty():
                    reports_so_far.append(arrived.get_nowait())
                history = History(self._scope) if followed.missing() else followed.history()
                news = [valid for valid in history.valid if valid.stored.sequence > shown]
                end = [news.pop()] if news and history.ended else []
                for valid in news:
                    yield events.of_entry(valid)
                if history.valid:  # else the read that tells what came before is under way
                    for report in filter(None, reports_so_far):
                        yield events.of_progress(report)
                    reports_so_far.clear()
                for valid in end:
                    yield events.of_entry(valid)
                    return
                if followed.ended.done() and not followed.ended.cancelled():
                    followed.ended.result()  # raises when the mesh was closed meanwhile
                shown = history.last_valid or shown
        finally:
            followed.watchers.remove(moved)
            self._watch.forget(self._scope)
            await reports.unsubscribe()

    async def _report_to(self, arrived: asyncio.Queue[Progress | None]) -> Subscription:
        """Hear the task's reports, the newest of those so far first."""

        def reported(message: Message) -> None:
            with contextlib.suppress(ProtocolError):
                arrived.put_nowait(codec.decode(message.data, Progress, limit=_MAX_REPORT))

        subscription = await self._bus.core.subscribe(subjects.progress(self._scope), reported)
        with contextlib.suppress(SwitchgearError):  # the ledger tells what counts
            newest = await self.progress()
            if arrived.empty():
                arrived.put_nowait(newest)
        return subscription

    async def _end_within(self, timeout: timedelta | None) -> History:
        if timeout is None:
            return await asyncio.shield(self._ending())
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await asyncio.shield(self._ending())
        except TimeoutError:
            raise WaitTimeout(
                f"{self.capability} task {self.id} did not end within {timeout}"
            ) from None

    async def ended(self) -> int:
        """Wait for the end, whatever it is; returns its place in the ledger."""
        return (await asyncio.shield(self._ending())).last_valid

    def _ending(self) -> asyncio.Future[History]:
        if self._ended is None:
            self._ended = self._watch.follow(self._scope, fresh=False).ended
        return self._ended

    def expect(self, ended: asyncio.Future[History]) -> None:
        """The task is followed since before it was submitted (the mesh's own)."""
        self._ended = ended

    async def listen(self, ended: asyncio.Future[History]) -> None:
        """Keep the chunks from now on for `chunks`; before the submission (the mesh's own). Raises Unavailable."""
        self._feed = ChunkFeed(self._bus, self._scope)
        await self._feed.open()
        self._feed.close_with(ended)
