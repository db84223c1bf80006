"""What `switchgear dev` prints: the ready line, and its processes' logs with their names in front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from switchgear.cli.output import Output

_COLOURS: Final = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta")


def ready(url: str, state: Path, agents: Sequence[str], *, found_by_itself: bool) -> str:
    """That the mesh is ready, where, and what to do next."""
    lines = [
        "",
        f"switchgear is ready at {url}",
        f"  agents  {', '.join(agents) or 'none: switchgear agent run MODULE:ATTR'}",
        f"  state   {state} (logs in {state / 'logs'})",
        "  next    " + ("in another terminal, in this folder:" if found_by_itself else "in another terminal:"),
    ]  # fmt: skip
    if not found_by_itself:
        lines.append(f"            export SWITCHGEAR_URL={url}")
    lines += [
        "            switchgear capability ls",
        "            switchgear task submit CAPABILITY INPUT --wait",
        "            switchgear doctor",
        "  stop    Ctrl-C",
        "",
    ]
    return "\n".join(lines)


class Prefixed:
    """Writes each process's lines with its name in front, in a colour of its own on a terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._width = 3
        self._names: list[str] = []

    def widen(self, names: Sequence[str]) -> None:
        """Make room for these names."""
        self._width = max(self._width, *(len(name) for name in names))

    def line(self, name: str, text: str) -> None:
        """One line of one process."""
        if not self._output.is_live:
            self._output.say(f"{name.ljust(self._width)} | {text}")
            return
        from rich.text import Text

        if name not in self._names:
            self._names.append(name)
        colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
        self._output.say(Text.assemble((f"{name.ljust(self._width)} │ ", colour), text))
