"""Maps a capability over inputs: many children, one wait, one recorded result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from switchgear.agent.calls import TOGETHER
from switchgear.agent.children import AT_A_TIME, Child
from switchgear.agent.digests import of_values
from switchgear.agent.outcome import Outcome
from switchgear.bus.port import Appended
from switchgear.contract import codec, entries, subjects
from switchgear.contract.values import Awaited, Blob, Failure
from switchgear.errors import Overloaded, SwitchgearError, TaskFailed, UsageError
from switchgear.resilience import replay
from switchgear.resilience.classify import classify
from switchgear.tasks import outcome, payload
from switchgear.tasks.payload import NULL

if TYPE_CHECKING:
    from switchgear.agent.run import Run
    from switchgear.bus.port import Refused
    from switchgear.contract.capability import AnyCapability
    from switchgear.contract.stored import Stored
    from switchgear.lifecycle.history import History
    from switchgear.tasks.submission import Opening
    from switchgear.tasks.watch import Followed

IN_FLIGHT = 256
"""Submissions whose answers are not awaited yet."""
FOREIGN = 20
"""Entries of other tasks for each child that are read past, rather than to read the children one by one."""
TOGETHER_WITHIN = 10.0
"""Seconds for it, before they are read one by one all the same."""


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one child ended, as it is recorded."""

    output: msgspec.Raw = NULL
    blob: Blob | None = None
    error: Failure | None = None
    details: msgspec.Raw = NULL


class Plan(NamedTuple):
    """What is mapped."""

    wanted: AnyCapability
    inputs: list[bytes]
    key: str
    digest: str
    limit: int
    max_failures: int | None
    prefix: str
    """What the children's ids begin with."""

    def child(self, index: int) -> Child:
        """The child of an input: it follows the one `limit` before it, so that never more are open at a time."""
        later = index + self.limit
        return Child(
            f"{self.prefix}-{index}",
            self.key,
            after=f"{self.prefix}-{index - self.limit}" if index >= self.limit else None,
            then=f"{self.prefix}-{later}" if later < len(self.inputs) else None,
        )


async def map_all(
    run: Run,
    wanted: AnyCapability,
    inputs: Sequence[Any],
    key: str,
    *,
    limit: int,
    max_failures: int | None,
) -> list[Outcome[Any]]:
    """The outcomes in order. Raises TaskFailed for more failures than allowed, UsageError."""
    if limit < 1:
        raise UsageError(f"map {key}: limit is {limit}, not 1 or more")
    what = f"an input of {wanted.name}"
    data = [payload.encode_value(one, what) for one in inputs]
    digest = of_values(wanted.name, [msgspec.Raw(one) for one in data])
    run.children.count(len(data))
    prefix = run.children.id_of("map", key)
    plan = Plan(wanted, data, key, digest, limit, max_failures, prefix)
    found = run.recording.find(key, "map", digest)
    if found is not None:
        ends = await run.recording.value(found, list[End])
        return [await _outcome(run, plan, index, end) for index, end in enumerate(ends)]
    await run.begin()
    with run.waits.working():
        began = run.since(key, prefix)
        try:
            ends = await _Mapping(run, plan).ends()
        except TaskFailed as error:
            took = run.attempt.clock.now() - began
            await run.recording.failed(key, "map", digest, error, duration=took)
            raise
        took = run.attempt.clock.now() - began
        stored = await payload.store(run.attempt.bus.blobs, codec.encode(ends))
        await run.recording.done(key, "map", digest, stored, duration=took)
        return [await _outcome(run, plan, index, end) for index, end in enumerate(ends)]


class _Mapping:
    """The children of one map, while this run waits for them."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._scopes = [
            run.children.scope(plan.wanted.name, f"{plan.prefix}-{index}")
            for index in range(len(plan.inputs))
        ]
        self._ends: dict[int, History] = {}
        self._failures = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ends(self) -> list[End]:
        """All ends, in order. Raises TaskFailed; left early, the children are cancelled."""
        run, plan = self._run, self._plan
        if not plan.inputs:
            return []
        # One subscription for all of them: its subject is that of all the owner's tasks of this capability.
        watch = run.services.watch
        feed = subjects.live_capability(plan.wanted.name, run.task.owner)
        await watch.open(feed)
        followed: list[Followed] = []
        finished = False
        try:
            known = run.waited_before(plan.key, plan.prefix)
            for scope in self._scopes:
                run.children.open[scope] = None
                followed.append(watch.follow(scope, fresh=True))
            for index, one in enumerate(followed):
                one.ended.add_done_callback(lambda done, at=index: self._ended(at, done))
            if known:
                await self._read(followed)
            else:
                await self._submit(followed)
            await run.waits.wait(self._awaited(), self._over)
            finished = True
        finally:
            for scope, one in zip(self._scopes, followed, strict=False):
                if not one.ended.done():
                    watch.forget(scope)
            await watch.shut(feed)
            if not finished:
                left = [scope for scope in self._scopes if scope in run.children.open]
                await asyncio.shield(run.children.abandon(left, "its caller left"))
        await self._judge()
        return [_end(self._ends[index]) for index in range(len(plan.inputs))]

    async def _judge(self) -> None:
        """Cancel the rest where too many have failed, and raise."""
        if not self._too_many():
            return
        run, plan = self._run, self._plan
        left = [scope for scope in self._scopes if scope in run.children.open]
        await run.children.abandon(left, f"{self._failures} of its siblings failed")
        failed = sorted(at for at, one in self._ends.items() if not _is_completed(one))
        history = self._ends[failed[0]]
        first = classify(outcome.failure(history))
        raise TaskFailed(
            f"{len(failed)} of {len(plan.inputs)} tasks of {plan.wanted.name} failed, "
            f"{plan.max_failures} may: {first.message}",
            task_id=history.task,
            state=history.state,
            error_class=first.error_class,
            step=first.step,
            cause_code=first.code,
            why=first.why,
        )

    def _awaited(self) -> Awaited:
        run, plan = self._run, self._plan
        awaited = Awaited(
            key=plan.key,
            kind="children",
            begun=run.attempt.clock.now(),
            capability=plan.wanted.name,
            task=plan.prefix,
            count=len(plan.inputs),
            max_failures=plan.max_failures,
            together=TOGETHER.get(),
        )
        return run.begun(plan.key, awaited)

    async def _submit(self, followed: list[Followed]) -> None:
        """Send all submissions, their answers awaited in their order and never far behind."""
        sent: list[tuple[int, Opening, asyncio.Future[Appended | Refused]]] = []
        try:
            for index in range(len(self._plan.inputs)):
                opened = await self._opening(index)
                sent.append((index, opened, self._run.children.send(opened)))
                if len(sent) >= IN_FLIGHT:
                    await self._answered(followed, *sent.pop(0))
            while sent:
                await self._answered(followed, *sent.pop(0))
        finally:
            for _, _, answer in sent:
                answer.cancel()

    async def _opening(self, index: int) -> Opening:
        run, plan = self._run, self._plan
        stored = await payload.store(run.attempt.bus.blobs, plan.inputs[index])
        return run.children.opening(plan.wanted, stored, plan.child(index))

    async def _answered(
        self,
        followed: list[Followed],
        index: int,
        opened: Opening,
        answer: asyncio.Future[Appended | Refused],
    ) -> None:
        watch = self._run.services.watch
        answered = await answer
        await self._run.children.stands(opened, answered)
        if isinstance(answered, Appended):
            watch.begun(followed[index], opened.acknowledged(answered.sequence))
        else:
            watch.read(followed[index])
        self._run.attempt.move()

    async def _read(self, followed: list[Followed]) -> None:
        """Read the children's ends; those that are open are heard of later."""
        whole = False
        with contextlib.suppress(TimeoutError, SwitchgearError):
            async with asyncio.timeout(TOGETHER_WITHIN):
                whole = await self._read_together(followed)
        slots = asyncio.Semaphore(AT_A_TIME)

        async def read(index: int, one: Followed) -> None:
            async with slots:
                if self._over.done():
                    return
                watch = self._run.services.watch
                try:
                    stored = await self._run.attempt.bus.ledger.history(self._scopes[index])
                except SwitchgearError:
                    watch.read(one)  # its net tries again
                else:
                    watch.known(one, stored)

        left = (
            read(index, one)
            for index, one in enumerate(followed)
            if not one.ended.done() and (not whole or one.missing())
        )
        await asyncio.gather(*left)

    async def _read_together(self, followed: list[Followed]) -> bool:
        """Read all that the owner's tasks of this capability did since the parent began, and keep the children's.

        Costs a fraction of one read for each child. Returns False where it was broken off: too much was not theirs.
        """
        attempt = self._run.attempt
        found: dict[str, list[Stored]] = {}
        wanted = {scope.split(".")[4]: scope for scope in self._scopes}
        foreign = 0
        stored = attempt.bus.ledger.follow(
            attempt.dispatched.submitted,
            filters=[subjects.scope(self._plan.wanted.name, self._run.task.owner, "*")],
        )
        async with aclosing(cast("AsyncGenerator[list[Stored]]", stored)) as batches:
            async for batch in batches:
                for one in batch:
                    scope = wanted.get(one.subject.split(".", 5)[4])
                    if scope is None:
                        foreign += 1
                    else:
                        found.setdefault(scope, []).append(one)
                attempt.move()
                if not batch or foreign > FOREIGN * len(wanted):
                    break
        for scope, one in zip(self._scopes, followed, strict=True):
            if scope in found and not self._over.done():
                self._run.services.watch.known(one, found[scope])
        return foreign <= FOREIGN * len(wanted)

    def _ended(self, index: int, done: asyncio.Future[History]) -> None:
        if done.cancelled() or self._over.done():
            return
        error = done.exception()
        if error is not None:
            self._over.set_exception(error)
            return
        history = self._ends[index] = done.result()
        self._run.children.ended(self._scopes[index])
        self._failures += not _is_completed(history)
        if len(self._ends) == len(self._scopes) or self._too_many():
            self._over.set_result(None)

    def _too_many(self) -> bool:
        most = self._plan.max_failures
        return most is not None and self._failures > most


def _is_completed(history: History) -> bool:
    return isinstance(history.end, entries.Completed)


def _end(history: History) -> End:
    end = history.end
    if isinstance(end, entries.Completed):
        return End(output=end.output, blob=end.output_blob)
    error = outcome.failure(history)
    return End(error=classify(error), details=msgspec.Raw(replay.details(error)))


async def _outcome(run: Run, plan: Plan, index: int, end: End) -> Outcome[Any]:
    task = f"{plan.prefix}-{index}"
    if end.error is None:
        data = await payload.load(run.attempt.bus.blobs, end.output, end.blob)
        value = outcome.decoded(data, plan.wanted.output, plan.wanted.name)
        return Outcome(ok=True, value=value, error=None, task_id=task)
    error = replay.error_of(end.error, bytes(end.details))
    assert isinstance(error, TaskFailed | Overloaded)
    return Outcome(ok=False, value=None, error=error, task_id=task)
