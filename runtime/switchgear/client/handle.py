"""A handle on one task: its status, its events as they happen, its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from switchgear.bus.port import Bus, Message
from switchgear.client import events
from switchgear.client.status import status_of
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Progress, TaskRow
from switchgear.errors import ProtocolError, WaitTimeout
from switchgear.lifecycle.history import History
from switchgear.tasks import outcome
from switchgear.tasks.watch import Watch

Out = TypeVar("Out")
T = TypeVar("T")


class TaskHandle(Generic[Out]):
    """A task that was submitted, here or elsewhere."""

    def __init__(self, bus: Bus, watch: Watch, scope: str, output: Any) -> None:
        self._bus = bus
        self._watch = watch
        self._scope = scope
        self._output = output
        self._ended: asyncio.Future[History] | None = None
        self.id = scope.split(".")[4]
        """The task's id."""
        self.capability = scope.split(".")[2]

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
        return await status_of(self._bus.ledger, self._scope.split(".")[3], self.id)

    async def events(self) -> AsyncIterator[events.TaskEvent]:
        """Everything that happened to the task and, until its end, everything that happens, in order."""
        arrived: asyncio.Queue[Progress | None] = asyncio.Queue()

        def reported(message: Message) -> None:
            with contextlib.suppress(ProtocolError):
                arrived.put_nowait(codec.decode(message.data, Progress, limit=limits.MAX_PROGRESS))

        def moved(_: object) -> None:
            arrived.put_nowait(None)

        reports = await self._bus.core.subscribe(subjects.progress(self._scope), reported)
        followed = self._watch.follow(self._scope, fresh=False)
        followed.watchers.append(moved)
        shown = 0
        moved(None)
        try:
            while True:
                reports_so_far = [await arrived.get()]
                while not arrived.empty():
                    reports_so_far.append(arrived.get_nowait())
                history = History(self._scope) if followed.missing() else followed.history()
                news = [valid for valid in history.valid if valid.stored.sequence > shown]
                end = [news.pop()] if news and history.ended else []
                for valid in news:
                    yield events.of_entry(valid)
                for report in reports_so_far:
                    if report is not None:
                        yield events.of_progress(report)
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
