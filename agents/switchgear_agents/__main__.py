"""Runs one function of this package as a program: the other end of `programs.answer`.

python -P -m switchgear_agents MODULE:FUNCTION, with the arguments as a JSON array on the standard
input.
"""

from __future__ import annotations

import sys
from importlib import import_module

import msgspec

from switchgear_agents.programs import REFUSED, TEMPORARY, Refused, Temporary


def main(target: str) -> int:
    """Call it and print its answer as JSON; a refusal becomes text on stderr and an exit code."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
