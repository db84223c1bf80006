"""Tasks: lists, one task with its entries, why a task is where it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import pairs, table, word

if TYPE_CHECKING:
    from switchgear.cli.question import Question
    from switchgear.contract.queries import Explanation, Moment, TaskList, TaskRow
    from switchgear.contract.values import Failure
    from switchgear.tasks.chunks import Chunk
    from switchgear.tasks.events import TaskEvent

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
    row: TaskRow,
    events: Sequence[TaskEvent],
    now: datetime,
    *,
    input: str = "",
    root: str = "",
    error: Failure | None = None,
) -> RenderableType:
    """One task: what it is, every entry of it, and what the process said that it took down."""
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
    return Group(head, Text(), event_table(events, row.submitted_at), *last_words(error))


def last_words(error: Failure | None) -> list[RenderableType]:
    """The end of the error output of a process that died, if the failure has it: line by line, as it was written."""
    if error is None or not error.last_words:
        return []
    # What a process wrote must not steer the terminal of whoever reads it.
    lines = (
        "".join(one for one in line.expandtabs() if one.isprintable())
        for line in error.last_words.splitlines()
    )
    head = Text("LAST WORDS of the process that died", style="bold")
    return [Text(), head, *(Text(f"  {line}") for line in lines)]


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


def event_lines(event: TaskEvent, start: datetime, *, again: bool = False) -> str:
    """One event on one line, as it happens; each line that the handler logged on one of its own, before it.

    `again`: it says what the one before said; only what was logged is shown.
    """
    percent = "" if event.fraction is None else f"{event.fraction:4.0%} "
    parts = f"{words.after(start, event.time):>11}  {event.event:<16} {event.writer:<28} "
    logged = [
        f"{words.after(start, line.time):>11}  {line.level:<16} {words.one_line(line.text)}".rstrip()
        for line in event.lines
    ]
    told = [] if again else [f"{parts}{percent}{words.one_line(event.detail)}".rstrip()]
    return "\n".join([*logged, *told])


def chunk_line(chunk: Chunk[Any], now: datetime, start: datetime) -> str:
    """What a handler emitted, on one line."""
    sender = f"{chunk.step or '-'} #{chunk.number}"
    value = chunk.value if isinstance(chunk.value, str) else json.dumps(chunk.value)
    return f"{words.after(start, now):>11}  {'chunk':<16} {sender:<28} {words.one_line(value)}"


def questions(found: Sequence[Question], now: datetime) -> RenderableType:
    """What waits for an answer, and how to give it."""
    if not found:
        return Text("nothing waits for an answer")
    rows = [
        (
            one.task,
            one.capability,
            one.signal,
            one.sender or one.owner,
            words.ago(one.since, now),
            words.one_line(one.question),
        )
        for one in found
    ]
    how = Text("answer: switchgear task approve ID, deny ID, or signal ID NAME VALUE", style="dim")
    return Group(table(("TASK", "CAPABILITY", "SIGNAL", "FROM", "SINCE", "QUESTION"), rows), how)


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
