"""The mesh as a client sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

from switchgear import ids
from switchgear.bus.port import Appended, Bus, Refused
from switchgear.client.handle import TaskHandle
from switchgear.client.status import status_of, tail_of
from switchgear.clock import SYSTEM, Clock, milliseconds
from switchgear.contract import queries, subjects
from switchgear.contract.capability import AnyCapability, Capability, reference
from switchgear.contract.values import Retry, State
from switchgear.errors import SwitchgearError, WaitTimeout
from switchgear.tasks import asking, payload, submission
from switchgear.tasks.scopes import scope_of
from switchgear.tasks.watch import Followed, Watch

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


class Mesh:
    """A client's connection: what `async with connect() as mesh` gives."""

    def __init__(self, bus: Bus, principal: str, *, clock: Clock = SYSTEM) -> None:
        self.bus = bus
        self.principal = principal
        """Who acts: the owner of what is submitted here."""
        self.watch = Watch(bus)
        self._clock = clock

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
        *,
        key: str | None = None,
        priority: str = "normal",
        deadline: datetime | timedelta | None = None,
        labels: Mapping[str, str] = ...,
        retry: Retry | None = None,
        require_agent: bool = False,
    ) -> TaskHandle[Out]: ...

    @overload
    async def submit(
        self,
        capability: str,
        input: Any,
        *,
        key: str | None = None,
        priority: str = "normal",
        deadline: datetime | timedelta | None = None,
        labels: Mapping[str, str] = ...,
        retry: Retry | None = None,
        require_agent: bool = False,
    ) -> TaskHandle[Any]: ...

    async def submit(
        self,
        capability: Capability[Any, Any] | str,
        input: Any,
        *,
        key: str | None = None,
        priority: str = "normal",
        deadline: datetime | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        require_agent: bool = False,
    ) -> TaskHandle[Any]:
        """Start a task. Returns when the ledger holds it; from then on it is not lost.

        `key` makes a submission happen once: the same key, input and options give the same task, whoever asks and
        however often. `labels` are those that the agent must have. `require_agent` rejects the task at once when
        nobody offers the capability. Raises Conflict for a key with another submission, UsageError for an input
        that is no JSON, Unavailable, OutcomeUnknown.
        """
        options = self._options(capability, priority, deadline, labels, retry, require_agent)
        handle, sent = await self._send(reference(capability), input, key, options)
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
        options = self._options(wanted, "normal", None, None, None, require_agent=False)
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

    # look

    async def get(self, id: str) -> TaskHandle[Any]:
        """A handle on a task of this principal. Raises NotFound."""
        tail = await tail_of(self.bus.ledger, self.principal, id)
        return TaskHandle(self.bus, self.watch, scope_of(tail.subject), object)

    async def status(self, id: str) -> queries.TaskRow:
        """What the newest entry of a task says. Raises NotFound."""
        return await status_of(self.bus.ledger, self.principal, id)

    async def list(
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
        """Tasks of this principal, newest first, from the read model; its lag is in the answer.

        Raises Unavailable when no read model runs (`switchgear observe`).
        """
        query = queries.ListQuery(
            capability=capability,
            state=state,
            open_only=open_only,
            root=root,
            search=search,
            limit=limit,
            before=before,
        )
        return await self.ask("list", query, queries.TaskList)

    async def timeline(self, root: str) -> queries.Timeline:
        """All entries of a run, from the read model."""
        return await self.ask("timeline", queries.TimelineQuery(root=root), queries.Timeline)

    async def capabilities(self) -> queries.Capabilities:
        """What the mesh offers now."""
        return await self.ask("capabilities", queries.Nothing(), queries.Capabilities)

    async def agents(self) -> queries.Agents:
        """The live instances."""
        return await self.ask("agents", queries.Nothing(), queries.Agents)

    async def explain(self, id: str) -> queries.Explanation:
        """Why a task is where it is. Raises NotFound."""
        return await self.ask("explain", queries.ExplainQuery(task=id), queries.Explanation)

    async def drain(self, agent: str, instance: str | None = None) -> queries.Drained:
        """Tell instances to finish what they hold and leave. Raises NotFound."""
        query = queries.DrainQuery(agent=agent, instance=instance)
        return await self.ask("drain", query, queries.Drained)

    async def ask(self, verb: str, query: Any, answer: type[T]) -> T:
        """Ask a service of the mesh. Raises what it answers, or Unavailable."""
        return await asking.ask(self.bus.core, verb, self.principal, query, answer)

    # inside

    def _options(
        self,
        capability: AnyCapability | str,
        priority: str,
        deadline: datetime | timedelta | None,
        labels: Mapping[str, str] | None,
        retry: Retry | None,
        require_agent: bool,  # noqa: FBT001  # one of submit's own
    ) -> submission.Options:
        deadline_in = deadline if isinstance(deadline, timedelta) else None
        if isinstance(deadline, timedelta):
            deadline = self._clock.now() + deadline
        return submission.Options(
            version=capability.version if isinstance(capability, Capability) else "*",
            priority=priority,
            deadline=deadline,
            deadline_in=deadline_in,
            labels=dict(labels or {}),
            retry=retry,
            require_agent=require_agent,
        )

    async def _send(
        self, wanted: AnyCapability, input: Any, key: str | None, options: submission.Options
    ) -> tuple[TaskHandle[Any], asyncio.Future[None]]:
        """Send the opening entry; the future ends when it stands."""
        now = self._clock.now()
        moment = milliseconds(now)
        task = (
            ids.derived_id("key", self.principal, wanted.name, key) if key else ids.new_id(moment)
        )
        data = payload.encode_value(input, f"the input of {wanted.name}")
        opened = submission.opening(
            wanted.name,
            self.principal,
            task,
            await payload.store(self.bus.blobs, data),
            entry_id=ids.entry_id(),
            writer=self.bus.name,
            now=now,
            options=options,
        )
        handle: TaskHandle[Any] = TaskHandle(self.bus, self.watch, opened.scope, wanted.output)
        followed = self.watch.follow(opened.scope, fresh=True)
        handle.expect(followed.ended)
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer = asyncio.ensure_future(
            self.bus.ledger.append(opened.subject, opened.body, scope=opened.scope, expect=0)
        )
        answer.add_done_callback(lambda said: self._answered(opened, said, followed, stands))
        return handle, stands

    def _answered(
        self,
        opened: submission.Opening,
        answer: asyncio.Future[Appended | Refused],
        followed: Followed,
        stands: asyncio.Future[None],
    ) -> None:
        """The broker's answer to a submission; only a refusal needs reading."""
        if answer.cancelled() or stands.cancelled():
            self.watch.forget(opened.scope)
            return
        error = answer.exception()
        if error is not None:
            self.watch.forget(opened.scope)
            stands.set_exception(error)
            return
        said = answer.result()
        if isinstance(said, Appended):
            self.watch.begun(followed, opened.acknowledged(said.sequence))
            stands.set_result(None)
        else:
            confirmed = asyncio.ensure_future(self._confirm(opened, said, followed))
            confirmed.add_done_callback(lambda done: _pass_on(done, stands))

    async def _confirm(
        self, opened: submission.Opening, answer: Appended | Refused, followed: Followed
    ) -> None:
        try:
            await submission.confirm(self.bus, opened, answer)
        except BaseException:
            self.watch.forget(opened.scope)  # another submission with this key may be followed
            raise
        self.watch.read(followed)

    @staticmethod
    async def _ended(task: TaskHandle[Any]) -> int:
        """Where in the ledger the task ended; 0 where that cannot be told."""
        with contextlib.suppress(SwitchgearError):
            return await task.ended()
        return 0


def _pass_on(done: asyncio.Future[None], to: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if to.done():
        return
    if done.cancelled():
        to.cancel()
    elif error is not None:
        to.set_exception(error)
    else:
        to.set_result(None)
