"""The mesh as a client sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

from switchgear import ids
from switchgear.bus.port import Bus
from switchgear.client import options as given_options
from switchgear.client.dead_letters import DeadLetters
from switchgear.client.messages import Messaging
from switchgear.client.options import SubmitOptions
from switchgear.client.sending import Sender
from switchgear.clock import SYSTEM, Clock, milliseconds
from switchgear.contract import queries, subjects
from switchgear.contract.artifact import Artifact
from switchgear.contract.capability import AnyCapability, Capability, reference
from switchgear.errors import SwitchgearError, WaitTimeout
from switchgear.tasks import payload, signalling, submission
from switchgear.tasks.handle import TaskHandle

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class Mesh(Messaging):
    """A client's connection: what `async with connect() as mesh` gives."""

    def __init__(self, bus: Bus, principal: str, *, clock: Clock = SYSTEM) -> None:
        super().__init__(bus, principal, clock=clock)
        self._sender = Sender(bus, self.watch)

    @property
    def dead_letters(self) -> DeadLetters:
        """Tasks that failed for good, and how to try them again."""
        return DeadLetters(self, self._start)

    async def start(self) -> None:
        """Begin to follow the owner's tasks."""
        await asyncio.gather(*map(self.watch.open, subjects.live_answers(self.principal)))

    async def close(self) -> None:
        """Leave; tasks go on."""
        await self.watch.close()
        await self.bus.close()

    # start and wait

    @overload
    async def submit(
        self,
        capability: Capability[In, Out],
        input: In,
        **options: Unpack[SubmitOptions],
    ) -> TaskHandle[Out]: ...

    @overload
    async def submit(
        self,
        capability: str,
        input: Any,
        **options: Unpack[SubmitOptions],
    ) -> TaskHandle[Any]: ...

    async def submit(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        **options: Unpack[SubmitOptions],
    ) -> TaskHandle[Any]:
        """Start a task. Returns when the ledger holds it; from then on it is not lost.

        `key` makes a submission happen once: the same key, input and options give the same task, whoever asks and
        however often. `start` and `deadline` are moments, or from now: not before the one, ended by the other.
        `labels` are those that the agent must have. `require_agent` rejects the task at once when nobody offers the
        capability. `live` hears its chunks from the beginning. Raises Conflict for a key with another submission,
        UsageError for an input that is no JSON, Overloaded when the ledger is full, Unavailable, OutcomeUnknown.
        """
        wanted = reference(capability)
        asked = self._options(wanted, options)
        handle, sent = await self._send(
            wanted, input, options.get("key"), asked, live=options.get("live", False)
        )
        await sent
        return handle

    @overload
    async def submit_many(
        self, capability: Capability[In, Out], inputs: Iterable[In], *, key: str | None = None
    ) -> list[TaskHandle[Out]]: ...

    @overload
    async def submit_many(
        self, capability: str, inputs: Iterable[Any], *, key: str | None = None
    ) -> list[TaskHandle[Any]]: ...

    async def submit_many(
        self,
        capability: Capability[Any, Any] | str,
        inputs: Iterable[Any],
        *,
        key: str | None = None,
    ) -> list[TaskHandle[Any]]:
        """Start one task for each input, all appends under way at once; handles in the inputs' order.

        `key` makes the whole batch happen once: each task's own key is derived from it and its position.
        """
        wanted = reference(capability)
        options = self._options(wanted, {})
        begun = [
            await self._send(wanted, one, f"{key}/{index}" if key else None, options)
            for index, one in enumerate(inputs)
        ]
        await asyncio.gather(*(sent for _, sent in begun))
        return [handle for handle, _ in begun]

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
        """Start a task and wait for its result. Raises what `submit` and `result` raise."""
        handle = await self.submit(capability, input, key=key)
        return await handle.result(timeout=timeout)

    async def as_completed(
        self, tasks: Sequence[TaskHandle[T]], *, timeout: timedelta | None = None
    ) -> AsyncIterator[TaskHandle[T]]:
        """The handles in the order in which their tasks end. Raises WaitTimeout."""
        waits = {asyncio.create_task(self._ended(task)): task for task in tasks}
        ended: asyncio.Queue[asyncio.Task[int]] = asyncio.Queue()
        for one in waits:
            one.add_done_callback(ended.put_nowait)
        now = asyncio.get_running_loop().time()
        until = None if timeout is None else now + timeout.total_seconds()
        left = len(waits)
        try:
            while left:
                try:
                    async with asyncio.timeout_at(until):
                        batch = [await ended.get()]
                except TimeoutError:
                    raise WaitTimeout(f"{left} tasks did not end within {timeout}") from None
                while not ended.empty():
                    batch.append(ended.get_nowait())
                left -= len(batch)
                for one in sorted(batch, key=lambda one: 0 if one.cancelled() else one.result()):
                    yield waits[one]
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    # files

    async def upload(self, path: str | PathLike[str]) -> Artifact:
        """Store a file or directory, to hand it to tasks. Raises UsageError for what is no file, Unavailable."""
        from switchgear.client import files

        return await files.upload(self.bus.blobs, path)

    async def download(self, artifact: Artifact, path: str | PathLike[str]) -> Path:
        """Write an artifact to a path where nothing is yet; returns it.

        Its bytes are verified; of a directory nothing lands outside. Raises UsageError, NotFound, ProtocolError
        SG1109 for damaged bytes, Unavailable.
        """
        from switchgear.client import files

        return await files.download(self.bus.blobs, artifact, path)

    # steer

    async def signal(self, task: str, name: str, value: Any = None) -> int:
        """Signal a task, also one of another owner; returns the signal's place in the ledger.

        A coordinator decides about other owners' tasks, and where the task waits for a group. Raises NotFound,
        Conflict for a task that has ended, Forbidden, UsageError, Unavailable.
        """
        bus, sender = self.bus, self.principal
        return await signalling.signal(bus, self._clock, task, name, value, principal=sender)

    async def drain(self, agent: str, instance: str | None = None) -> queries.Drained:
        """Tell instances to finish what they hold and leave. Raises NotFound."""
        query = queries.DrainQuery(agent=agent, instance=instance)
        return await self.ask("drain", query, queries.Drained)

    # inside

    def _options(self, wanted: AnyCapability, given: SubmitOptions) -> submission.Options:
        return given_options.kept(given, self.now(), version=wanted.version)

    async def _send(
        self,
        wanted: AnyCapability,
        input: Any,
        key: str | None,
        options: submission.Options,
        *,
        live: bool = False,
    ) -> tuple[TaskHandle[Any], asyncio.Future[None]]:
        """Send the opening entry; the future ends when it stands."""
        moment = milliseconds(self._clock.now())
        task = (
            ids.derived_id("key", self.principal, wanted.name, key) if key else ids.new_id(moment)
        )
        data = payload.encode_value(input, f"the input of {wanted.name}")
        given = await payload.store(self.bus.blobs, data)
        return await self._open(wanted, task, given, options, live=live)

    async def _start(
        self, capability: str, task: str, given: payload.Payload, options: submission.Options
    ) -> TaskHandle[Any]:
        wanted: AnyCapability = Capability(capability, object, object)
        handle, sent = await self._open(wanted, task, given, options)
        await sent
        return handle

    async def _open(
        self,
        wanted: AnyCapability,
        task: str,
        given: payload.Payload,
        options: submission.Options,
        *,
        live: bool = False,
    ) -> tuple[TaskHandle[Any], asyncio.Future[None]]:
        opened = submission.opening(
            wanted.name,
            self.principal,
            task,
            given,
            entry_id=ids.entry_id(),
            writer=self.bus.name,
            now=self._clock.now(),
            options=options,
        )
        handle = self._handle(opened.scope, wanted.output)
        return handle, await self._sender.send(opened, handle, live=live)

    @staticmethod
    async def _ended(task: TaskHandle[Any]) -> int:
        """Where in the ledger the task ended; 0 where that cannot be told."""
        with contextlib.suppress(SwitchgearError):
            return await task.ended()
        return 0
