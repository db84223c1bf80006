"""One command, as the tree of commands and the help have it."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command as the help shows it."""

    path: str
    """Group and name, such as `task submit`."""
    target: str
    """Module and function below `switchgear.cli`."""
    help: str
    examples: tuple[str, ...]
