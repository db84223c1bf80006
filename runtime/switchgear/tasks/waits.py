"""What a suspended task waits for: read from its newest `waiting`, and told in a few words."""

from __future__ import annotations

from collections.abc import Iterable

from switchgear.bus.port import Blobs, Bus
from switchgear.contract import codec, entries, limits
from switchgear.contract.values import Awaited
from switchgear.lifecycle.history import fold


async def waits_of(blobs: Blobs, waiting: entries.Waiting) -> tuple[Awaited, ...]:
    """All that it waits for. Raises NotFound and ProtocolError where they are a blob that is missing or damaged."""
    if waiting.waits_blob is None:
        return waiting.waits
    data = await blobs.get(waiting.waits_blob.digest)
    return codec.decode(data, tuple[Awaited, ...], limit=limits.MAX_BLOB)


async def asked_of(bus: Bus, scope: str) -> tuple[Awaited, ...]:
    """The signals that this task waits for now; none while its handler runs. Raises what `waits_of` raises."""
    history = fold(scope, await bus.ledger.history(scope))
    if not history.is_open or history.position != "waiting" or history.waiting is None:
        return ()
    return signals(await waits_of(bus.blobs, history.waiting))


def signals(waits: Iterable[Awaited]) -> tuple[Awaited, ...]:
    """Those that somebody outside can end: waits for a signal."""
    return tuple(wait for wait in waits if wait.kind == "signal")


def told(waiting: entries.Waiting) -> str:
    """Why the task waits, for lists and timelines."""
    if waiting.detail or not waiting.waits:
        return waiting.detail or waiting.reason
    first, *others = [_one(wait) for wait in waiting.waits]
    return f"{first} and {len(others)} more" if others else first


def _one(wait: Awaited) -> str:
    if wait.kind == "signal":
        of = f" of {wait.sender}" if wait.sender else ""
        return f"signal {wait.signal}{of}" + (f": {wait.question}" if wait.question else "")
    if wait.kind == "timer":
        return f"until {wait.until:%Y-%m-%d %H:%M:%S} UTC" if wait.until else f"timer {wait.key}"
    if wait.kind == "children":
        return f"{wait.count} tasks of {wait.capability}"
    return f"{wait.capability} task {wait.task}"
