"""From any stored subject to the scope of its task, whatever a raw writer made of the rest of it."""

from __future__ import annotations

_TOKENS = len(("sg", "task", "capability", "owner", "task-id"))


def scope_of(subject: str) -> str:
    """The scope that this ledger subject is in; its event may be one that nobody knows."""
    return ".".join(subject.split(".")[:_TOKENS]) + ".>"
