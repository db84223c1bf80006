"""The answer of `check-repo` as the demo reads it: the fields that it shows, and nothing of the agents' package."""

from __future__ import annotations

from msgspec import Struct, field


class Check(Struct, frozen=True, kw_only=True):
    """How one check ended."""

    status: str
    summary: str
    seconds: float = 0.0


class Report(Struct, frozen=True, kw_only=True):
    """The whole job's answer."""

    source: str
    commit: str
    verdict: str
    findings: list[str] = field(default_factory=list[str])
    checks: dict[str, Check] = field(default_factory=dict[str, Check])
    notes: list[str] = field(default_factory=list[str])


def grouped(findings: list[str]) -> dict[str, list[str]]:
    """Findings by their first word, which says what they are: `test`, `secret?`, `lint`, `complex`."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        kind, _, rest = finding.partition(" ")
        found.setdefault(kind.rstrip(":?"), []).append(rest)
    return found
