"""The command line: `switchgear`. Thin commands over `client` and the services, drawn by `render`.

Above: nothing. Below: everything. Command modules import nats, msgspec and the like inside functions, so that
help and completion cost no more than the parser.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command of the process's arguments, and end the process with its exit code."""
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
