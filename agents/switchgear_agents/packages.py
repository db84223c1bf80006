"""Which files hold the packages that a program imports: few enough to be sent to an engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_OURS = ("switchgear", "switchgear_agents")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Code(NamedTuple):
    """Python code of this host."""

    roots: tuple[str, ...]
    """Directories to import from."""
    files: tuple[str, ...]
    """What is needed of them: packages, modules, and what says their versions."""


@lru_cache(maxsize=16)
def code(*more: str) -> Code:
    """The agents' own packages, what these need, and more distributions with what they need."""
    files: dict[str, None] = {}
    roots: dict[str, None] = {}
    for name in _OURS:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            home = Path(spec.origin).parent
            files[str(home)] = None
            roots[str(home.parent)] = None
    for found in _closure(("switchgear", *more)):
        root = Path(str(found.locate_file("")))
        for top in _tops(found):
            if (root / top).exists():
                files[str(root / top)] = None
                roots[str(root)] = None
    return Code(tuple(roots), tuple(files))


def _closure(names: Iterable[str]) -> list[Distribution]:
    """The distributions and what they require here, without what only their extras do."""
    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # its marker rules it out here, or the program that imports it says that it is missing
        for requirement in found[name].requires or ():
            called, _, marker = requirement.partition(";")
            if "extra" not in marker and (match := _NAME.match(called.strip())):
                todo.append(match[0])
    return list(found.values())


def _tops(found: Distribution) -> set[str]:
    """Names that a distribution has in the directory where it is installed."""
    parts = (file.parts[0] for file in found.files or ())
    return {
        part for part in parts if part not in {"..", "__pycache__"} and not part.endswith(".pth")
    }
