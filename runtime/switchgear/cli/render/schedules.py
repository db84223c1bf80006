"""Schedules, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import table, word

if TYPE_CHECKING:
    from switchgear.contract.queries import ScheduleRow


def schedule_list(rows: Sequence[ScheduleRow], now: datetime) -> RenderableType:
    """The schedules, and when each is due next."""
    if not rows:
        return Text("no schedules: put one with `switchgear schedule put NAME CAPABILITY CRON`")
    return table(
        ("NAME", "CAPABILITY", "TIMES", "ZONE", "NEXT", "MISSED", "OVERLAP", "LAST TASK"),
        [
            (
                row.schedule.name,
                row.schedule.capability,
                row.schedule.cron.expression,
                row.schedule.cron.timezone,
                _next(row, now),
                row.schedule.cron.missed,
                row.schedule.cron.overlap,
                row.schedule.last or "-",
            )
            for row in rows
        ],
    )


def _next(row: ScheduleRow, now: datetime) -> Text | str:
    if row.schedule.paused:
        return word("paused", "waiting")
    if row.next is None:
        return "never"
    return f"in {words.span(row.next - now)}" if row.next > now else "now"
