"""Runs ruff on a tree and counts what it finds, in a process of its own."""

from __future__ import annotations

import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import msgspec

from switchgear_agents.places import tool
from switchgear_agents.refusals import Refused
from switchgear_agents.repository import LintFinding, LintReport
from switchgear_agents.tree import opened, tracked, with_suffix

FIRST = 50
_MESSAGE = 300
_ENDED = (0, 1)
"""Exit codes of ruff that ran: nothing found, something found."""


class _Location(msgspec.Struct):
    row: int


class _Diagnostic(msgspec.Struct):
    """One line of ruff's `json-lines` output, as far as it is needed."""

    filename: str
    message: str
    code: str | None = None
    location: _Location | None = None


def lint(path: str) -> LintReport:
    """Lint the tree; raises `Refused` for something that is no tree."""
    with opened(path) as tree:
        return _lint(tree)


def _lint(path: str) -> LintReport:
    files = tracked(path)
    notes: list[str] = []
    own = _has_rules(path, files)
    ran = _ruff(path, isolated=not own)
    if own and ran.returncode not in _ENDED:
        notes.append(f"the tree's own ruff configuration could not be used: {_last(ran.stderr)}")
        own = False
        ran = _ruff(path, isolated=True)
    if ran.returncode not in _ENDED:
        raise Refused(f"ruff could not check the tree: {_last(ran.stderr)}")
    found = [_finding(path, line) for line in ran.stdout.splitlines() if line]
    rules = Counter(finding.rule for finding in found)
    return LintReport(
        tool=_version(),
        config="target" if own else "defaults",
        files=len(with_suffix(files, ".py", ".pyi")),
        findings=len(found),
        rules=dict(rules.most_common()),
        first=sorted(found, key=lambda finding: (finding.path, finding.line))[:FIRST],
        notes=notes,
    )


def _has_rules(path: str, files: list[str]) -> bool:
    """Whether the tree configures ruff anywhere; else nothing from above the tree may leak in."""
    for name in with_suffix(files, "ruff.toml", "pyproject.toml"):
        file = Path(path) / name
        if file.name in {"ruff.toml", ".ruff.toml"}:
            return True
        try:
            if "ruff" in tomllib.loads(file.read_text("utf-8")).get("tool", {}):
                return True
        except (OSError, ValueError):
            continue
    return False


def _ruff(path: str, *, isolated: bool) -> subprocess.CompletedProcess[str]:
    # The tree's configuration may ask for fixes and a cache, and the tree is not written.
    options = ["--no-fix", "--no-cache", "--quiet", "--output-format=json-lines"]
    return subprocess.run(
        [tool("ruff"), "check", *options, *(["--isolated"] if isolated else []), "."],
        cwd=path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _finding(path: str, line: str) -> LintFinding:
    found = msgspec.json.decode(line, type=_Diagnostic)
    file = Path(found.filename)
    return LintFinding(
        path=str(file.relative_to(path)) if file.is_relative_to(path) else file.name,
        line=found.location.row if found.location else 0,
        rule=found.code or "invalid-syntax",
        message=found.message[:_MESSAGE],
    )


def _version() -> str:
    return subprocess.run(
        [tool("ruff"), "--version"], capture_output=True, encoding="utf-8", check=False
    ).stdout.strip()


def _last(text: str) -> str:
    return " ".join(text.split())[-_MESSAGE:]
