"""Steering tasks that are under way: cancel, signal, retry, and answers to what they ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.cli import exits
from switchgear.cli.common import COORDINATOR, READ_MODEL, Common, answered_by, joined
from switchgear.cli.question import Question
from switchgear.clock import SYSTEM
from switchgear.contract import subjects
from switchgear.contract.approval import Approval
from switchgear.errors import Conflict, NotFound, UsageError

if TYPE_CHECKING:
    from switchgear.client.mesh import Mesh
    from switchgear.contract.queries import TaskRow

_PAGE = 1000


async def cancel(id: str, reason: str, common: Common) -> int:
    """Ask for the end of a task. Raises NotFound, Conflict for one that has ended otherwise."""
    async with joined(common) as mesh:
        handle = await mesh.get(id)
        requested = await handle.cancel(reason)
        state = "cancelling" if requested else (await handle.status()).state
    if not requested and state not in ("cancelling", "cancelled", "expired"):
        raise Conflict(f"task {id} has ended as {state}", fix=f"switchgear task show {id}")

    def draw() -> str:
        return f"{id} is being cancelled" if state == "cancelling" else f"{id} had ended as {state}"

    document = {"task": id, "requested": requested, "state": state}
    common.output.put("cancel", document, draw)
    return exits.OK


async def signal(id: str, name: str, value: Any, common: Common) -> int:
    """Send a signal. Raises NotFound, Conflict, Forbidden."""
    async with joined(common) as mesh:
        with answered_by(*COORDINATOR):
            sequence = await mesh.signal(id, name, value)
    _sent(id, name, sequence, common, f"{name} is sent to {id}")
    return exits.OK


async def retry(id: str, common: Common) -> int:
    """Let a waiting task begin now. Raises NotFound, Conflict."""
    async with joined(common) as mesh:
        handle = await mesh.get(id)
        with answered_by(*COORDINATOR):
            found = await handle.retry_now()
    document = {"task": id, **msgspec.to_builtins(found)}
    reason = f": {found.reason}" if found.reason else ""
    common.output.put("retried", document, lambda: f"{id} is {found.state}{reason}")
    return exits.OK


async def answer(id: str, name: str | None, common: Common, *, approved: bool, note: str) -> int:
    """Send an approval to the wait that asks. Raises NotFound, Conflict, Forbidden, UsageError."""
    async with joined(common) as mesh:
        with answered_by(*COORDINATOR):
            name = name or await _asked(mesh, id)
            sequence = await mesh.signal(id, name, Approval(approved, note))
    verdict = "approved" if approved else "denied"
    _sent(id, name, sequence, common, f"{name} of {id} is {verdict}")
    return exits.OK


async def questions(capability: str | None, common: Common) -> int:
    """What this principal's tasks wait for, the oldest first."""
    if capability is not None:
        subjects.token(capability, "capability")
    found: list[Question] = []
    async with joined(common) as mesh:
        with answered_by(*READ_MODEL):
            before: str | None = None
            while True:
                page = await mesh.list(
                    capability=capability, state="waiting", limit=_PAGE, before=before
                )
                found += [one for row in page.tasks for one in _questions(row)]
                if not page.more:
                    break
                before = page.tasks[-1].id
    found.reverse()

    def draw() -> Any:
        from switchgear.cli.render import tasks

        return tasks.questions(found, SYSTEM.now())

    document = {"questions": [one._asdict() for one in found], "lag": page.lag}
    common.output.put("question-list", document, draw)
    return exits.OK


async def _asked(mesh: Mesh, id: str) -> str:
    """The name of the one signal that the task waits for."""
    from switchgear.tasks.scopes import scope_of
    from switchgear.tasks.status import tail_of
    from switchgear.tasks.waits import asked_of

    try:
        tail = await tail_of(mesh.bus.ledger, mesh.principal, id)
    except NotFound as error:
        fix = "for a task of another owner name the signal: --signal NAME"
        raise NotFound(error.what, why=error.why, fix=fix) from None
    found = await asked_of(mesh.bus, scope_of(tail.subject))
    names = sorted({wait.signal for wait in found})
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(
            f"task {id} waits for {len(names)} signals", fix=f"--signal {' or '.join(names)}"
        )
    raise Conflict(
        f"task {id} does not wait for an answer",
        why="it asks nothing, has been answered, or began to wait less than 10 s ago",
        fix="wait a moment, or answer ahead: --signal NAME",
    )


def _questions(row: TaskRow) -> list[Question]:
    return [
        Question(
            row.id,
            row.capability,
            row.owner,
            wait.signal,
            wait.sender,
            wait.question,
            wait.begun,
            wait.until,
        )
        for wait in row.asks
    ]


def _sent(id: str, name: str, sequence: int, common: Common, told: str) -> None:
    document = {"task": id, "signal": name, "sequence": sequence}
    common.output.put("signalled", document, lambda: told)
