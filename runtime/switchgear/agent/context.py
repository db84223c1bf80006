"""What a handler works with: its task, steps, calls, waits, undos, progress, resources."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from switchgear import ids
from switchgear.agent import stepping
from switchgear.agent.digests import Ambient
from switchgear.agent.resource import Resource
from switchgear.agent.task_info import TaskInfo
from switchgear.contract.artifact import BYTES, Artifact
from switchgear.contract.capability import Capability, reference
from switchgear.contract.topic import Topic
from switchgear.errors import NotDeclared, UsageError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from switchgear.agent.outcome import Outcome
    from switchgear.agent.run import Run
    from switchgear.agent.saga import Saga
    from switchgear.agent.waiting import Inbox
    from switchgear.contract.capability import AnyCapability
    from switchgear.steps.executors.dagger.link import Client as DaggerClient
    from switchgear.steps.result import RunResult
    from switchgear.steps.spec import StepSpec
    from switchgear.tasks.handle import TaskHandle

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
P = ParamSpec("P")


class Context(Ambient):
    """Given to a handler, for one run. Await `step` to `publish`, and `gather`; the rest is plain.

    What is awaited under a key is recorded when it ends: when the handler runs again, after a crash or a wait
    that gave up its slot, it returns or raises the same without being done again. A failure is done again by a
    retry. Raises DuplicateKey for a key that is used twice, StepChanged for one that was recorded for other work.
    """

    __slots__ = ("_inbox", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._inbox: Inbox | None = None

    @property
    def task(self) -> TaskInfo:
        """The task: id, root, parent, capability, owner, times."""
        return self._run.task

    @property
    def attempt(self) -> int:
        """Ordinal of this dispatch of the task, from 1."""
        return self._run.attempt.dispatched.attempt

    @property
    def fence(self) -> int:
        """A number that grows with every hold of the task: outside systems refuse lower ones than they saw."""
        return self._run.attempt.hold

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

        Raises StepFailed for what it raised, and NotRecordable for a result that cannot be stored (its return
        annotation is required).
        """
        self._run.recording.take(key)
        return await stepping.step(self._run, key, fn, args, kwargs)

    async def run(self, key: str, spec: StepSpec) -> RunResult:
        """Run a step's commands where its capability's rollout says. `result.outputs` are artifacts.

        Raises StepFailed for an exit code that was not expected, a time limit, or a spec that cannot run here.
        """
        self._run.recording.take(key)
        return await stepping.command(self._run, key, spec)

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
        """Run another capability as a child and return its result.

        Left early (cancelled, timed out, another call of a `gather` failed), the child is cancelled. `key`: the
        capability's name unless given. `timeout` counts from the first run. Raises TaskFailed, WaitTimeout,
        NotDeclared, InvalidInput.
        """
        from switchgear.agent import calls

        wanted, key = self._child(capability, key)
        return await calls.call(self._run, wanted, input, key, timeout)

    @overload
    async def submit(
        self,
        capability: Capability[In, Out],
        input: In,
        *,
        key: str | None = None,
        detached: bool = False,
    ) -> TaskHandle[Out]: ...

    @overload
    async def submit(
        self, capability: str, input: Any, *, key: str | None = None, detached: bool = False
    ) -> TaskHandle[Any]: ...

    async def submit(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        *,
        key: str | None = None,
        detached: bool = False,
    ) -> TaskHandle[Any]:
        """Start another capability as a child; recorded when it is submitted.

        It is cancelled if it is open when the task ends, unless it is `detached`: then neither the task's end nor
        its deadline concerns it. Raises NotDeclared.
        """
        from switchgear.agent import calls

        wanted, key = self._child(capability, key)
        return await calls.submit(self._run, wanted, input, key, detached=detached)

    @overload
    async def map(
        self,
        capability: Capability[In, Out],
        inputs: Sequence[In],
        *,
        key: str | None = None,
        limit: int = 100,
        max_failures: int | None = 0,
    ) -> list[Outcome[Out]]: ...

    @overload
    async def map(
        self,
        capability: str,
        inputs: Sequence[Any],
        *,
        key: str | None = None,
        limit: int = 100,
        max_failures: int | None = 0,
    ) -> list[Outcome[Any]]: ...

    async def map(
        self,
        capability: Capability[Any, Any] | str,
        inputs: Sequence[Any],
        *,
        key: str | None = None,
        limit: int = 100,
        max_failures: int | None = 0,
    ) -> list[Outcome[Any]]:
        """Run another capability once for each input; the outcomes in the order of the inputs.

        `limit`: how many may be open at a time. When more than `max_failures` have failed (None: any number may),
        the others are cancelled. Raises TaskFailed then, and NotDeclared.
        """
        from switchgear.agent import mapping

        wanted, key = self._child(capability, key)
        run = self._run
        return await mapping.map_all(
            run, wanted, inputs, key, limit=limit, max_failures=max_failures
        )

    async def sleep(self, key: str, until: timedelta | datetime) -> None:
        """Wait for so long, or until that time; both are fixed when the task first comes here.

        Raises UsageError for a time without time zone.
        """
        from switchgear.agent import waiting

        self._run.recording.take(key)
        await waiting.sleep(self._run, key, until)

    async def wait_for_signal(
        self,
        name: str,
        type: type[T],
        *,
        key: str | None = None,
        question: str = "",
        sender: str = "requester",
        timeout: timedelta | None = None,
    ) -> T:
        """The value of the next signal of this name: early ones count, and each is taken once, in order.

        One of another type is refused in the task's history, and the wait goes on. `question`: what screens show.
        `sender`: `requester` for whoever asked for the root task, else a group whose members may answer. Raises
        SignalTimeout.
        """
        from switchgear.agent.waiting import Inbox

        key = key or name
        self._run.recording.take(key)
        self._inbox = self._inbox or Inbox(self._run)
        return await self._inbox.wait_for(
            name, type, key, question=question, sender=sender, timeout=timeout
        )

    def saga(self) -> Saga:
        """Undos for the steps of an `async with` block: see `Saga`."""
        from switchgear.agent.saga import Saga

        return Saga(self._run.recording, self._run.undos)

    def dagger(self) -> AbstractAsyncContextManager[DaggerClient]:
        """A client of the Dagger SDK for an `async with` block, on a session of its own, which ends with the block.

        The block counts as one call of the dependency `dagger`. Nothing of it is recorded: put it into a step.
        Raises ConfigError without an engine, ExtraMissing without the SDK, BreakerOpen, StepFailed without a session.
        """
        from switchgear.agent.dagger_client import dagger_client

        return dagger_client(self._run.services.guards)

    async def publish(
        self, topic: Topic[T] | str, value: T, *, key: str | None = None, to: str | None = None
    ) -> None:
        """Send a message to a topic, once. `to`: one agent, instead of everybody; `key`: the topic's name unless given.

        A topic that is given by its name is durable. Raises UsageError for a value over 256 KiB, Unavailable.
        """
        from switchgear.agent import publishing

        named = Topic(topic, object) if isinstance(topic, str) else topic
        key = key or named.name
        self._run.recording.take(key)
        await publishing.publish(self._run, named, value, key, to)

    async def save(
        self, key: str, data: bytes | Path, *, name: str = "", media_type: str = BYTES
    ) -> Artifact:
        """Store bytes, or a file or directory of this host, under their digest; recorded, and stored once.

        The artifact may stand in outputs and inputs, and be mounted in steps. Raises UsageError for what cannot be
        stored or is over 1 GiB, Unavailable.
        """
        from switchgear.agent import saving

        self._run.recording.take(key)
        return await saving.save(self._run, key, data, name=name, media_type=media_type)

    async def load(self, artifact: Artifact) -> bytes:
        """The bytes of an artifact, verified; of a directory, its tar archive.

        Raises NotFound where nothing that is kept names it any more, ProtocolError SG1109 for damaged bytes.
        """
        from switchgear.agent import saving

        return await saving.load(self._run, artifact)

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
        """All results in order, or the first error after cancelling the others and waiting for them.

        Calls and waits that are given directly give up their slot together, until all of them are over.
        """
        from switchgear.agent.calls import TOGETHER

        run = self._run
        run.gathers += 1
        together = contextvars.copy_context()
        together.run(TOGETHER.set, f"gather-{run.gathers}")
        tasks = [_begun(one, together) for one in awaitables]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def progress(self, fraction: float | None = None, message: str = "", **counters: float) -> None:
        """Report progress: `fraction` from 0 to 1, a line of text, counters. Never blocks; the newest wins."""
        self._run.attempt.move()
        self._run.reports.report(fraction, message, counters)

    def emit(self, value: Any) -> None:
        """Stream a value to whoever watches now. Never blocks; it is stored nowhere.

        Raises UsageError for a value over 16 KiB.
        """
        self._run.attempt.move()
        self._run.chunks.emit(value)

    def use(self, resource: Resource[T]) -> T:
        """The opened resource. Raises UsageError for one that this agent did not declare."""
        try:
            return self._run.services.resources[resource]
        except KeyError:
            raise UsageError(
                f"{resource!r} is not open",
                why="it was declared on another agent",
                fix="declare it with `@agent.resource` on the agent that runs this handler",
            ) from None

    def _child(
        self, capability: Capability[Any, Any] | str, key: str | None
    ) -> tuple[AnyCapability, str]:
        """What is asked for, and its key. Raises NotDeclared, DuplicateKey."""
        wanted = reference(capability)
        if wanted.name not in self._run.declared:
            raise NotDeclared(
                f"{self.task.capability} calls {wanted.name}, which it does not declare"
            )
        key = key or wanted.name
        self._run.recording.take(key)
        return wanted, key


_WAITS = frozenset(
    one.__code__ for one in (Context.call, Context.map, Context.sleep, Context.wait_for_signal)
)
"""Coroutines whose waits end only when all of a `gather`'s do."""


def _begun(awaitable: Awaitable[Any], together: contextvars.Context) -> asyncio.Future[Any]:
    """The awaitable as a task of a `gather`; one that waits carries the mark."""
    waiting = cast("Coroutine[Any, Any, Any]", awaitable)
    if getattr(awaitable, "cr_code", None) in _WAITS:
        return asyncio.get_running_loop().create_task(waiting, context=together)
    return asyncio.ensure_future(awaitable)
