"""What a project's build backend needs, so that the project can be installed later without the network.

The backend itself is asked for what it needs beyond its declaration: that executes code of the tree.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import cast

import msgspec

_LEGACY = ["setuptools", "wheel"]
"""What the standard says where a project declares nothing."""
_ASK = """
import importlib, json, os, sys
name, path = sys.argv[1], json.loads(sys.argv[2])
sys.path[:0] = [os.path.abspath(part) for part in path]
answer, sys.stdout = sys.stdout, sys.stderr
module, _, attribute = name.partition(":")
backend = importlib.import_module(module)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
ask = getattr(backend, "get_requires_for_build_editable", None)
answer.write(json.dumps(ask() if ask else []))
"""
_PATIENCE = 120.0
"""Seconds that a backend may think."""


class Backend(msgspec.Struct, frozen=True):
    """The table `build-system` of a pyproject.toml."""

    requires: list[str] = msgspec.field(default_factory=lambda: list(_LEGACY))
    name: str = msgspec.field(default="setuptools.build_meta:__legacy__", name="build-backend")
    path: list[str] = msgspec.field(default_factory=list[str], name="backend-path")


def read(table: object) -> Backend:
    """The backend that this table names; the usual one where it names none, or cannot be read."""
    try:
        return msgspec.convert(cast("dict[str, object]", table or {}), type=Backend)
    except msgspec.ValidationError:
        return Backend()


def asked(backend: Backend, python: str, tree: Path) -> list[str]:
    """What it needs beyond `requires`, as it answers; nothing where it does not."""
    ask = [python, "-c", _ASK, backend.name, msgspec.json.encode(backend.path).decode()]
    try:
        ran = subprocess.run(
            ask,
            cwd=tree,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=True,
        )
        return msgspec.json.decode(ran.stdout, type=list[str])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return []
