"""The children that a task's history names: whom its end may concern (rule 14). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from switchgear.contract import entries
from switchgear.contract.values import Awaited, Token
from switchgear.lifecycle.history import History


class Child(NamedTuple):
    """A task that another one submitted; its owner is the parent's."""

    capability: str
    task: str


class _Submitted(msgspec.Struct):
    """The recorded result of a `submit`."""

    task: Token
    capability: Token
    detached: bool = False


_decode = msgspec.json.Decoder(_Submitted).decode


def named(history: History, begun: Iterable[Awaited]) -> Iterator[Child]:
    """The children that may be open and do not outlive the task. `begun`: all waits that its entries name."""
    over: set[str] = set()
    for _, _, entry in history.valid:
        if not isinstance(entry, entries.Checkpoint) or not entry.ok:
            continue
        if entry.kind in ("call", "map"):
            over.add(entry.key)
        elif entry.kind == "submit":
            child = _submitted(entry)
            if child is not None:
                yield child
    waits = {(wait.capability, wait.task): wait for wait in begun if wait.key not in over}
    for (capability, task), wait in waits.items():
        if wait.kind == "child":
            yield Child(capability, task)
        elif wait.kind == "children":
            for index in range(wait.count):
                yield Child(capability, f"{task}-{index}")


def _submitted(entry: entries.Checkpoint) -> Child | None:
    try:
        found = _decode(entry.result)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if found.detached else Child(found.capability, found.task)
