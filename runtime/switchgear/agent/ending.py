"""What the end of a task calls for beyond its own entries: others that wait for it, children that end with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from switchgear.agent import children
from switchgear.contract import subjects

if TYPE_CHECKING:
    from switchgear.agent.attempt import Attempt
    from switchgear.bus.port import Bus
    from switchgear.clock import Clock
    from switchgear.contract.entries import Dispatched
    from switchgear.lifecycle.history import History

REASON = "its parent has ended"


async def ended(attempt: Attempt, open_children: Iterable[str] = ()) -> None:
    """After the last entry and before the ack (rule 4): wake who waits, cancel the children that are still open."""
    dispatched, subject = attempt.dispatched, attempt.subject
    open_children = list(open_children)
    if open_children:
        await children.cancel_all(attempt.bus, attempt.clock, open_children, REASON)
    if dispatched.parent is not None or dispatched.then is not None:
        await _wake(attempt.bus, subject, dispatched)


async def found_ended(bus: Bus, clock: Clock, history: History, dispatched: Dispatched) -> None:
    """The same for a task that is found ended: whoever ended it may have died before (rule 3)."""
    await children.cancel_all(bus, clock, children.named(history), REASON)
    if dispatched.parent is not None or dispatched.then is not None:
        await _wake(bus, subjects.parse_task(f"{history.scope[:-1]}submitted"), dispatched)


async def _wake(bus: Bus, subject: subjects.TaskSubject, dispatched: Dispatched) -> None:
    parent = dispatched.parent
    if parent is not None:
        scope = subjects.scope(parent.capability, subject.owner, parent.task)
        await bus.timers.wake(subjects.due(scope, "child"))
    if dispatched.then is not None:
        scope = subjects.scope(subject.capability, subject.owner, dispatched.then)
        await bus.timers.wake(subjects.due(scope, "turn"))
