"""The command line: `switchgear`. Thin commands over `client` and the services, drawn by `render`.

Above: nothing. Below: everything. Command modules import nats, msgspec and the like inside functions, so that
help and completion cost no more than the parser.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

VALUED = frozenset({"--url", "--context"})
"""Shared options that take a value, wherever they stand."""


def main() -> None:
    """Run the command of the process's arguments, and end the process with its exit code."""
    if serves_agent(sys.argv[1:]):
        from switchgear.agent import crash_reporter

        crash_reporter.watch()  # before anything else is imported: the watcher stays small
    try:
        from switchgear.cli import shell
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("switchgear"):
            raise
        sys.stderr.write(
            f"SG1003: the command line needs the package {error.name}\n"
            "  fix: pip install 'switchgear[cli]'\n"
        )
        raise SystemExit(2) from None
    raise SystemExit(shell.run(sys.argv[1:]))


def serves_agent(tokens: Sequence[str]) -> bool:
    """Whether the command is `agent run`, and not a call for help."""
    index = 0
    while index < len(tokens) and tokens[index].startswith("-"):
        index += 2 if tokens[index] in VALUED else 1
    is_help = "--help" in tokens or "-h" in tokens
    return list(tokens[index : index + 2]) == ["agent", "run"] and not is_help
