"""Signalling: the owner's own tasks directly, where a coordinator must judge the sender through one."""

from __future__ import annotations

from msgspec import Raw

from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import codec, limits, queries, subjects
from switchgear.errors import UsageError
from switchgear.tasks import asking, payload, requests
from switchgear.tasks.scopes import scope_of
from switchgear.tasks.waits import asked_of


async def signal(
    bus: Bus, clock: Clock, task: str, name: str, value: object, *, principal: str
) -> int:
    """Send a signal as this principal; returns its place in the ledger.

    A task of another owner, or one whose present wait for this signal names a group, is signalled by a coordinator,
    which decides whether the principal may. Raises NotFound, Conflict for a task that has ended, Forbidden,
    UsageError for a value that is no JSON or beyond 256 KiB (64 KiB where a coordinator decides), ProtocolError for
    what is no token, Unavailable.
    """
    subjects.token(task, "task id")
    subjects.token(name, "signal")
    data = payload.encode_value(value, f"the signal {name}")
    tail = await bus.ledger.tail(subjects.scope("*", principal, task))
    if tail is not None:
        scope = scope_of(tail.subject)
        # A wait for a group does not take what the owner sends: a coordinator knows who belongs to it.
        judged = any(wait.sender and wait.signal == name for wait in await asked_of(bus, scope))
        if not judged:
            return await requests.send_signal(bus, clock, scope, name, data, sender=principal)
    query = queries.SignalQuery(task=task, name=name, payload=Raw(data))
    if len(codec.encode(query)) > limits.MAX_QUERY:
        raise UsageError(
            f"a signal of {len(data)} bytes",
            why=f"a coordinator decides about it, and takes {limits.MAX_QUERY} bytes at most",
        )
    answer = await asking.ask(bus.core, "signal", principal, query, queries.Signalled)
    return answer.sequence
