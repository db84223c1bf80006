"""What the newest entry says of a task: one direct read."""

from __future__ import annotations

from switchgear.bus.port import Ledger
from switchgear.contract import codec, subjects
from switchgear.contract.queries import TaskRow
from switchgear.contract.stored import Stored
from switchgear.errors import NotFound


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
    """What that entry's writer claims. Raises NotFound."""
    tail = await tail_of(ledger, principal, task)
    subject = subjects.parse_task(tail.subject)
    entry = codec.decode_entry(subject, tail.data)
    return TaskRow(
        id=task,
        capability=subject.capability,
        owner=subject.owner,
        state=entry.status.state,
        submitted_at=entry.status.submitted_at,
        updated_at=tail.time,
        attempt=entry.status.attempt,
        failures=entry.status.failures,
        agent=entry.writer if getattr(entry, "hold", 0) else "",
        reason=entry.status.reason,
    )
