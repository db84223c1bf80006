"""Runs one function of this package as a program: the other end of `programs.answer`.

python -I __main__.py CODE MODULE:FUNCTION, with the arguments as a JSON array on the standard input. CODE: the
directories to import from, since the interpreter may be that of an image.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module


def main(code: str, target: str) -> int:
    """Call it and print its answer as JSON; a refusal becomes text on stderr and an exit code."""
    _find(code.split(os.pathsep))
    from switchgear_agents.refusals import REFUSED, TEMPORARY, Refused, Temporary

    try:
        import msgspec
    except ImportError as error:
        version = sys.version.partition(" ")[0]
        sys.stderr.write(f"Python {version} cannot load the agent's compiled packages: {error}\n")
        return REFUSED
    module, _, name = target.partition(":")
    arguments = msgspec.json.decode(sys.stdin.buffer.read(), type=list[object])
    try:
        answer = msgspec.json.encode(getattr(import_module(module), name)(*arguments))
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return REFUSED
    except Temporary as temporary:
        sys.stderr.write(f"{temporary}\n")
        return TEMPORARY
    sys.stdout.buffer.write(answer)
    return 0


def _find(code: list[str]) -> None:
    """Import from these directories before an image's own packages, after the standard library."""
    at = next((n for n, path in enumerate(sys.path) if path.endswith("-packages")), len(sys.path))
    sys.path[at:at] = [path for path in code if path not in sys.path]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
