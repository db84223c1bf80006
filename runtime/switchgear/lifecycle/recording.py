"""What a task's history has recorded for the next run of its handler (rule 12). Pure."""

from __future__ import annotations

from typing import NamedTuple

from switchgear.contract import entries
from switchgear.contract.values import Awaited
from switchgear.lifecycle.history import History
from switchgear.lifecycle.suspension import Signal, refuses, untaken

_UNDO = ("undo-registered", "undo-dropped", "undo-begun", "undo-done")


class Records(NamedTuple):
    """By key, what need not run again."""

    ends: dict[str, entries.Checkpoint]
    """Recorded results, and failures of the present attempt's line: those before the last retry run again."""
    begun: dict[str, Awaited]
    """Waits that began in an earlier run, with the times that they were given then."""
    registered: frozenset[str]
    """Keys of undos that were ever registered."""
    open_undos: tuple[entries.Checkpoint, ...]
    """Undos to run if the task fails or is cancelled, oldest first."""
    signals: tuple[Signal, ...]
    """Not yet taken, in ledger order."""


NOTHING = Records({}, {}, frozenset(), (), ())


def suspension(history: History) -> entries.Waiting | None:
    """The newest `waiting` that says what the handler waits for; one of a coordinator's may have followed it."""
    for _, _, entry in reversed(history.valid):
        if isinstance(entry, entries.Waiting) and (entry.waits or entry.waits_blob):
            return entry
    return None


def records(history: History, begun: tuple[Awaited, ...] = ()) -> Records:
    """What this history records. `begun`: the waits of its `suspension`, where they are kept as a blob."""
    newest = suspension(history) if begun else None
    ends: dict[str, entries.Checkpoint] = {}
    waits: dict[str, Awaited] = {}
    registered: set[str] = set()
    for _, _, entry in history.valid:
        if isinstance(entry, entries.Checkpoint):
            if entry.kind == "undo-registered":
                registered.add(entry.key)
            elif entry.kind not in _UNDO and not refuses(entry):
                ends[entry.key] = entry
        elif isinstance(entry, entries.AttemptFailed):
            ends = {key: one for key, one in ends.items() if one.ok}
            waits = {key: one for key, one in waits.items() if one.kind == "timer"}
        elif isinstance(entry, entries.Waiting):
            found = begun if entry is newest else entry.waits
            waits.update((wait.key, wait) for wait in found)
    return Records(
        ends,
        waits,
        frozenset(registered),
        tuple(history.open_undos.values()),
        tuple(untaken(history)),
    )
