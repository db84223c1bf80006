"""The same client for scripts: no `await`, an event loop of its own in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from switchgear.client.events import TaskEvent
from switchgear.client.handle import TaskHandle
from switchgear.client.mesh import Mesh
from switchgear.contract import queries
from switchgear.contract.capability import Capability
from switchgear.contract.values import Retry, State
from switchgear.errors import UsageError

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own; `call` runs a coroutine there and returns its result."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="switchgear-client", daemon=True
        )
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Ctrl-C cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError(
                "the synchronous client was used on its own event loop",
                fix="use `async with connect() as mesh` in async code",
            )
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, one by one."""
        try:
            while True:
                try:
                    yield self.call(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            self.call(_close(source))

    def stop(self) -> None:
        """End the loop and its thread."""
        self.call(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


async def _close(source: Any) -> None:
    await source.aclose()


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class SyncTaskHandle(Generic[Out]):
    """A handle on one task, without `await`."""

    def __init__(self, thread: LoopThread, handle: TaskHandle[Out]) -> None:
        self._thread = thread
        self.handle = handle
        """The asynchronous handle behind this one."""
        self.id = handle.id
        self.capability = handle.capability

    def __repr__(self) -> str:
        return f"SyncTaskHandle({self.id!r}, {self.capability!r})"

    @overload
    def result(self, *, timeout: timedelta | None = None) -> Out: ...

    @overload
    def result(self, output: type[T], *, timeout: timedelta | None = None) -> T: ...

    def result(self, output: Any = None, *, timeout: timedelta | None = None) -> Any:
        """Wait for the result: see `TaskHandle.result`."""
        return self._thread.call(self.handle.result(output, timeout=timeout))

    def status(self) -> queries.TaskRow:
        """What the newest entry says of the task."""
        return self._thread.call(self.handle.status())

    def events(self) -> Iterator[TaskEvent]:
        """Everything that happened and happens to the task, until its end."""
        return self._thread.iterate(self.handle.events())


class SyncMesh:
    """A client's connection for scripts: what `with connect() as mesh` gives. Same names, no `await`."""

    def __init__(self, thread: LoopThread, mesh: Mesh) -> None:
        self._thread = thread
        self.mesh = mesh
        """The asynchronous mesh behind this one."""
        self.principal = mesh.principal

    @overload
    def submit(
        self,
        capability: Capability[In, Out],
        input: In,
        *,
        key: str | None = None,
        priority: str = "normal",
        deadline: datetime | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        require_agent: bool = False,
    ) -> SyncTaskHandle[Out]: ...

    @overload
    def submit(
        self,
        capability: str,
        input: Any,
        *,
        key: str | None = None,
        priority: str = "normal",
        deadline: datetime | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        require_agent: bool = False,
    ) -> SyncTaskHandle[Any]: ...

    def submit(
        self, capability: Capability[Any, Any] | str, input: Any, **options: Any
    ) -> SyncTaskHandle[Any]:
        """Start a task: see `Mesh.submit`."""
        handle: TaskHandle[Any] = self._thread.call(self.mesh.submit(capability, input, **options))
        return SyncTaskHandle(self._thread, handle)

    @overload
    def submit_many(
        self, capability: Capability[In, Out], inputs: Iterable[In], *, key: str | None = None
    ) -> list[SyncTaskHandle[Out]]: ...

    @overload
    def submit_many(
        self, capability: str, inputs: Iterable[Any], *, key: str | None = None
    ) -> list[SyncTaskHandle[Any]]: ...

    def submit_many(
        self,
        capability: Capability[Any, Any] | str,
        inputs: Iterable[Any],
        *,
        key: str | None = None,
    ) -> list[SyncTaskHandle[Any]]:
        """Start one task for each input: see `Mesh.submit_many`."""
        handles = self._thread.call(self.mesh.submit_many(capability, inputs, key=key))
        return [SyncTaskHandle(self._thread, handle) for handle in handles]

    @overload
    def call(
        self,
        capability: Capability[In, Out],
        input: In,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Out: ...

    @overload
    def call(
        self,
        capability: str,
        input: Any,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any: ...

    def call(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        *,
        key: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Start a task and wait for its result: see `Mesh.call`."""
        return self._thread.call(self.mesh.call(capability, input, key=key, timeout=timeout))

    def as_completed(
        self, tasks: Sequence[SyncTaskHandle[T]], *, timeout: timedelta | None = None
    ) -> Iterator[SyncTaskHandle[T]]:
        """The handles in the order in which their tasks end: see `Mesh.as_completed`."""
        known = {id(task.handle): task for task in tasks}
        source = self.mesh.as_completed([task.handle for task in tasks], timeout=timeout)
        for handle in self._thread.iterate(source):
            yield known[id(handle)]

    def get(self, id: str) -> SyncTaskHandle[Any]:
        """A handle on a task of this principal. Raises NotFound."""
        return SyncTaskHandle(self._thread, self._thread.call(self.mesh.get(id)))

    def list(
        self,
        *,
        capability: str | None = None,
        state: State | None = None,
        open_only: bool = False,
        root: str | None = None,
        search: str = "",
        limit: int = 50,
        before: str | None = None,
    ) -> queries.TaskList:
        """Tasks of this principal, newest first: see `Mesh.list`."""
        return self._thread.call(
            self.mesh.list(
                capability=capability,
                state=state,
                open_only=open_only,
                root=root,
                search=search,
                limit=limit,
                before=before,
            )
        )

    def timeline(self, root: str) -> queries.Timeline:
        """All entries of a run."""
        return self._thread.call(self.mesh.timeline(root))

    def capabilities(self) -> queries.Capabilities:
        """What the mesh offers now."""
        return self._thread.call(self.mesh.capabilities())

    def agents(self) -> queries.Agents:
        """The live instances."""
        return self._thread.call(self.mesh.agents())

    def explain(self, id: str) -> queries.Explanation:
        """Why a task is where it is. Raises NotFound."""
        return self._thread.call(self.mesh.explain(id))

    def drain(self, agent: str, instance: str | None = None) -> queries.Drained:
        """Tell instances to finish what they hold and leave. Raises NotFound."""
        return self._thread.call(self.mesh.drain(agent, instance))
