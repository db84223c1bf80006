"""The task that a handler runs, as the handler sees it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class TaskInfo(NamedTuple):
    """Equal in every run of the task."""

    id: str
    root: str
    """The run's root task; the task itself for a root."""
    parent: str | None
    capability: str
    owner: str
    """The principal that the run is for."""
    submitted_at: datetime
    deadline: datetime | None
    scheduled_for: datetime | None
