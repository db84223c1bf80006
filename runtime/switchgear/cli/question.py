"""A question that a task asks, as screens show it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Question(NamedTuple):
    """A signal that a task waits for."""

    task: str
    capability: str
    owner: str
    signal: str
    sender: str
    """The group that may answer; empty: the owner."""
    question: str
    since: datetime
    until: datetime | None
