"""Children: tasks that a handler starts, on behalf of the run's owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import NamedTuple

import msgspec

from switchgear import crashpoint, ids
from switchgear.agent.attempt import Attempt
from switchgear.agent.task_info import TaskInfo
from switchgear.bus.port import Appended, Bus, Refused
from switchgear.clock import Clock
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.capability import AnyCapability
from switchgear.contract.codes import FAILURES, REJECTIONS
from switchgear.contract.values import Awaited, Parent
from switchgear.errors import Conflict, Permanent, StepChanged, SwitchgearError, Unavailable
from switchgear.lifecycle.history import History, fold
from switchgear.tasks import submission
from switchgear.tasks.payload import Payload
from switchgear.tasks.requests import request_cancel

log = logging.getLogger(__name__)

AT_A_TIME = 64
"""Reads or cancels of children at a time."""


class Child(NamedTuple):
    """What a child's submission says beside its input."""

    task: str
    key: str
    detached: bool = False
    after: str | None = None
    then: str | None = None


class Submitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is recorded of a child that `ctx.submit` started."""

    task: str
    capability: str
    detached: bool = False


class Children:
    """The children of one task, as far as this run of its handler has started or met them."""

    def __init__(self, attempt: Attempt, task: TaskInfo) -> None:
        self._attempt = attempt
        self._task = task
        self._count = 0
        self.open: dict[str, None] = {}
        """Scopes of those that end with the task, in the order of their submission."""

    def count(self, children: int) -> None:
        """Take so many more into account. Raises Permanent with SG1517, or SG1208 below too many levels."""
        self._count += children
        if self._count > limits.MAX_CHILDREN:
            what, fix = FAILURES["SG1517"]
            raise _permanent(
                "SG1517",
                what,
                f"this would be child {self._count}, and {limits.MAX_CHILDREN} are the limit",
                fix,
            )
        if self._attempt.dispatched.depth + 1 > limits.MAX_DEPTH:
            what, fix = REJECTIONS["SG1208"]
            raise _permanent("SG1208", what, f"{limits.MAX_DEPTH} levels are the limit", fix)

    def id_of(self, kind: str, key: str) -> str:
        """The id of the child under this key: found again by a re-run, another one after a failed attempt."""
        return ids.derived_id(kind, self._task.id, key, str(self._attempt.failures))

    def scope(self, capability: str, task: str) -> str:
        """The scope of a child."""
        return subjects.scope(capability, self._task.owner, task)

    def opening(self, wanted: AnyCapability, data: Payload, child: Child) -> submission.Opening:
        """The submission of a child. A detached one outlives its parent, and so the parent's deadline."""
        dispatched, bus = self._attempt.dispatched, self._attempt.bus
        opened = submission.opening(
            wanted.name,
            self._task.owner,
            child.task,
            data,
            entry_id=ids.entry_id(),
            writer=bus.name,
            now=self._attempt.clock.now(),
            options=submission.Options(
                version=wanted.version, deadline=None if child.detached else self._task.deadline
            ),
            lineage=submission.Lineage(
                root=self._task.root,
                parent=Parent(task=self._task.id, capability=self._task.capability, key=child.key),
                depth=dispatched.depth + 1,
                trace=dispatched.trace,
            ),
        )
        if not (child.detached or child.after or child.then):
            return opened
        entry = msgspec.structs.replace(
            opened.entry, detached=child.detached, after=child.after, then=child.then
        )
        return opened._replace(entry=entry, body=codec.encode(entry))

    async def submit(self, opened: submission.Opening) -> bool:
        """Append a child's submission. Returns whether it is new; False where an earlier run had made it.

        Raises StepChanged where the same key stood for another input.
        """
        answer = await self.send(opened)
        return await self.stands(opened, answer)

    def send(self, opened: submission.Opening) -> asyncio.Future[Appended | Refused]:
        """Send the submission without waiting for its answer; into a full ledger as soon as it has room."""
        if not opened.entry.detached:
            self.open[opened.scope] = None
        return asyncio.ensure_future(self._sent(opened, self._append(opened)))

    def _append(self, opened: submission.Opening) -> Awaitable[Appended | Refused]:
        ledger = self._attempt.bus.ledger
        return ledger.append(opened.subject, opened.body, scope=opened.scope, expect=0)

    async def _sent(
        self, opened: submission.Opening, answer: Awaitable[Appended | Refused]
    ) -> Appended | Refused:
        """The broker's answer. What a running task needs to end waits for room, and costs it no attempt (rule 19)."""
        while True:
            try:
                return await answer
            except Unavailable as error:
                if not error.full:
                    raise
                await asyncio.sleep(error.retry_after or 1)
                answer = self._append(opened)

    async def stands(self, opened: submission.Opening, answer: Appended | Refused) -> bool:
        """Make sure that a submission stands, whatever the broker answered; as `submit`."""
        if isinstance(answer, Refused):
            try:
                await submission.confirm(self._attempt.bus, opened, answer)
            except Conflict as error:
                raise StepChanged(
                    f"the child of task {self._task.id} under its key was submitted with another input"
                ) from error
        crashpoint.reach("agent.after-child-submitted")
        return isinstance(answer, Appended)

    def ended(self, scope: str) -> None:
        """A child needs no cancel any more."""
        self.open.pop(scope, None)

    async def history(self, scope: str) -> History:
        """A child's history as stored now."""
        return fold(scope, await self._attempt.bus.ledger.history(scope))

    @property
    def left_alone(self) -> bool:
        """Whether children outlive this run, since the next one will wait for them."""
        attempt = self._attempt
        return attempt.handing_back or attempt.lost or attempt.suspended or attempt.refused

    async def abandon(self, scopes: Iterable[str], reason: str) -> None:
        """Cancel these, unless the next run will wait for them."""
        scopes = list(scopes)
        if not self.left_alone:
            for scope in scopes:
                self.ended(scope)
            await cancel_all(self._attempt.bus, self._attempt.clock, scopes, reason)


async def cancel_all(bus: Bus, clock: Clock, scopes: Iterable[str], reason: str) -> None:
    """Cancel each of these tasks that is still open; without a broker nobody can be told."""
    limit = asyncio.Semaphore(AT_A_TIME)

    async def cancel(scope: str) -> None:
        async with limit:
            try:
                await request_cancel(bus, clock, scope, reason)
            except SwitchgearError as error:
                log.warning("child.not-cancelled %s: %s", scope, error)

    await asyncio.gather(*map(cancel, scopes))


def named(history: History) -> list[str]:
    """Scopes of the children that a task's entries name and that end with it, where no entry says that they ended."""
    submitted: dict[str, list[str]] = {}
    awaited: dict[str, list[str]] = {}
    for _, _, entry in history.valid:
        if isinstance(entry, entries.Checkpoint):
            if entry.kind in ("call", "map"):
                awaited.pop(entry.key, None)
            elif entry.kind == "submit" and entry.ok:
                submitted[entry.key] = _submitted(history, entry)
        elif isinstance(entry, entries.Waiting):
            for wait in entry.waits:
                if wait.kind in ("child", "children") and wait.key not in submitted:
                    awaited[wait.key] = _awaited(history, wait)
    return [scope for scopes in (*submitted.values(), *awaited.values()) for scope in scopes]


def _awaited(history: History, wait: Awaited) -> list[str]:
    many = wait.kind == "children"
    tasks = [f"{wait.task}-{index}" for index in range(wait.count)] if many else [wait.task]
    return [subjects.scope(wait.capability, history.owner, task) for task in tasks]


def _submitted(history: History, entry: entries.Checkpoint) -> list[str]:
    try:
        child = codec.decoder(Submitted).decode(entry.result)
    except msgspec.MsgspecError:
        return []
    return [] if child.detached else [subjects.scope(child.capability, history.owner, child.task)]


def _permanent(code: str, what: str, why: str, fix: str) -> Permanent:
    error = Permanent(what, why=why, fix=fix)
    error.code = code
    return error
