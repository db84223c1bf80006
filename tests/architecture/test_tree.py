"""Limits that no linter checks: sizes, and what a published file may not hold."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("runtime", "agents")

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

# A character class in each name keeps this file from finding itself.
MACHINE_PATH = re.compile(r"(?<![\w.~}$:-])/(?:[h]ome|[U]sers|[r]oot|[w]ork|[m]nt)/[\w.-]+")
REGISTRY_HOST = re.compile(
    r"[p]ypi\.(?:org|python\.org)|[p]ythonhosted\.org|registry\.[n]pmjs|registry\.[y]arnpkg"
)


def sources() -> list[Path]:
    return sorted(path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))


def published() -> list[Path]:
    """All files that git tracks or would track; symbolic links count at their target."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Every line of a published text file that `pattern` finds, as `file:line: text`."""
    found: list[str] = []
    for path in published():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}:{number}: {hit.group()}"
            for number, line in enumerate(text.splitlines(), 1)
            if (hit := pattern.search(line))
        ]
    return found


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_module_fits_in_its_limit(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_MODULE_LINES, f"split {name_of(path)}: {lines} lines"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_function_fits_in_its_limit(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {
        f"{name_of(path)}:{node.lineno} {node.name}": lines
        for node in functions
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_no_published_file_names_a_place_on_one_machine() -> None:
    assert matches(MACHINE_PATH) == []


def test_no_published_file_names_a_package_registry() -> None:
    assert matches(REGISTRY_HOST) == []


def test_the_packaged_server_configuration_is_the_one_at_the_root() -> None:
    packaged = ROOT / "runtime/switchgear/server/nats.conf"
    assert packaged.read_bytes() == (ROOT / "nats.conf").read_bytes()
