"""What a suspended handler waits for, and whether it may go on (rule 13). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from switchgear.contract import entries
from switchgear.contract.values import Awaited
from switchgear.lifecycle.history import History

Condition = Literal["open", "done", "failed"]
"""Of a wait: nothing yet, over, or over in a way that ends what is waited for together with it."""


class Signal(NamedTuple):
    """A signal in the ledger that no wait has taken or refused."""

    sequence: int
    entry: entries.Signalled


def untaken(history: History) -> list[Signal]:
    """The signals that no recorded wait has taken or refused, in ledger order."""
    gone = taken(history)
    return [
        Signal(stored.sequence, entry)
        for stored, _, entry in history.valid
        if isinstance(entry, entries.Signalled) and stored.sequence not in gone
    ]


def taken(history: History) -> set[int]:
    """The sequences of the signals that a recorded wait has taken or refused."""
    recorded = (entry for _, _, entry in history.valid if isinstance(entry, entries.Checkpoint))
    return {entry.signal for entry in recorded if entry.signal}


def refuses(entry: entries.Checkpoint) -> bool:
    """Whether it says that a signal did not fit the wait of its key: taken all the same, and the wait goes on."""
    return entry.kind == "signal" and not entry.ok and entry.signal > 0


def first(signals: Iterable[Signal], name: str, group: str) -> Signal | None:
    """The oldest of these signals that a wait for this name and sender's group may take."""
    fitting = (one for one in signals if one.entry.name == name and one.entry.group == group)
    return next(fitting, None)


def waits_children(waits: Iterable[Awaited]) -> bool:
    """Whether any of them is for a child: their ends are other scopes, so a lost wake must not matter."""
    return any(one.kind in ("child", "children") for one in waits)


def met(
    history: History, waits: Iterable[Awaited], children: Mapping[str, Condition], now: datetime
) -> str:
    """Why the handler may go on; empty while it may not. `children`: by key, of waits for children.

    Each signal ends one wait only, the first that it fits: two waits for one name need two signals.
    """
    signals = untaken(history)
    together: dict[str, list[Condition]] = {}
    for wait in waits:
        condition = _condition(wait, signals, children, now)
        if wait.together and condition != "failed":
            together.setdefault(wait.together, []).append(condition)
        elif condition != "open":
            return f"{wait.kind} {wait.key}: {condition}"
    for mark, conditions in together.items():
        if "open" not in conditions:
            return f"all of {mark} are done"
    return ""


def next_time(waits: Iterable[Awaited], now: datetime) -> datetime | None:
    """When the next of them ends or gives up, with no other's help; None where none will."""
    times = (wait.until for wait in waits if wait.until is not None and wait.until > now)
    return min(times, default=None)


def _condition(
    wait: Awaited, signals: list[Signal], children: Mapping[str, Condition], now: datetime
) -> Condition:
    over = wait.until is not None and now >= wait.until
    if wait.kind == "timer":
        return "done" if over else "open"
    if wait.kind == "signal":
        signal = first(signals, wait.signal, wait.sender)
        if signal is not None:
            signals.remove(signal)
            return "done"
        return "failed" if over else "open"
    found = children.get(wait.key, "open")
    return "failed" if over and found == "open" else found
