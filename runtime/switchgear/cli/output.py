"""Where a command's answer goes: data on the standard output, messages on the error output.

On a terminal rich draws; piped, or with NO_COLOR, the same renderable becomes plain lines; with `--json` it
becomes one document `{"schema": …, "version": 1, …}`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

VERSION: Final = 1
"""Of the JSON documents: raised when a field is removed or changes its meaning."""
_WIDE: Final = 4000
"""Columns of plain output: lines are as long as their content, nothing is cut or wrapped."""


def is_plain(stream: IO[str]) -> bool:
    """Whether to write plain lines there: piped, NO_COLOR, or a terminal that can do no more."""
    return (
        not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    )


def plain(renderable: RenderableType) -> str:
    """The renderable as plain lines, without colour and trailing blanks."""
    import io

    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=_WIDE, color_system=None, force_terminal=False, highlight=False,
        markup=False, emoji=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(renderable, soft_wrap=False)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def document(kind: str, data: Mapping[str, Any]) -> bytes:
    """The JSON document of this kind: one line."""
    import msgspec

    return msgspec.json.encode({"schema": f"switchgear/{kind}", "version": VERSION, **data})


class Output:
    """The two outputs of one command."""

    def __init__(
        self, *, as_json: bool, out: IO[str] | None = None, err: IO[str] | None = None
    ) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    @property
    def is_live(self) -> bool:
        """Whether live progress can be drawn: it goes to the error output, beside the data."""
        return not self.as_json and not is_plain(self._err)

    def put(
        self, kind: str, data: Mapping[str, Any], draw: Callable[[], RenderableType | str]
    ) -> None:
        """Answer with this data, drawn for people or as a document."""
        if self.as_json:
            self.line(kind, data)
        else:
            self.show(draw())

    def line(self, kind: str, data: Mapping[str, Any]) -> None:
        """One JSON document on a line of its own."""
        self._out.write(document(kind, data).decode() + "\n")
        self._out.flush()

    def show(self, renderable: RenderableType | str) -> None:
        """Data for people."""
        self._write(self._out, renderable)

    def say(self, renderable: RenderableType | str) -> None:
        """A message for people, on the error output."""
        self._write(self._err, renderable)

    def console(self) -> Console:
        """The console of the error output, for live progress."""
        from rich.console import Console

        return Console(file=self._err, highlight=False)

    def _write(self, stream: IO[str], renderable: RenderableType | str) -> None:
        if isinstance(renderable, str):
            stream.write(renderable if renderable.endswith("\n") else f"{renderable}\n")
        elif is_plain(stream):
            stream.write(plain(renderable))
        else:
            from rich.console import Console

            Console(file=stream, highlight=False).print(renderable)
        stream.flush()
