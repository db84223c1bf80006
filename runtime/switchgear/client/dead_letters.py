"""Dead letters: tasks that failed for good, by their causes, and how to try them again.

A redrive is a new task without what the dead one recorded. The entry that submits it names the dead task and the
principal that asked: that is the audit trail, and there is no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from switchgear import ids
from switchgear.client.view import View
from switchgear.contract import entries, queries, subjects
from switchgear.contract.dead_letters import DeadGroups, DeadQuery
from switchgear.contract.values import State
from switchgear.errors import Conflict, NotFound
from switchgear.lifecycle.history import History, fold
from switchgear.tasks import payload, submission
from switchgear.tasks.handle import TaskHandle
from switchgear.tasks.scopes import scope_of
from switchgear.tasks.status import tail_of

H = TypeVar("H")

Start = Callable[[str, str, payload.Payload, submission.Options], Awaitable[TaskHandle[Any]]]
"""Submits a task of a capability under an id, with an input and options as entries hold them."""

AS_IT_WAS: Any = ...
"""As an input: the dead task's own."""
_PAGE = 100
_WITHOUT_RESULT: frozenset[State] = frozenset({"dead", "rejected", "cancelled", "expired"})


class Redrive(NamedTuple, Generic[H]):
    """What became of a request to try a dead task again, or of a dry run what would."""

    task: str
    """Id of the new task."""
    redrives: str
    """The dead task that it stems from: the first one, where that was itself a further try."""
    capability: str
    input: Any
    """Plain data; None for one that is kept as a blob."""
    blob: str
    """Digest of an input that is too long for an entry; else empty."""
    changed: bool
    """Whether the input is another than the dead task's."""
    options: submission.Options
    started: bool
    """False in a dry run, and where the same redrive is under way or has succeeded already."""
    state: State
    """Of the new task as it stands; `none` where it does not exist."""
    handle: H | None
    """None in a dry run of what does not exist."""


class _Planned(NamedTuple):
    """A redrive as it would be submitted."""

    capability: str
    origin: str
    given: payload.Payload
    options: submission.Options
    changed: bool


class DeadLetters:
    """The dead tasks of a mesh's principal: `mesh.dead_letters`."""

    def __init__(self, view: View, start: Start) -> None:
        self._view = view
        self._start = start

    async def groups(
        self, *, capability: str | None = None, fingerprint: str | None = None
    ) -> DeadGroups:
        """Dead tasks by capability and fingerprint, the largest group first, from the read model.

        Raises Unavailable when no read model runs (`switchgear observe`), ProtocolError for what is no token.
        """
        query = DeadQuery(capability=capability, fingerprint=fingerprint)
        return await self._view.ask("dead", query, DeadGroups)

    async def list(
        self,
        *,
        fingerprint: str | None = None,
        capability: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> queries.TaskList:
        """Dead tasks, newest first, from the read model. Raises what `groups` raises."""
        return await self._view.list(
            state="dead",
            fingerprint=fingerprint,
            capability=capability,
            limit=limit,
            before=before,
        )

    async def redrive(
        self, id: str, *, input: Any = AS_IT_WAS, dry_run: bool = False
    ) -> Redrive[TaskHandle[Any]]:
        """Try a dead task again: same capability and options, and unless another is given the same input.

        The same request starts nothing twice: as long as the further try is open or has succeeded, it is what is
        returned. A relative deadline counts anew. `dry_run`: only say what would be submitted. Raises NotFound for
        an unknown or deleted task, Conflict for one that is not dead, UsageError for an input that is no JSON, and
        what `submit` raises.
        """
        planned = await self._planned(id, input)
        task, state = await self._next(planned)
        told = Redrive[TaskHandle[Any]](
            task=task,
            redrives=planned.origin,
            capability=planned.capability,
            input=None if planned.given.blob else msgspec.json.decode(planned.given.inline),
            blob=planned.given.blob.digest if planned.given.blob else "",
            changed=planned.changed,
            options=planned.options,
            started=False,
            state=state,
            handle=await self._view.get(task) if state != "none" else None,
        )
        if dry_run or state != "none":
            return told
        handle = await self._start(planned.capability, task, planned.given, planned.options)
        return told._replace(started=True, state="queued", handle=handle)

    async def redrive_many(
        self,
        *,
        fingerprint: str | None = None,
        capability: str | None = None,
        limit: int = 100,
        dry_run: bool = False,
    ) -> list[Redrive[TaskHandle[Any]]]:
        """Try dead tasks again, the oldest of the newest `limit` first; of one task's dead tries only the newest.

        Raises what `list` and `redrive` raise; what was started before stays.
        """
        found: dict[str, str] = {}
        before: str | None = None
        while len(found) < limit:
            page = await self.list(
                fingerprint=fingerprint,
                capability=capability,
                limit=min(limit - len(found), _PAGE),
                before=before,
            )
            for row in page.tasks:
                origin = row.redrives or row.id
                found[origin] = found.pop(origin, row.id)  # its place is that of its oldest row
            if not page.more:
                break
            before = page.tasks[-1].id
        return [await self.redrive(task, dry_run=dry_run) for task in reversed(found.values())]

    async def _planned(self, id: str, input: Any) -> _Planned:
        view = self._view
        tail = await tail_of(view.bus.ledger, view.principal, id)
        scope = scope_of(tail.subject)
        history = fold(scope, await view.bus.ledger.history(scope))
        dead = _submission(history)
        kept = payload.Payload(dead.input, dead.input_blob)
        given = kept
        if input is not AS_IT_WAS:
            data = payload.encode_value(input, f"the input of {history.capability}")
            given = await payload.store(view.bus.blobs, data)
        elif kept.blob is not None:
            # put again: the dead task may be deleted before the new one names it
            await payload.store(view.bus.blobs, await view.bus.blobs.get(kept.blob.digest))
        return _Planned(
            capability=history.capability,
            origin=dead.redrives or history.task,
            given=given,
            options=self._options(history, dead),
            changed=_content(given) != _content(kept),
        )

    def _options(self, history: History, dead: entries.Submitted) -> submission.Options:
        within: timedelta | None = None
        if dead.deadline is not None and history.submitted_stored is not None:
            within = dead.deadline - history.submitted_stored.time
        return submission.Options(
            version=dead.version,
            priority=dead.priority,
            deadline=None if within is None else self._view.now() + within,
            deadline_in=within,
            labels=dict(dead.labels),
            retry=dead.retry,
            require_agent=dead.require_agent,
            redrives=dead.redrives or history.task,
        )

    async def _next(self, planned: _Planned) -> tuple[str, State]:
        """Id and state of the further try with this input that did not fail; `none` where there is none yet."""
        view, number = self._view, 0
        while True:
            task = ids.derived_id(
                "redrive", view.principal, planned.origin, _content(planned.given), str(number)
            )
            scope = subjects.scope(planned.capability, view.principal, task)
            history = fold(scope, await view.bus.ledger.history(scope))
            if history.state not in _WITHOUT_RESULT and not history.remnant:
                return task, history.state
            number += 1


def _submission(history: History) -> entries.Submitted:
    """The opening entry of a dead task. Raises Conflict for any other."""
    if history.ended == "dead" and history.submitted is not None:
        return history.submitted
    if history.remnant:
        raise NotFound(
            f"task {history.task} was deleted by retention",
            fix="submit it again: `switchgear task submit`",
        )
    raise Conflict(
        f"task {history.task} is {history.state}, not dead",
        why="only what failed for good is tried again so",
        fix=f"switchgear task show {history.task}",
    )


def _content(given: payload.Payload) -> str:
    return given.blob.digest if given.blob else ids.digest(bytes(given.inline))
