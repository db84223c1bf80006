"""Write `schemas/`, or with `--check` name what differs from the types and exit 1."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from switchgear.contract.export import INDEX, generate


def main(arguments: list[str] | None = None) -> int:
    """The command's exit code: 0, or 1 when the check found drift."""
    parser = argparse.ArgumentParser(
        prog="python -m switchgear.contract.export", description=__doc__
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="usually schemas")
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    chosen = parser.parse_args(arguments)
    if not chosen.check:
        write(chosen.directory)
        return 0
    found = drift(chosen.directory)
    for line in found:
        sys.stdout.write(f"{line}\n")
    if found:
        sys.stdout.write("Fix: make schemas\n")
    return 1 if found else 0


def write(directory: Path) -> None:
    """Write what is generated; remove what an earlier run wrote and this one does not."""
    wanted = generate()
    for name in _listed(directory) - set(wanted):
        (directory / name).unlink(missing_ok=True)
    for name, text in wanted.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def drift(directory: Path) -> list[str]:
    """One line for each file that is missing, that differs, or that is not generated."""
    wanted = generate()
    there = {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }
    found = [f"{name}: not generated" for name in there - set(wanted)]
    for name, text in wanted.items():
        if name not in there:
            found.append(f"{name}: missing")
        elif (directory / name).read_text(encoding="utf-8") != text:
            found.append(f"{name}: differs from the types")
    return sorted(found)


def _listed(directory: Path) -> set[str]:
    """The files that an earlier run wrote."""
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    return set(index["files"])


if __name__ == "__main__":
    sys.exit(main())
