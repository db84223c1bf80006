"""Tasks: lists, one task with its entries, why a task is where it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import pairs, table, word

if TYPE_CHECKING:
    from switchgear.client.events import TaskEvent
    from switchgear.contract.queries import Explanation, Moment, TaskList, TaskRow

_CUT = 60


def task_list(found: TaskList, now: datetime) -> RenderableType:
    """Tasks, newest first, and how far behind the list may be."""
    parts: list[RenderableType] = []
    if found.tasks:
        parts.append(
            table(
                ("TASK", "CAPABILITY", "STATE", "SUBMITTED", "ATTEMPT", "AGENT", "REASON"),
                [
                    (
                        row.id,
                        row.capability,
                        word(row.state),
                        words.ago(row.submitted_at, now),
                        str(row.attempt),
                        row.agent or "-",
                        words.one_line(row.error.message if row.error else row.reason, _CUT),
                    )
                    for row in found.tasks
                ],
            )
        )
    else:
        parts.append(Text("no tasks"))
    if found.more:
        parts.append(Text(f"more: --before {found.tasks[-1].id}", style="dim"))
    if found.lag:
        parts.append(Text(f"the list lacks the newest {found.lag} ledger entries", style="dim"))
    return Group(*parts)


def task(
    row: TaskRow, events: Sequence[TaskEvent], now: datetime, *, input: str = "", root: str = ""
) -> RenderableType:
    """One task: what it is, and every entry of it."""
    end = row.updated_at if row.state in _ENDED else now
    head = pairs(
        [
            ("task", row.id),
            ("capability", row.capability),
            ("state", word(row.state)),
            ("reason", row.reason),
            ("owner", row.owner),
            ("run", root if root != row.id else ""),
            ("agent", row.agent),
            ("attempt", str(row.attempt)),
            ("failures", str(row.failures) if row.failures else ""),
            ("submitted", f"{row.submitted_at:%Y-%m-%d %H:%M:%S} UTC, {words.ago(row.submitted_at, now)}"),
            ("duration", words.span(end - row.submitted_at)),
            ("input", words.one_line(input, 200)),
        ]
    )  # fmt: skip
    return Group(head, Text(), event_table(events, row.submitted_at))


def event_table(events: Sequence[TaskEvent], start: datetime) -> RenderableType:
    """Every entry, with its time since the submission."""
    return table(
        ("TIME", "ENTRY", "EVENT", "ATTEMPT", "WRITER", "DETAIL"),
        [
            (
                words.after(start, event.time),
                str(event.sequence or "-"),
                word(event.event),
                str(event.attempt),
                event.writer,
                words.one_line(event.detail),
            )
            for event in events
        ],
    )


def event_line(event: TaskEvent, start: datetime) -> str:
    """One event on one line, as it happens."""
    percent = "" if event.fraction is None else f"{event.fraction:4.0%} "
    parts = f"{words.after(start, event.time):>11}  {event.event:<16} {event.writer:<28} "
    return f"{parts}{percent}{words.one_line(event.detail)}".rstrip()


def timeline(moments: Sequence[Moment]) -> RenderableType:
    """All entries of a run in ledger order, relative to its first."""
    if not moments:
        return Text("no entries")
    start = moments[0].time
    return table(
        ("TIME", "TASK", "EVENT", "WRITER", "DETAIL"),
        [
            (
                words.after(start, one.time),
                f"{one.capability} …{one.task[-4:]}",
                word(one.event if not one.void else f"{one.event} (void)", one.event),
                one.writer,
                words.one_line(one.void or one.detail),
            )
            for one in moments
        ],
    )


def explanation(told: Explanation) -> RenderableType:
    """Why a task is where it is."""
    parts: list[RenderableType] = [
        Text.assemble((told.capability, "bold"), " ", told.task, " is ", word(told.state)),
        *(Text(f"  {sentence}") for sentence in told.sentences),
    ]
    if told.route is not None and told.route.candidates:
        parts += [
            Text(),
            table(
                ("POOL", "VERSION", "INSTANCES", "FREE", "RESULT"),
                [
                    (
                        one.pool,
                        one.version,
                        str(one.instances),
                        str(one.free),
                        one.refused or "chosen",
                    )
                    for one in told.route.candidates
                ],
            ),
        ]
    parts += [Text(f"  void: {void}", style="red") for void in told.voids]
    return Group(*parts)


_ENDED = frozenset({"rejected", "completed", "dead", "cancelled", "expired"})
