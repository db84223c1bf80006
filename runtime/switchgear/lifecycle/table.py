"""The state table of the protocol: which event may follow in which position, and who may append it.

Positions are the table's rows; `cancelling` is a flag beside them, since who holds the task stays known.
"""

from __future__ import annotations

from typing import Literal

Position = Literal["none", "queued", "held", "loose", "failed", "waiting"]
Role = Literal["client", "coordinator", "holder", "next holder"]

_OPEN: frozenset[tuple[str, str]] = frozenset(
    {
        ("signalled", "client"),
        ("cancel-requested", "client"),
        ("cancelled", "coordinator"),
        ("expired", "coordinator"),
    }
)
_REROUTED: frozenset[tuple[str, str]] = frozenset(
    {("dispatched", "coordinator"), ("waiting", "coordinator")}
)
_STOPPED = _OPEN | _REROUTED | {("dead", "coordinator"), ("rejected", "coordinator")}

LEGAL: dict[Position, frozenset[tuple[str, str]]] = {
    "none": frozenset({("submitted", "client")}),
    "queued": _OPEN | _REROUTED | {("rejected", "coordinator")},
    "held": _OPEN
    | _REROUTED
    | {
        ("checkpoint", "holder"),
        ("waiting", "holder"),
        ("released", "holder"),
        ("attempt-failed", "holder"),
        ("completed", "holder"),
        ("taken-over", "next holder"),
    },
    "loose": _OPEN | _REROUTED | {("taken-over", "next holder")},
    "failed": _STOPPED,
    "waiting": _STOPPED,
}
"""Position -> what may follow, as (event, who appends it); after a terminal event nothing may."""

_UNHELD_CANCELLING = _OPEN | {("dispatched", "coordinator")}

LEGAL_CANCELLING: dict[Position, frozenset[tuple[str, str]]] = {
    "none": frozenset(),
    "queued": _UNHELD_CANCELLING,
    "held": _OPEN
    | {
        ("checkpoint", "holder"),
        ("released", "holder"),
        ("cancelled", "holder"),
        ("expired", "holder"),
        ("taken-over", "next holder"),
    },
    "loose": _OPEN | {("taken-over", "next holder")},
    "failed": _UNHELD_CANCELLING,
    "waiting": _UNHELD_CANCELLING,
}
"""The same while the task is being cancelled."""
