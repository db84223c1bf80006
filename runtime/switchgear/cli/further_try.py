"""A further try of a dead task, as screens show it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from switchgear.contract.values import State


class Try(NamedTuple):
    """A further try of a dead task, as its submission tells it."""

    task: str
    state: State
    by: str
    """The principal that asked."""
    writer: str
    """Its client."""
    time: datetime
    changed: bool
    """Whether it was given another input."""
    input: Any
    """None for one that is kept as a blob."""
