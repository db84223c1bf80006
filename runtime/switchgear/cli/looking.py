"""Looking at tasks: lists, one task, its events as they happen, its result, why it is where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from switchgear.cli import exits
from switchgear.cli.common import COORDINATOR, READ_MODEL, Common, answered_by, joined
from switchgear.clock import SYSTEM
from switchgear.contract import entries, subjects
from switchgear.errors import UsageError

if TYPE_CHECKING:
    from switchgear.contract.values import State
    from switchgear.tasks.chunks import Chunk
    from switchgear.tasks.events import TaskEvent
    from switchgear.tasks.handle import TaskHandle

MAX_LIMIT = 1000
"""Tasks that one answer of the read model holds at most."""


class Query(NamedTuple):
    """Which tasks to list."""

    capability: str | None = None
    state: State | None = None
    open_only: bool = False
    root: str | None = None
    parent: str | None = None
    fingerprint: str | None = None
    search: str = ""
    limit: int = 50
    before: str | None = None


async def task_list(query: Query, common: Common) -> int:
    """Your tasks, newest first."""
    output = common.output
    if not 1 <= query.limit <= MAX_LIMIT:
        raise UsageError(f"--limit is {query.limit}", fix=f"give a number from 1 to {MAX_LIMIT}")
    names = (("capability", query.capability), ("run", query.root), ("parent", query.parent))
    for name, value in names:
        if value is not None:
            subjects.token(value, name)
    async with joined(common) as mesh:
        with answered_by(*READ_MODEL):
            found = await mesh.list(**query._asdict())

    def draw() -> Any:
        from switchgear.cli.render import tasks

        return tasks.task_list(found, SYSTEM.now())

    output.put("task-list", plain_data(found), draw)
    return exits.OK


async def task(id: str, common: Common) -> int:
    """One task with its entries."""
    from switchgear.lifecycle.history import fold
    from switchgear.tasks import events

    output = common.output
    async with joined(common) as mesh:
        row = await mesh.status(id)
        scope = subjects.scope(row.capability, row.owner, row.id)
        history = fold(scope, await mesh.bus.ledger.history(scope))
    happened = [events.of_entry(valid) for valid in history.valid]
    submitted = history.submitted
    given = bytes(submitted.input).decode() if submitted else ""
    if submitted is not None and submitted.input_blob is not None:
        given = f"{submitted.input_blob.size} bytes, stored as {submitted.input_blob.digest[:12]}…"
    root = submitted.root if submitted else ""
    ends = (one.entry for one in reversed(history.valid))
    failures = (one.error for one in ends if isinstance(one, entries.AttemptFailed | entries.Dead))
    error = next(failures, None)

    def draw() -> Any:
        from switchgear.cli.render import tasks

        return tasks.task(row, happened, SYSTEM.now(), input=given, root=root, error=error)

    document = {
        "task": plain_data(row),
        "run": root or row.id,
        "input": submitted.input if submitted and not submitted.input_blob else None,
        "events": [event_data(event) for event in happened],
        "error": None if error is None else plain_data(error),
        "voids": [f"{void.stored.sequence}: {void.reason}" for void in history.voids],
    }
    output.put("task", document, draw)
    return exits.OK


async def watch(id: str, common: Common) -> int:
    """A line for everything that happens to a task, until its end; the exit code tells how it ended."""
    from switchgear.cli.render import tasks
    from switchgear.tasks.events import TaskEvent

    output = common.output
    last = ""
    said: tuple[float | None, str] = (None, "")
    async with joined(common) as mesh:
        handle = await mesh.get(id)
        start = (await handle.status()).submitted_at
        async for one in _happening(handle):
            if isinstance(one, TaskEvent):
                last = one.event
                if output.as_json:
                    output.line("task-event", {"task": id, **event_data(one)})
                else:
                    report = (one.fraction, one.detail) if last == "progress" else None
                    again = report == said
                    said = report or said
                    if one.lines or not again:
                        output.show(tasks.event_lines(one, start, again=again))
            elif output.as_json:
                output.line("task-chunk", {"task": id, **one._asdict()})
            else:
                output.show(tasks.chunk_line(one, SYSTEM.now(), start))
    return exits.OK if last == "completed" else exits.TASK_FAILED


async def _happening(handle: TaskHandle[Any]) -> AsyncIterator[TaskEvent | Chunk[Any]]:
    """Events and chunks as they come, until the task's end."""
    arrived: asyncio.Queue[TaskEvent | Chunk[Any] | None] = asyncio.Queue()

    async def pump(source: AsyncIterator[TaskEvent | Chunk[Any]]) -> None:
        async for one in source:
            arrived.put_nowait(one)

    pumping = asyncio.gather(pump(handle.chunks()), pump(handle.events()))
    pumping.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        while (one := await arrived.get()) is not None:
            yield one
        await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


async def result(id: str, limit: timedelta | None, common: Common) -> int:
    """The result as JSON. Raises TaskFailed, WaitTimeout."""
    from switchgear.cli.submitting import pretty

    output = common.output
    async with joined(common) as mesh:
        handle = await mesh.get(id)
        found = await handle.result(timeout=limit)
    document = {"task": id, "capability": handle.capability, "output": found}
    output.put("result", document, lambda: pretty(found))
    return exits.OK


async def explain(id: str, common: Common) -> int:
    """Why a task is where it is."""
    output = common.output
    async with joined(common) as mesh:
        with answered_by(*COORDINATOR):
            told = await mesh.explain(id)

    def draw() -> Any:
        from switchgear.cli.render import tasks

        return tasks.explanation(told)

    output.put("explanation", plain_data(told), draw)
    return exits.OK


def plain_data(value: Any) -> dict[str, Any]:
    """A struct as a document's fields."""
    return msgspec.to_builtins(value)


def event_data(event: TaskEvent) -> dict[str, Any]:
    """An event as a document's fields."""
    return msgspec.to_builtins(event._asdict())
