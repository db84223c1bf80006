"""Calls: a child whose result the handler waits for, at once or through a handle."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from switchgear.agent.children import Child, Submitted
from switchgear.agent.digests import of_values
from switchgear.contract import codec, entries, subjects
from switchgear.contract.values import Awaited
from switchgear.errors import Overloaded, TaskFailed, WaitTimeout
from switchgear.tasks import outcome, payload
from switchgear.tasks.handle import TaskHandle
from switchgear.tasks.payload import Payload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from switchgear.agent.run import Run
    from switchgear.contract.capability import AnyCapability
    from switchgear.lifecycle.history import History
    from switchgear.tasks.chunks import Chunk
    from switchgear.tasks.events import TaskEvent
    from switchgear.tasks.submission import Opening

Out = TypeVar("Out")
T = TypeVar("T")

TOGETHER: ContextVar[str] = ContextVar("switchgear_together", default="")
"""The mark of the `gather` that a call is an argument of."""


async def call(
    run: Run, wanted: AnyCapability, value: Any, key: str, timeout: timedelta | None
) -> Any:
    """The child's result, recorded. Raises TaskFailed, WaitTimeout; left early, the child is cancelled."""
    data = payload.encode_value(value, f"the input of {wanted.name}")
    digest = of_values(wanted.name, msgspec.Raw(data))
    run.children.count(1)
    found = run.recording.find(key, "call", digest)
    if found is not None:
        return await run.recording.value(found, wanted.output)
    await run.begin()
    with run.waits.working():
        child = Child(run.children.id_of("child", key), key)
        stored = await payload.store(run.attempt.bus.blobs, data)
        opened = run.children.opening(wanted, stored, child)
        began = run.since(key, child.task)
        try:
            history = await _result_of(run, opened, key, timeout)
            end = history.end
            if not isinstance(end, entries.Completed):
                raise outcome.failure(history)
        except (Overloaded, TaskFailed, WaitTimeout) as error:
            took = run.attempt.clock.now() - began
            await run.recording.failed(key, "call", digest, error, duration=took)
            raise
        took = run.attempt.clock.now() - began
        ended = Payload(end.output, end.output_blob)
        await run.recording.done(key, "call", digest, ended, duration=took)
        return await outcome.result(run.attempt.bus, history, wanted.output)


async def _result_of(run: Run, opened: Opening, key: str, timeout: timedelta | None) -> History:
    """Submit the child and wait for its end; whoever leaves before cancels it."""
    finished = False
    known = run.waited_before(key, opened.entry.task)
    run.children.open[opened.scope] = None
    try:
        history = await ended(run, opened.scope, key, timeout, None if known else opened)
        finished = True
    except WaitTimeout:
        raise WaitTimeout(
            f"{opened.entry.task} of {opened.parts.capability} did not end within {timeout}",
            fix="give the call a longer `timeout=`",
        ) from None
    finally:
        if finished:
            run.children.ended(opened.scope)
        else:
            await asyncio.shield(run.children.abandon([opened.scope], "its caller left"))
    return history


async def ended(
    run: Run,
    scope: str,
    key: str,
    timeout: timedelta | None,
    opened: Opening | None = None,
) -> History:
    """Wait for a child's end; `opened`: submit it first. Raises WaitTimeout, whose times count from the first run."""
    now = run.attempt.clock.now()
    awaited = run.begun(key, _awaited(scope, key, now, timeout))
    watch, live = run.services.watch, subjects.live_task(scope)
    await watch.open(live)
    followed = watch.follow(scope, fresh=opened is not None)
    over = False
    try:
        if opened is not None:
            answer = await run.children.send(opened)
            if await run.children.stands(opened, answer):
                watch.begun(followed, opened.acknowledged(answer.sequence))  # type: ignore[union-attr]  # it is new
            else:
                watch.read(followed)
        left = None if awaited.until is None else (awaited.until - now).total_seconds()
        limit = asyncio.timeout(None if left is None else max(left, 0))
        try:
            async with limit:
                history = await run.waits.wait(awaited, asyncio.shield(followed.ended))
        except TimeoutError:
            if not limit.expired():
                raise
            history = await run.children.history(scope)  # it may have ended before this run began
            if history.ended is None:
                raise WaitTimeout(
                    f"{awaited.capability} task {awaited.task} did not end within {timeout}"
                ) from None
        else:
            over = True
    finally:
        if not over:
            watch.forget(scope)
        await watch.shut(live)
    return history


def _awaited(scope: str, key: str, now: datetime, timeout: timedelta | None) -> Awaited:
    """The wait for a child, as it begins."""
    return Awaited(
        key=key,
        kind="child",
        begun=now,
        until=None if timeout is None else now + timeout,
        capability=scope.split(".")[2],
        task=scope.split(".")[4],
        together=TOGETHER.get(),
    )


async def submit(
    run: Run, wanted: AnyCapability, value: Any, key: str, *, detached: bool
) -> ChildHandle[Any]:
    """Start a child, recorded at once."""
    data = payload.encode_value(value, f"the input of {wanted.name}")
    digest = of_values(wanted.name, msgspec.Raw(data), detached)
    run.children.count(1)
    found = run.recording.find(key, "submit", digest)
    if found is not None:
        made = await run.recording.value(found, Submitted)
        scope = run.children.scope(wanted.name, made.task)
        if not detached:
            run.children.open[scope] = None
        return ChildHandle(run, scope, wanted.output, key)
    await run.begin()
    with run.waits.working():
        child = Child(run.children.id_of("child", key), key, detached=detached)
        stored = await payload.store(run.attempt.bus.blobs, data)
        opened = run.children.opening(wanted, stored, child)
        await run.children.submit(opened)
        made = Submitted(child.task, wanted.name, detached)
        recorded = Payload(msgspec.Raw(codec.encode(made)))
        await run.recording.done(key, "submit", digest, recorded)
    return ChildHandle(run, opened.scope, wanted.output, key)


class ChildHandle(TaskHandle[Out]):
    """A child that was submitted: waiting for its result gives up the slot as every wait does."""

    def __init__(self, run: Run, scope: str, output: Any, key: str) -> None:
        attempt = run.attempt
        super().__init__(attempt.bus, run.services.watch, scope, output, clock=attempt.clock)
        self._run = run
        self._key = key

    async def events(self) -> AsyncIterator[TaskEvent]:
        """As `TaskHandle.events`."""
        async with self._live():
            async for event in super().events():
                yield event

    @overload
    def chunks(self) -> AsyncIterator[Chunk[Any]]: ...

    @overload
    def chunks(self, kind: type[T]) -> AsyncIterator[Chunk[T]]: ...

    async def chunks(self, kind: Any = object) -> AsyncIterator[Chunk[Any]]:
        """As `TaskHandle.chunks`."""
        async with self._live():
            async for chunk in super().chunks(kind):
                yield chunk

    @contextlib.asynccontextmanager
    async def _live(self) -> AsyncGenerator[None]:
        """Hear of the child alone: an instance follows nobody's tasks by itself."""
        watch, live = self._run.services.watch, subjects.live_task(self._scope)
        await watch.open(live)
        try:
            yield
        finally:
            await watch.shut(live)

    async def _end_within(self, timeout: timedelta | None) -> History:
        run = self._run
        await run.begin()
        with run.waits.working():
            history = await ended(run, self._scope, self._key, timeout)
            run.children.ended(self._scope)
            return history
