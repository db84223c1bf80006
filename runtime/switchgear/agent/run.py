"""One run of a handler: what the calls of its context share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from switchgear.agent.children import Children
from switchgear.agent.chunks import Chunks
from switchgear.agent.classifying import Judge
from switchgear.agent.limit import TimeLimit
from switchgear.agent.recording import Recording
from switchgear.agent.reports import Reports
from switchgear.agent.saga import Undos
from switchgear.agent.suspension import Waits
from switchgear.agent.task_info import TaskInfo
from switchgear.resilience.classify import classify

if TYPE_CHECKING:
    from datetime import datetime

    from switchgear.agent.attempt import Attempt
    from switchgear.agent.settings import WorkerSettings
    from switchgear.bus.port import Blobs
    from switchgear.contract.values import Awaited
    from switchgear.steps.executor import Asked
    from switchgear.steps.guard import Guards
    from switchgear.steps.result import RunResult
    from switchgear.tasks.watch import Watch

OnLine = Callable[[str, str], None]
"""Told each line of a command's output, with the stream that it came from."""
RunCommand = Callable[["Asked", OnLine, "Blobs"], Awaitable["RunResult"]]
Instrument = Callable[[str, str, Callable[..., Any]], Callable[..., Any]]
"""From a task, a key, and what runs under that key, to what runs in its place: how tests count and break things."""


def as_it_is(task: str, key: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The instrument that does nothing."""
    del task, key
    return fn


class Services(NamedTuple):
    """What all runs of one worker reach: given by the worker, replaced by tests."""

    watch: Watch
    run_command: RunCommand
    resources: dict[Any, Any]
    settings: WorkerSettings
    principal: str
    instrument: Instrument = as_it_is
    judge: Judge = classify
    guards: Guards | None = None
    """The instance's breakers; None: no step asks one."""


class Run:
    """One run of one attempt's handler. What a plain handler never asks for is made when it is."""

    __slots__ = (
        "_children",
        "_task",
        "_undos",
        "attempt",
        "chunks",
        "declared",
        "gathers",
        "limit",
        "recording",
        "reports",
        "services",
        "waits",
    )

    def __init__(
        self,
        attempt: Attempt,
        services: Services,
        *,
        declared: frozenset[str] = frozenset(),
        timeout: timedelta | None = None,
    ) -> None:
        """`declared`: what its handler may call; `timeout`: what it may take, waits excluded."""
        self.attempt = attempt
        self.services = services
        self.declared = declared
        self.limit = TimeLimit(timeout)
        self.recording = Recording(attempt, services.judge)
        self.waits = Waits(attempt, services.settings, self.limit)
        attempt.waits = self.waits
        self.reports = Reports(attempt, services.settings.report_every)
        self.chunks = Chunks(attempt)
        self.gathers = 0
        """How many `gather`s it has made: each marks what it waits for together."""
        self._task: TaskInfo | None = None
        self._children: Children | None = None
        self._undos: Undos | None = None

    @property
    def task(self) -> TaskInfo:
        """The task, as its handler sees it."""
        if self._task is None:
            self._task = _task(self.attempt)
        return self._task

    @property
    def children(self) -> Children:
        """The children that it starts or meets."""
        if self._children is None:
            self._children = Children(self.attempt, self.task)
        return self._children

    @property
    def open_children(self) -> Collection[str]:
        """Scopes of the children that end with the task."""
        return () if self._children is None else self._children.open

    @property
    def undos(self) -> Undos:
        """The undos of its task."""
        if self._undos is None:
            self._undos = Undos(self.recording)
        return self._undos

    def close(self) -> None:
        """The handler has left. The attempt outlives this run, and lets go of it."""
        self.attempt.waits = None
        self.waits.close()
        self.chunks.close()

    async def read(self) -> None:
        """Take in what earlier runs recorded. Raises NotFound, ProtocolError for blobs that are gone or damaged."""
        await self.recording.read()
        self._undos = None

    async def begin(self) -> None:
        """Something is about to begin: not while the slot is being given up, and after undos are durable."""
        await self.waits.enter()
        if self._undos is not None and self._undos.pending:
            with self.waits.working():
                await self._undos.flush()

    def waited_before(self, key: str, task: str) -> bool:
        """Whether an earlier run was suspended while it waited for this child, or these children."""
        earlier = self.recording.records.begun.get(key)
        return earlier is not None and earlier.task == task

    def left(self) -> timedelta:
        """The time until the task's deadline; without one the longest that there is."""
        deadline = self.task.deadline
        return timedelta.max if deadline is None else deadline - self.attempt.clock.now()

    def since(self, key: str, task: str) -> datetime:
        """When the wait for this child, or these children, began: in an earlier run, or now."""
        earlier = self.recording.records.begun.get(key)
        if earlier is None or earlier.task != task:
            return self.attempt.clock.now()
        return earlier.begun

    def begun(self, key: str, awaited: Awaited) -> Awaited:
        """The wait with the times that an earlier run gave it, if it began in one."""
        earlier = self.recording.records.begun.pop(key, None)
        if earlier is None or earlier.kind != awaited.kind or earlier.task != awaited.task:
            return awaited
        return replace(awaited, begun=earlier.begun, until=earlier.until)


def _task(attempt: Attempt) -> TaskInfo:
    dispatched, subject = attempt.dispatched, attempt.subject
    return TaskInfo(
        id=subject.task,
        root=dispatched.root or subject.task,
        parent=dispatched.parent.task if dispatched.parent else None,
        capability=subject.capability,
        owner=subject.owner,
        submitted_at=dispatched.status.submitted_at,
        deadline=dispatched.deadline,
        scheduled_for=dispatched.scheduled_for,
    )
