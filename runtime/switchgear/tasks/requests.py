"""What a client (or somebody on its behalf) appends to a task that is under way: cancel requests and signals."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from switchgear import ids
from switchgear.bus.port import Appended, Bus
from switchgear.clock import Clock
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.values import State, Status
from switchgear.errors import Conflict, NotFound, Unavailable, UsageError
from switchgear.lifecycle.history import History, fold

TRIES = 100
"""Refusals of one append in a row before its sender gives up."""
_EXPIRES = "deadline"
"""The reason that makes the end `expired`: a coordinator's, once the deadline has passed."""


async def request_cancel(bus: Bus, clock: Clock, scope: str, reason: str) -> bool:
    """Ask for the task's end. False where it had ended, or was being cancelled before. Raises Unavailable."""
    if reason == _EXPIRES:
        reason = f"{reason}, as somebody asked"

    def make(history: History) -> entries.Entry | None:
        if not history.is_open or history.cancelling is not None:
            return None
        return entries.CancelRequested(
            v=entries.VERSION,
            id=ids.entry_id(),
            task=history.task,
            time=clock.now(),
            writer=bus.name,
            status=_status(history, "cancelling", reason),
            prev=history.last_valid,
            reason=reason[: limits.MAX_TEXT],
        )

    return await _append(bus, scope, "cancel-requested", make) > 0


async def send_signal(
    bus: Bus, clock: Clock, scope: str, name: str, payload: bytes, *, sender: str, group: str = ""
) -> int:
    """Append a signal; returns its sequence. `payload`: JSON.

    Raises NotFound for a task that was never submitted, Conflict for one that has ended, UsageError for a payload
    above 256 KiB, ProtocolError SG1107 for a name that is no token, Unavailable.
    """
    subjects.token(name, "signal")
    if len(payload) > limits.MAX_INLINE:
        raise UsageError(
            f"a signal of {len(payload)} bytes", why=f"{limits.MAX_INLINE} bytes are the limit"
        )

    def make(history: History) -> entries.Entry | None:
        if history.position == "none" and not history.remnant:
            raise NotFound(f"no task {history.task}")
        if not history.is_open:
            raise Conflict(
                f"task {history.task} has ended as {history.ended}",
                why="only open tasks take signals",
                fix=f"switchgear task show {history.task}",
            )
        return entries.Signalled(
            v=entries.VERSION,
            id=ids.entry_id(),
            task=history.task,
            time=clock.now(),
            writer=bus.name,
            status=_status(history, history.state, ""),
            prev=history.last_valid,
            name=name,
            payload=Raw(payload),
            sender=sender,
            group=group,
        )

    return await _append(bus, scope, "signalled", make)


async def _append(
    bus: Bus,
    scope: str,
    event: subjects.Event,
    make: Callable[[History], entries.Entry | None],
) -> int:
    """Append what `make` wants on the newest history, until it stands; 0 where it wants nothing (any more)."""
    sent: list[str] = []
    for _ in range(TRIES):
        history = fold(scope, await bus.ledger.history(scope))
        for entry_id in sent:
            landed = history.landed(entry_id)
            if landed:
                return landed
        entry = make(history)
        if entry is None:
            return 0
        sent.append(entry.id)
        answer = await bus.ledger.append(
            subjects.task_event(scope, event),
            codec.encode(entry),
            scope=scope,
            expect=history.last,
        )
        if isinstance(answer, Appended):
            return answer.sequence
    raise Unavailable(f"{TRIES} appends to {scope} in a row were refused", retry_after=1.0)


def _status(history: History, state: State, reason: str) -> Status:
    stored = history.submitted_stored
    assert stored is not None
    return Status(
        state=state,
        submitted_at=stored.time,
        attempt=history.attempt,
        failures=history.failures,
        reason=reason[:200],
    )
