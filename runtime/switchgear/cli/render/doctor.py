"""The doctor's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli.render.tables import table, word

if TYPE_CHECKING:
    from switchgear.cli.checks import Check


def report(found: Sequence[Check], counts: Mapping[str, int]) -> RenderableType:
    """Every check on a line, what to do about it below, and the sum."""
    rows: list[tuple[str | Text, ...]] = []
    for check in found:
        rows.append((word(check.verdict), check.name, check.found))
        if check.fix and check.verdict != "ok":
            rows.append(("", "", Text(f"fix: {check.fix}", style="bold")))
    total = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Group(table(("", "CHECK", "FOUND"), rows), Text(), Text(total))
