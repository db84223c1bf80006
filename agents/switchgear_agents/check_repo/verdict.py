"""Merges the reports of the checks: a status for each, a verdict, the main findings. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from switchgear_agents.repository import (
    Check,
    CheckStatus,
    LintReport,
    MetricsReport,
    RepoReport,
    ScanReport,
    SuiteReport,
    Verdict,
)

Report = TypeVar("Report")

FINDINGS = 20
_EACH = 5
"""Findings that one check may contribute, so that none hides the others."""


class Checkout(Struct, frozen=True, kw_only=True):
    """Which commit was checked."""

    commit: str
    source: str
    notes: list[str] = []


class Ended(Struct, Generic[Report], frozen=True, kw_only=True):
    """How a call ended: with a report, or without one and why."""

    report: Report | None = None
    why: str = ""
    seconds: float = 0.0


class _Judged(Struct, frozen=True):
    status: CheckStatus
    summary: str
    findings: list[str] = []


def merge(
    checkout: Checkout,
    *,
    lint: Ended[LintReport],
    tests: Ended[SuiteReport],
    secrets: Ended[ScanReport],
    metrics: Ended[MetricsReport],
) -> RepoReport:
    """The whole job's report; tests and secrets come first in it."""
    judged = {
        "python-test": (_tests(tests.report) if tests.report else _missing(tests), tests),
        "secret-scan": (_secrets(secrets.report) if secrets.report else _missing(secrets), secrets),
        "python-lint": (_lint(lint.report) if lint.report else _missing(lint), lint),
        "code-metrics": (
            _metrics(metrics.report) if metrics.report else _missing(metrics),
            metrics,
        ),
    }
    return RepoReport(
        source=checkout.source,
        commit=checkout.commit,
        verdict=_verdict({one.status for one, _ in judged.values()}),
        findings=[line for one, _ in judged.values() for line in one.findings[:_EACH]][:FINDINGS],
        checks={
            name: Check(status=one.status, summary=one.summary, seconds=round(ended.seconds, 2))
            for name, (one, ended) in judged.items()
        },
        notes=checkout.notes,
        lint=lint.report,
        tests=tests.report,
        secrets=secrets.report,
        metrics=metrics.report,
    )


def _verdict(statuses: set[CheckStatus]) -> Verdict:
    if "failing" in statuses:
        return "failing"
    if "could not run" in statuses:
        return "incomplete"
    return "findings" if "findings" in statuses else "clean"


def _missing(ended: Ended[Report]) -> _Judged:
    return _Judged("could not run", f"could not run: {ended.why}")


def _tests(report: SuiteReport) -> _Judged:
    counts = f"{report.passed} passed, {report.failed} failed, {report.errors} errors"
    summary = f"{counts}, {report.skipped} skipped in {report.seconds:.1f} s ({report.environment})"
    if report.outcome == "passed":
        return _Judged("clean", summary)
    if report.outcome == "no tests":
        return _Judged("clean", "no tests found")
    if report.outcome == "broken":
        why = (report.notes or ["pytest said nothing"])[-1]
        return _Judged("could not run", f"could not run: pytest broke off: {why}")
    if report.outcome == "timed out":
        summary = f"ran out of time after {summary}"
    first = [f"test {test.name}: {_line(test.message)}" for test in report.failures]
    return _Judged("failing", summary, first or [f"tests: {summary}"])


def _secrets(report: ScanReport) -> _Judged:
    searched = f"in {report.files} files"
    if not report.findings:
        return _Judged("clean", f"nothing {searched}")
    places = [f"secret? {place.path}:{place.line}: {place.kind}" for place in report.first]
    return _Judged("failing", f"{report.findings} places {searched}", places)


def _lint(report: LintReport) -> _Judged:
    rules = "its own rules" if report.config == "target" else "ruff's default rules"
    if not report.findings:
        return _Judged("clean", f"nothing in {report.files} files by {rules}")
    frequent = ", ".join(f"{rule} x{count}" for rule, count in list(report.rules.items())[:3])
    places = [
        f"lint {place.path}:{place.line}: {place.rule} {place.message}" for place in report.first
    ]
    summary = f"{report.findings} findings in {report.files} files by {rules} ({frequent})"
    return _Judged("findings", summary, places)


def _metrics(report: MetricsReport) -> _Judged:
    size = f"{report.functions} functions, {report.nloc} lines in {report.files} files"
    complexity = f"complexity {report.mean_complexity:.1f}, at most {report.max_complexity}"
    complex_ones = [
        f"complex {worst.path}:{worst.line}: {worst.name} has complexity {worst.complexity}"
        for worst in report.worst[: report.above]
    ]
    return _Judged("findings" if report.above else "clean", f"{size}, {complexity}", complex_ones)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
