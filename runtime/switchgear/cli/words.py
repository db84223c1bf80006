"""Small texts that several screens share: ages, durations, colours of states."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

STYLE: Final[dict[str, str]] = {
    "queued": "cyan",
    "dispatched": "cyan",
    "submitted": "cyan",
    "held": "blue",
    "running": "blue",
    "progress": "blue",
    "loose": "yellow",
    "failed": "yellow",
    "attempt-failed": "yellow",
    "waiting": "yellow",
    "cancelling": "yellow",
    "cancel-requested": "yellow",
    "taken-over": "yellow",
    "released": "yellow",
    "completed": "green",
    "rejected": "red",
    "dead": "red",
    "cancelled": "magenta",
    "expired": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "clean": "green",
    "findings": "yellow",
    "failing": "red",
    "could not run": "red",
    "incomplete": "yellow",
}
"""Colours of states, events, checks and verdicts; what is missing has none."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def span(value: timedelta) -> str:
    """A duration in the two units that matter: 0.42 s, 12.3 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    seconds = max(value.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    if seconds < _DAY:
        return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"
    return f"{int(seconds // _DAY)} d {int(seconds % _DAY // _HOUR)} h"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in one unit: `now`, `12 s ago`, `3 min ago`."""
    seconds = (now - moment).total_seconds()
    if seconds < 1:
        return "now"
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now"


def after(start: datetime, moment: datetime) -> str:
    """A moment relative to a start, for timelines: `+0.004 s`."""
    return f"+{(moment - start).total_seconds():.3f} s"


def size(count: float) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 3.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - the unit's own base
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def one_line(text: str, limit: int = 0) -> str:
    """The text on one line, cut to `limit` characters (0: not cut)."""
    line = " ".join(text.split())
    return line if not limit or len(line) <= limit else f"{line[: limit - 1]}…"
