"""What a handler works with: its task, steps, calls to other capabilities, progress, resources."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from switchgear import ids
from switchgear.agent.resource import Resource
from switchgear.agent.step import run_step
from switchgear.agent.task_info import TaskInfo
from switchgear.contract.capability import Capability, reference
from switchgear.errors import DuplicateKey, NotDeclared, UsageError

if TYPE_CHECKING:
    from switchgear.agent.calls import Calls
    from switchgear.steps.result import RunResult
    from switchgear.steps.spec import StepSpec

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
P = ParamSpec("P")


class Surroundings(NamedTuple):
    """What a context reaches: given by the worker, replaced by tests."""

    task: TaskInfo
    attempt: int
    fence: int
    calls: Calls | None
    """None where the capability declares no calls."""
    declared: frozenset[str]
    run: Callable[[str, StepSpec], Awaitable[RunResult]]
    report: Callable[[float | None, str, dict[str, float]], None]
    resources: dict[Any, Any]
    moved: Callable[[], None]
    """Called whenever the attempt shows that it is alive and moving."""


class Context:
    """Given to a handler, for one attempt. Await `step`, `run`, `call` and `gather`; the rest is plain."""

    __slots__ = ("_keys", "_surroundings")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._keys: set[str] = set()

    @property
    def task(self) -> TaskInfo:
        """The task: id, root, parent, capability, owner, times."""
        return self._surroundings.task

    @property
    def attempt(self) -> int:
        """Ordinal of this attempt, from 1."""
        return self._surroundings.attempt

    @property
    def fence(self) -> int:
        """A number that grows with every hold of the task: outside systems refuse lower ones than they saw."""
        return self._surroundings.fence

    def idempotency_key(self, key: str) -> str:
        """A key for outside systems, the same in every run of this task's step."""
        return ids.derived_id("idempotency", self.task.id, key)

    @overload
    async def step(
        self, key: str, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def step(self, key: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def step(self, key: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function as a step, a sync one in a thread; returns its result through the codec.

        Raises StepFailed for what it raised, DuplicateKey, and NotRecordable for a result that cannot be stored
        (its return annotation is required).
        """
        self._take(key)
        result = await run_step(key, fn, args, kwargs, seed=self.idempotency_key(key))
        self._surroundings.moved()
        return result

    async def run(self, key: str, spec: StepSpec) -> RunResult:
        """Run a command. Raises StepFailed for an exit code that was not expected, or its time limit."""
        self._take(key)
        result = await self._surroundings.run(key, spec)
        self._surroundings.moved()
        return result

    @overload
    async def call(
        self,
        capability: Capability[In, Out],
        input: In,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Out: ...

    @overload
    async def call(
        self,
        capability: str,
        input: Any,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any: ...

    async def call(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Run another capability as a child and return its result. Holds the slot while it waits.

        Left early (cancelled, timed out, another call of a `gather` failed), the child is cancelled. Raises
        TaskFailed, WaitTimeout, NotDeclared, DuplicateKey.
        """
        wanted = reference(capability)
        calls = self._surroundings.calls
        if calls is None or wanted.name not in self._surroundings.declared:
            raise NotDeclared(
                f"{self.task.capability} calls {wanted.name}, which it does not declare"
            )
        key = key or wanted.name
        self._take(key)
        result = await calls.call(self.task, wanted, input, key, timeout)
        self._surroundings.moved()
        return result

    @overload
    async def gather(self, one: Awaitable[T], two: Awaitable[T2], /) -> tuple[T, T2]: ...

    @overload
    async def gather(
        self, one: Awaitable[T], two: Awaitable[T2], three: Awaitable[T3], /
    ) -> tuple[T, T2, T3]: ...

    @overload
    async def gather(
        self, one: Awaitable[T], two: Awaitable[T2], three: Awaitable[T3], four: Awaitable[T4], /
    ) -> tuple[T, T2, T3, T4]: ...

    @overload
    async def gather(self, *awaitables: Awaitable[T]) -> tuple[T, ...]: ...

    async def gather(self, *awaitables: Awaitable[Any]) -> tuple[Any, ...]:
        """All results in order, or the first error after cancelling the others and waiting for them."""
        tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def progress(self, fraction: float | None = None, message: str = "", **counters: float) -> None:
        """Report progress: `fraction` from 0 to 1, a line of text, counters. Never blocks; the newest wins."""
        self._surroundings.moved()
        self._surroundings.report(fraction, message, counters)

    def use(self, resource: Resource[T]) -> T:
        """The opened resource. Raises UsageError for one that this agent did not declare."""
        try:
            return self._surroundings.resources[resource]
        except KeyError:
            raise UsageError(
                f"{resource!r} is not open",
                why="it was declared on another agent",
                fix="declare it with `@agent.resource` on the agent that runs this handler",
            ) from None

    def _take(self, key: str) -> None:
        if key in self._keys:
            raise DuplicateKey(f"key {key!r} is used twice in task {self.task.id}")
        self._keys.add(key)
