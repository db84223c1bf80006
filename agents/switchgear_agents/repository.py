"""What the services of this package say to each other: requests and reports.

A tree travels as an artifact, so services need no disk in common; one on the agent's own host may be named by its path
instead. Reports are bounded: counts are complete, lists hold the first or worst few.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from switchgear import Artifact

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
"""Absolute path of a checked-out git tree on the agent's host."""


class RepoRequest(Struct, frozen=True, kw_only=True):
    """Which repository to check."""

    source: Annotated[str, Meta(min_length=1, max_length=2048)]
    """Absolute path on the agent's host, or an https:// or ssh URL. The path's own tree is never
    written."""
    ref: Annotated[str, Meta(max_length=255)] | None = None
    """Branch, tag or commit (for a URL: a full one); None: what HEAD names."""


class LintRequest(Struct, frozen=True, kw_only=True):
    """Which tree to lint."""

    path: Path | None = None
    """Of a git tree on the agent's host; read as it is."""
    tree: Artifact | None = None
    """A bare repository whose HEAD is the commit; it goes before the path."""


class SuiteRequest(Struct, frozen=True, kw_only=True):
    """Whose tests to run: those of the commit checked out there. Executes the tree's code."""

    path: Path | None = None
    """Of a git tree on the agent's host; read as it is."""
    tree: Artifact | None = None
    """A bare repository whose HEAD is the commit; it goes before the path."""


class ScanRequest(Struct, frozen=True, kw_only=True):
    """Which tree to search for secrets."""

    path: Path | None = None
    """Of a git tree on the agent's host; read as it is."""
    tree: Artifact | None = None
    """A bare repository whose HEAD is the commit; it goes before the path."""


class MetricsRequest(Struct, frozen=True, kw_only=True):
    """Which tree to measure."""

    path: Path | None = None
    """Of a git tree on the agent's host; read as it is."""
    tree: Artifact | None = None
    """A bare repository whose HEAD is the commit; it goes before the path."""


class LintFinding(Struct, frozen=True):
    """One violation of a rule."""

    path: str
    """Relative to the tree."""
    line: int
    rule: str
    """Code of the rule, such as F401; `invalid-syntax` for code that cannot be parsed."""
    message: str


class LintReport(Struct, frozen=True, kw_only=True):
    """What ruff found."""

    tool: str
    """Program and version."""
    config: Literal["target", "defaults"]
    """Whose rules were applied: the tree's own, or ruff's."""
    files: int
    """Python files that are tracked."""
    findings: int
    rules: dict[str, int] = field(default_factory=dict[str, int])
    """Findings by rule, most frequent first."""
    first: list[LintFinding] = field(default_factory=list[LintFinding])
    """The first 50."""
    notes: list[str] = field(default_factory=list[str])
    """What the reader should know, such as a configuration that could not be used."""


class FailedTest(Struct, frozen=True):
    """One test that failed or broke."""

    name: str
    message: str


class SlowTest(Struct, frozen=True):
    """One of the slowest tests."""

    name: str
    seconds: float


class SuiteReport(Struct, frozen=True, kw_only=True):
    """What pytest reported."""

    outcome: Literal["passed", "failed", "no tests", "timed out", "broken"]
    """`broken`: pytest itself could not run the suite; `notes` holds the end of its output."""
    passed: int = 0
    failed: int = 0
    errors: int = 0
    """Tests whose set-up or collection failed."""
    skipped: int = 0
    seconds: float = 0.0
    """Duration of the suite."""
    environment: str = ""
    """How the environment was made, such as `extra dev, cached`."""
    failures: list[FailedTest] = field(default_factory=list[FailedTest])
    """The first 20."""
    slowest: list[SlowTest] = field(default_factory=list[SlowTest])
    """The slowest 5."""
    notes: list[str] = field(default_factory=list[str])


class SecretFinding(Struct, frozen=True):
    """Where something looks like a secret; never the secret itself."""

    path: str
    line: int
    kind: str


class ScanReport(Struct, frozen=True, kw_only=True):
    """What looks like a secret in the tracked text files of the tree, not in its history."""

    tool: str
    files: int
    """Files searched."""
    skipped: int = 0
    """Tracked files left out: binary, larger than 1 MiB, or no regular files."""
    findings: int = 0
    known: int = 0
    """Findings left out because the tree's own .secrets.baseline lists them."""
    first: list[SecretFinding] = field(default_factory=list[SecretFinding])
    """The first 50."""


class ComplexFunction(Struct, frozen=True):
    """One of the most complex functions."""

    path: str
    line: int
    name: str
    complexity: int
    """Cyclomatic complexity: 1 plus the branches."""
    nloc: int
    """Lines of code without comments and blank lines."""


class MetricsReport(Struct, frozen=True, kw_only=True):
    """Size and complexity of the tracked source files in languages that lizard knows."""

    tool: str
    files: int = 0
    functions: int = 0
    nloc: int = 0
    """Lines of code without comments and blank lines."""
    mean_complexity: float = 0.0
    max_complexity: int = 0
    above: int = 0
    """Functions of a complexity above 15."""
    languages: dict[str, int] = field(default_factory=dict[str, int])
    """Files by language, most frequent first."""
    worst: list[ComplexFunction] = field(default_factory=list[ComplexFunction])
    """The 10 most complex functions."""
    unread: int = 0
    """Files that lizard could not read."""


CheckStatus = Literal["clean", "findings", "failing", "could not run"]
Verdict = Literal["clean", "findings", "failing", "incomplete"]


class Check(Struct, frozen=True, kw_only=True):
    """How one check ended."""

    status: CheckStatus
    summary: str
    """One line; for a check that could not run, why."""
    seconds: float = 0.0
    """From the call to its answer, waits included."""


class RepoReport(Struct, frozen=True, kw_only=True):
    """The whole job's answer."""

    source: str
    commit: str
    verdict: Verdict
    """The worst of the checks: failing tests or secrets, then checks that could not run, then other
    findings."""
    findings: list[str] = field(default_factory=list[str])
    """The most important first, at most 20, one line each."""
    checks: dict[str, Check] = field(default_factory=dict[str, Check])
    """By capability."""
    notes: list[str] = field(default_factory=list[str])
    """What the reader should know, such as changes that are not committed and so were not
    checked."""
    lint: LintReport | None = None
    tests: SuiteReport | None = None
    secrets: ScanReport | None = None
    metrics: MetricsReport | None = None
