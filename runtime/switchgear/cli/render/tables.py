"""Tables without lines: they look the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from switchgear.cli import words


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Rows below a head. On a narrow terminal the last column is wrapped, the others are kept whole."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for index, column in enumerate(columns):
        is_last = index == len(columns) - 1
        made.add_column(column, no_wrap=not is_last, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def pairs(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a line; pairs without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value:
            made.add_row(name, value)
    return made


def word(text: str, style: str | None = None) -> Text:
    """A state, event or verdict in its colour."""
    return Text(text, style=words.STYLE.get(style or text, ""))
