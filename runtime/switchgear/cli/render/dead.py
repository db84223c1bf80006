"""Dead letters: causes, one with its further tries, and what trying again does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import pairs, table, word
from switchgear.cli.render.tasks import last_words
from switchgear.resilience.classes import MEANINGS

if TYPE_CHECKING:
    from switchgear.cli.further_try import Try
    from switchgear.client.dead_letters import Redrive
    from switchgear.contract.dead_letters import DeadGroups
    from switchgear.contract.queries import TaskRow
    from switchgear.contract.values import Failure

_CUT = 80


def groups(found: DeadGroups, now: datetime) -> RenderableType:
    """Causes, the most frequent first."""
    if not found.groups:
        return Text("no dead tasks")
    rows = [
        (
            one.fingerprint,
            one.capability,
            str(one.count),
            str(one.redriven),
            words.ago(one.first, now),
            words.ago(one.last, now),
            one.newest,
            words.one_line(f"{one.error.code} {one.error.message}", _CUT),
        )
        for one in found.groups
    ]
    columns = (
        "FINGERPRINT", "CAPABILITY", "DEAD", "REDRIVEN", "FIRST", "LAST", "NEWEST", "ERROR"
    )  # fmt: skip
    parts: list[RenderableType] = [table(columns, rows)]
    if found.more:
        parts.append(Text("there are smaller groups: narrow by --capability", style="dim"))
    if found.lag:
        parts.append(Text(f"the list lacks the newest {found.lag} ledger entries", style="dim"))
    return Group(*parts)


def letter(
    row: TaskRow,
    error: Failure | None,
    planned: Redrive[Any],
    tries: Sequence[Try],
    now: datetime,
) -> RenderableType:
    """One dead task."""
    head = pairs(
        [
            ("task", row.id),
            ("capability", row.capability),
            ("state", word(row.state)),
            ("died", words.ago(row.updated_at, now)),
            ("first", planned.redrives if planned.redrives != row.id else ""),
            ("fingerprint", error.fingerprint if error else ""),
            ("error", f"{error.code} {words.one_line(error.message)}" if error else ""),
            ("class", _class(error) if error else ""),
            ("step", (error.step or "") if error else ""),
            ("dependency", error.dependency if error else ""),
            ("why", words.one_line(error.why) if error else ""),
            ("fix", words.one_line(error.fix) if error else ""),
            ("input", _input(planned.input, planned.blob)),
        ]
    )
    said = last_words(error)
    if not tries:
        again = Text(f"try it again: switchgear dead redrive {row.id}")
        return Group(head, *said, Text(), again)
    rows = [
        (
            words.ago(one.time, now),
            one.by,
            one.task,
            word(one.state),
            words.one_line(json.dumps(one.input), _CUT) if one.changed else "as it was",
        )
        for one in tries
    ]
    return Group(head, *said, Text(), table(("TRIED", "BY", "TASK", "STATE", "INPUT"), rows))


def redrives(told: Sequence[Redrive[Any]], *, dry_run: bool) -> RenderableType:
    """What was started, or would be."""
    if not told:
        return Text("no dead tasks")
    rows = [
        (
            one.redrives,
            one.task,
            one.capability,
            _became(one, dry_run=dry_run),
            _input(one.input, one.blob) if one.changed else "as it was",
        )
        for one in told
    ]
    return table(("DEAD", "TASK", "CAPABILITY", "RESULT", "INPUT"), rows)


def _became(one: Redrive[Any], *, dry_run: bool) -> str:
    if one.started:
        return "started"
    return "would start" if dry_run and one.state == "none" else f"is {one.state} already"


def _class(error: Failure) -> str:
    """The class in words, and whether the work may have taken effect."""
    unknown = "" if error.outcome_known else "; it may have taken effect all the same"
    return f"{error.error_class}: {MEANINGS[error.error_class]}{unknown}"


def _input(value: Any, blob: str) -> str:
    return f"stored as {blob[:12]}…" if blob else words.one_line(json.dumps(value), 200)
