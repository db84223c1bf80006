"""How a worker serves: every duration and bound that is not the protocol's."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from switchgear.contract import limits


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """Defaults suit services; tests shorten them."""

    drain: timedelta = timedelta(seconds=20)
    """How long a draining instance waits for what it runs before it hands the rest back."""
    cleanup: timedelta = timedelta(seconds=5)
    """How long a cancelled handler may take to leave."""
    hold_time: timedelta = limits.HOLD_TIME
    """How long a handler that only waits keeps its slot."""
    extend_every: timedelta | None = None
    """How often leases are extended; None: every third of what the mesh's leases last."""
    held_briefly: timedelta = timedelta(seconds=1)
    """How long a delivery beyond the free slots waits here before it is handed back."""
    gather_slots: timedelta = timedelta(milliseconds=5)
    """How long freed slots are gathered into one pull while others still run."""
    report_every: timedelta = timedelta(milliseconds=100)
    """The shortest time between two progress reports of a task."""
    shown_after: timedelta = timedelta(milliseconds=300)
    """A task that runs longer than this is announced as running."""
