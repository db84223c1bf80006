"""Dead letters on the command line: by cause, one with its further tries, and trying them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from switchgear.cli import exits
from switchgear.cli.common import READ_MODEL, Common, answered_by, joined
from switchgear.cli.further_try import Try
from switchgear.cli.looking import MAX_LIMIT, plain_data
from switchgear.clock import SYSTEM
from switchgear.contract import entries, subjects
from switchgear.errors import UsageError
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.scopes import scope_of
from switchgear.tasks.status import tail_of

if TYPE_CHECKING:
    from switchgear.client.dead_letters import Redrive
    from switchgear.client.mesh import Mesh


class Wanted(NamedTuple):
    """What shall be tried again."""

    ids: tuple[str, ...]
    input: Any
    """`...` for the dead task's own."""
    fingerprint: str | None
    capability: str | None
    limit: int
    dry_run: bool


async def groups(capability: str | None, common: Common) -> int:
    """Dead tasks by cause, the largest group first."""
    if capability is not None:
        subjects.token(capability, "capability")
    async with joined(common) as mesh:
        with answered_by(*READ_MODEL):
            found = await mesh.dead_letters.groups(capability=capability)

    def draw() -> Any:
        from switchgear.cli.render import dead

        return dead.groups(found, SYSTEM.now())

    common.output.put("dead-list", plain_data(found), draw)
    return exits.OK


async def show(id: str, common: Common) -> int:
    """One dead task and its further tries. Raises NotFound, Conflict for one that is not dead."""
    async with joined(common) as mesh:
        # A dry run says what the task was given, and refuses one that is not dead.
        planned = await mesh.dead_letters.redrive(id, dry_run=True)
        row = await mesh.status(id)
        history = await _history(mesh, id)
        with answered_by(*READ_MODEL):
            listed = await mesh.list(redrives=planned.redrives, limit=MAX_LIMIT)
        tries = [_try(await _history(mesh, one.id), history) for one in reversed(listed.tasks)]
    error = history.end.error if isinstance(history.end, entries.Dead) else None

    def draw() -> Any:
        from switchgear.cli.render import dead

        return dead.letter(row, error, planned, tries, SYSTEM.now())

    document = {
        "task": plain_data(row),
        "error": None if error is None else plain_data(error),
        "first": planned.redrives,
        "input": planned.input,
        "blob": planned.blob,
        "redrives": [msgspec.to_builtins(one._asdict()) for one in tries],
        "lag": listed.lag,
    }
    common.output.put("dead-letter", document, draw)
    return exits.OK


async def redrive(wanted: Wanted, common: Common) -> int:
    """Try them again, or say what would be submitted. Raises NotFound, Conflict, UsageError."""
    _check(wanted)
    async with joined(common) as mesh:
        letters = mesh.dead_letters
        told = [
            await letters.redrive(one, input=wanted.input, dry_run=wanted.dry_run)
            for one in wanted.ids
        ]
        if not wanted.ids:
            with answered_by(*READ_MODEL):
                told = await letters.redrive_many(
                    fingerprint=wanted.fingerprint,
                    capability=wanted.capability,
                    limit=wanted.limit,
                    dry_run=wanted.dry_run,
                )

    def draw() -> Any:
        from switchgear.cli.render import dead

        return dead.redrives(told, dry_run=wanted.dry_run)

    documents = [redrive_data(one) for one in told]
    common.output.put("redrive-list", {"dry_run": wanted.dry_run, "redrives": documents}, draw)
    return exits.OK


def redrive_data(one: Redrive[Any]) -> dict[str, Any]:
    """A redrive as a document's fields."""
    fields = one._asdict()
    del fields["handle"]
    return msgspec.to_builtins(fields | {"options": one.options._asdict()})


def _check(wanted: Wanted) -> None:
    by_filter = wanted.fingerprint is not None or wanted.capability is not None
    if bool(wanted.ids) == by_filter:
        raise UsageError(
            "name the tasks to try again, or choose them by --fingerprint or --capability",
            fix="`switchgear dead ls` lists what there is",
        )
    if wanted.input is not ... and len(wanted.ids) != 1:
        raise UsageError("--input is for one task", fix="name one task")
    if wanted.limit < 1:
        raise UsageError(f"--limit is {wanted.limit}", fix="give a number from 1 on")
    if wanted.capability is not None:
        subjects.token(wanted.capability, "capability")


async def _history(mesh: Mesh, id: str) -> History:
    tail = await tail_of(mesh.bus.ledger, mesh.principal, id)
    scope = scope_of(tail.subject)
    return fold(scope, await mesh.bus.ledger.history(scope))


def _try(history: History, dead: History) -> Try:
    submitted, before = history.submitted, dead.submitted
    assert submitted is not None
    assert before is not None
    changed = (submitted.input_blob, bytes(submitted.input)) != (
        before.input_blob,
        bytes(before.input),
    )
    stored = history.submitted_stored
    return Try(
        task=history.task,
        state=history.state,
        by=history.owner,
        writer=submitted.writer,
        time=stored.time if stored is not None else submitted.time,
        changed=changed,
        input=None if submitted.input_blob else msgspec.json.decode(submitted.input),
    )
