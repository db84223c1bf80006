"""The report of a checked repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import table, word
from switchgear.cli.report import grouped

if TYPE_CHECKING:
    from switchgear.cli.report import Report

_CUT = 160


def report(found: Report) -> RenderableType:
    """Verdict, how each check ended, and the findings by kind."""
    head = Text.assemble((found.source, "bold"), f" at {found.commit[:12]}: ", word(found.verdict))
    checks = table(
        ("CHECK", "STATUS", "TIME", "SUMMARY"),
        [
            (name, word(check.status), f"{check.seconds:.1f} s", words.one_line(check.summary))
            for name, check in found.checks.items()
        ],
    )
    parts: list[RenderableType] = [head, Text(), checks]
    for kind, lines in grouped(found.findings).items():
        parts += [Text(), Text(f"{kind} ({len(lines)} shown)", style="bold")]
        parts += [Text(f"  {words.one_line(line, _CUT)}") for line in lines]
    if found.notes:
        parts += [Text(), Text("notes", style="bold")]
        parts += [Text(f"  {words.one_line(note)}") for note in found.notes]
    return Group(*parts)
