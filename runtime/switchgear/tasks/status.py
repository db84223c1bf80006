"""What the newest entry says of a task: one direct read."""

from __future__ import annotations

from switchgear.bus.port import Ledger
from switchgear.contract import codec, subjects
from switchgear.contract.queries import TaskRow
from switchgear.contract.stored import Stored, expectation
from switchgear.errors import NotFound, ProtocolError
from switchgear.lifecycle.history import Valid, fold
from switchgear.tasks.scopes import scope_of


async def tail_of(ledger: Ledger, principal: str, task: str) -> Stored:
    """The newest entry of this principal's task. Raises NotFound, and ProtocolError for what is no id."""
    subjects.token(task, "task id")
    tail = await ledger.tail(subjects.scope("*", principal, task))
    if tail is None:
        raise NotFound(
            f"no task {task} of {principal}",
            fix="`switchgear task ls` lists your tasks; `--context` chooses another principal",
        )
    return tail


async def status_of(ledger: Ledger, principal: str, task: str) -> TaskRow:
    """What that entry's writer claims; of the last entry that counts where it proves nothing. Raises NotFound."""
    tail = await tail_of(ledger, principal, task)
    newest = _alone(tail) or await _newest(ledger, scope_of(tail.subject))
    subject, entry = newest.subject, newest.entry
    return TaskRow(
        id=task,
        capability=subject.capability,
        owner=subject.owner,
        state=entry.status.state,
        submitted_at=entry.status.submitted_at,
        updated_at=newest.stored.time,
        attempt=entry.status.attempt,
        failures=entry.status.failures,
        agent=entry.writer if getattr(entry, "hold", 0) else "",
        reason=entry.status.reason,
    )


def _alone(tail: Stored) -> Valid | None:
    """The entry, if it can be believed alone: a raw writer's is neither proven nor, at times, readable."""
    if expectation(tail.headers, scope_of(tail.subject)) is None:
        return None
    try:
        subject = subjects.parse_task(tail.subject)
        return Valid(tail, subject, codec.decode_entry(subject, tail.data))
    except ProtocolError:
        return None


async def _newest(ledger: Ledger, scope: str) -> Valid:
    """The last entry of the scope that counts. Raises NotFound, and ProtocolError for an unreadable submission."""
    history = fold(scope, await ledger.history(scope))
    if history.valid:
        return history.valid[-1]
    if history.malformed is not None:
        raise history.malformed
    raise NotFound(f"nothing valid was ever submitted as task {history.task}")
