"""The same client for scripts: no `await`, an event loop of its own in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack, overload

from switchgear.client.dead_letters import AS_IT_WAS, DeadLetters, Redrive
from switchgear.client.loop_thread import LoopThread
from switchgear.client.options import ListFilters, SubmitOptions
from switchgear.client.sync_messages import SyncMessaging
from switchgear.contract import queries
from switchgear.contract.artifact import Artifact
from switchgear.contract.capability import Capability
from switchgear.contract.dead_letters import DeadGroups
from switchgear.tasks.chunks import Chunk
from switchgear.tasks.events import TaskEvent
from switchgear.tasks.handle import TaskHandle

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


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

    @overload
    def chunks(self) -> Iterator[Chunk[Any]]: ...

    @overload
    def chunks(self, kind: type[T]) -> Iterator[Chunk[T]]: ...

    def chunks(self, kind: Any = object) -> Iterator[Chunk[Any]]:
        """What the handler emits, until the task's end: see `TaskHandle.chunks`."""
        return self._thread.iterate(self.handle.chunks(kind))

    def progress(self) -> queries.Progress | None:
        """The newest progress of the task."""
        return self._thread.call(self.handle.progress())

    def cancel(self, reason: str = "") -> bool:
        """Ask for the task's end: see `TaskHandle.cancel`."""
        return self._thread.call(self.handle.cancel(reason))

    def signal(self, name: str, value: Any = None) -> int:
        """Send the task a signal: see `TaskHandle.signal`."""
        return self._thread.call(self.handle.signal(name, value))

    def retry_now(self) -> queries.Retried:
        """Let a waiting task begin now: see `TaskHandle.retry_now`."""
        return self._thread.call(self.handle.retry_now())


class SyncDeadLetters:
    """Dead tasks for scripts: `mesh.dead_letters`. Same names as `DeadLetters`, no `await`."""

    def __init__(self, thread: LoopThread, letters: DeadLetters) -> None:
        self._thread = thread
        self._letters = letters

    def groups(
        self, *, capability: str | None = None, fingerprint: str | None = None
    ) -> DeadGroups:
        """Dead tasks by cause: see `DeadLetters.groups`."""
        found = self._letters.groups(capability=capability, fingerprint=fingerprint)
        return self._thread.call(found)

    def list(
        self,
        *,
        fingerprint: str | None = None,
        capability: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> queries.TaskList:
        """Dead tasks, newest first: see `DeadLetters.list`."""
        found = self._letters.list(
            fingerprint=fingerprint, capability=capability, limit=limit, before=before
        )
        return self._thread.call(found)

    def redrive(
        self, id: str, *, input: Any = AS_IT_WAS, dry_run: bool = False
    ) -> Redrive[SyncTaskHandle[Any]]:
        """Try a dead task again: see `DeadLetters.redrive`."""
        told = self._thread.call(self._letters.redrive(id, input=input, dry_run=dry_run))
        return self._wrapped(told)

    def redrive_many(
        self,
        *,
        fingerprint: str | None = None,
        capability: str | None = None,
        limit: int = 100,
        dry_run: bool = False,
    ) -> Sequence[Redrive[SyncTaskHandle[Any]]]:
        """Try dead tasks again: see `DeadLetters.redrive_many`."""
        told = self._letters.redrive_many(
            fingerprint=fingerprint, capability=capability, limit=limit, dry_run=dry_run
        )
        return [self._wrapped(one) for one in self._thread.call(told)]

    def _wrapped(self, told: Redrive[TaskHandle[Any]]) -> Redrive[SyncTaskHandle[Any]]:
        handle = told.handle and SyncTaskHandle(self._thread, told.handle)
        return Redrive(*told[:-1], handle)


class SyncMesh(SyncMessaging):
    """A client's connection for scripts: what `with connect() as mesh` gives. Same names, no `await`."""

    @overload
    def submit(
        self,
        capability: Capability[In, Out],
        input: In,
        **options: Unpack[SubmitOptions],
    ) -> SyncTaskHandle[Out]: ...

    @overload
    def submit(
        self,
        capability: str,
        input: Any,
        **options: Unpack[SubmitOptions],
    ) -> SyncTaskHandle[Any]: ...

    def submit(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        **options: Unpack[SubmitOptions],
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

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """Tasks that failed for good, and how to try them again."""
        return SyncDeadLetters(self._thread, self.mesh.dead_letters)

    def signal(self, task: str, name: str, value: Any = None) -> int:
        """Signal a task, also one of another owner: see `Mesh.signal`."""
        return self._thread.call(self.mesh.signal(task, name, value))

    def upload(self, path: str | PathLike[str]) -> Artifact:
        """Store a file or directory: see `Mesh.upload`."""
        return self._thread.call(self.mesh.upload(path))

    def download(self, artifact: Artifact, path: str | PathLike[str]) -> Path:
        """Write an artifact to a path: see `Mesh.download`."""
        return self._thread.call(self.mesh.download(artifact, path))

    def get(self, id: str) -> SyncTaskHandle[Any]:
        """A handle on a task of this principal. Raises NotFound."""
        return SyncTaskHandle(self._thread, self._thread.call(self.mesh.get(id)))

    def list(self, **filters: Unpack[ListFilters]) -> queries.TaskList:
        """Tasks of this principal, newest first: see `Mesh.list`."""
        return self._thread.call(self.mesh.list(**filters))

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
