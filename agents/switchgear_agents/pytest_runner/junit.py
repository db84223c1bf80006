"""Reads the JUnit XML that pytest writes. Pure, but for reading the file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from switchgear_agents.repository import FailedTest, SlowTest, SuiteReport

FAILURES = 20
SLOWEST = 5
_LARGEST = 64 * 1024**2
"""Bytes of a report that is read: code of the tree could have written anything there."""
_MESSAGE = 500


def read(file: Path) -> SuiteReport:
    """Counts, failures and slowest tests; all zero where there is no report that can be read."""
    empty = SuiteReport(outcome="broken")
    try:
        if file.stat().st_size > _LARGEST:
            return empty
        root = ET.parse(file).getroot()  # noqa: S314 - expat bounds entities, and size is checked
    except (OSError, ET.ParseError):
        return empty
    # A test that was running when pytest was stopped is there without a name: it did not pass.
    cases = [(case, _ended(case)) for case in root.iter("testcase") if case.get("name")]
    kinds = [ended.tag for _, ended in cases if ended is not None]
    slowest = sorted(cases, key=lambda case: _seconds(case[0]), reverse=True)[:SLOWEST]
    failures = [
        FailedTest(_name(case), _message(ended))
        for case, ended in cases
        if ended is not None and ended.tag != "skipped"
    ]
    return SuiteReport(
        outcome="broken",
        passed=len(cases) - len(kinds),
        failed=kinds.count("failure"),
        errors=kinds.count("error"),
        skipped=kinds.count("skipped"),
        seconds=round(sum(_seconds(suite) for suite in root.iter("testsuite")), 2),
        failures=failures[:FAILURES],
        slowest=[SlowTest(_name(case), _seconds(case)) for case, _ in slowest],
    )


def _ended(case: ET.Element) -> ET.Element | None:
    """How the test ended, if not well."""
    return next((part for part in case if part.tag in {"failure", "error", "skipped"}), None)


def _name(case: ET.Element) -> str:
    return "::".join(filter(None, (case.get("classname"), case.get("name"))))[:_MESSAGE]


def _seconds(element: ET.Element) -> float:
    try:
        return float(element.get("time", "0"))
    except ValueError:
        return 0.0


def _message(ended: ET.Element) -> str:
    return (ended.get("message") or ended.text or "").strip()[:_MESSAGE]
