"""The whole job, with the other agents' answers given by the test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from switchgear import Agent, Capability, Context, Permanent, Retryable, TaskDead, testing
from switchgear_agents import check_repo, lint, metrics, pytest_runner, secrets
from switchgear_agents.repository import (
    ComplexFunction,
    FailedTest,
    LintFinding,
    LintReport,
    MetricsReport,
    RepoReport,
    RepoRequest,
    ScanReport,
    SecretFinding,
    SuiteReport,
)
from tests.unit.agents.handling import Answers, context
from tests.unit.agents.repositories import Repository

CALLS = ("python-lint", "python-test", "secret-scan", "code-metrics")
WELL: dict[str, Any] = {
    "python-lint": LintReport(tool="ruff", config="target", files=1, findings=0),
    "python-test": SuiteReport(outcome="passed", passed=3),
    "secret-scan": ScanReport(tool="detect-secrets", files=1),
    "code-metrics": MetricsReport(tool="lizard", files=1, functions=2, nloc=9),
}


def answers(**reports: Any) -> Answers:
    """Good reports, but for those given by name, an underscore for the hyphen."""
    given = {name.replace("_", "-"): report for name, report in reports.items()}

    def answer(report: Any) -> Any:
        if isinstance(report, Exception):
            raise report
        return report

    return {
        name: lambda _, report=report: answer(report) for name, report in (WELL | given).items()
    }


async def check(
    repository: Repository, given: Answers, told: list[str] | None = None
) -> RepoReport:
    request = RepoRequest(source=str(repository))
    return await check_repo.check_repo.handler(
        request, context(answers=given, calls=CALLS, progress=told)
    )


async def test_a_clean_repository_is_clean(repository: Repository) -> None:
    commit = repository.commit(a="1")
    told: list[str] = []
    report = await check(repository, answers(), told)
    assert (report.verdict, report.commit, report.findings) == ("clean", commit, [])
    assert {name: one.status for name, one in report.checks.items()} == dict.fromkeys(
        CALLS, "clean"
    )
    assert report.tests == WELL["python-test"]
    assert len(told) == 6
    assert msgspec.json.decode(msgspec.json.encode(report), type=RepoReport) == report


async def test_findings_are_listed_tests_and_secrets_first(repository: Repository) -> None:
    repository.commit(a="1")
    report = await check(
        repository,
        answers(
            python_lint=LintReport(
                tool="ruff",
                config="defaults",
                files=1,
                findings=1,
                rules={"F401": 1},
                first=[LintFinding("a.py", 1, "F401", "unused")],
            ),
            python_test=SuiteReport(
                outcome="failed", failed=1, failures=[FailedTest("t::a", "assert\n0")]
            ),
            secret_scan=ScanReport(
                tool="d", files=1, findings=1, first=[SecretFinding("b", 2, "AWS Access Key")]
            ),
            code_metrics=MetricsReport(
                tool="l", above=1, worst=[ComplexFunction("a.py", 3, "f", 30, 90)]
            ),
        ),
    )
    assert report.verdict == "failing"
    assert report.findings == [
        "test t::a: assert 0",
        "secret? b:2: AWS Access Key",
        "lint a.py:1: F401 unused",
        "complex a.py:3: f has complexity 30",
    ]


async def test_one_check_cannot_crowd_out_the_others(repository: Repository) -> None:
    repository.commit(a="1")
    places = [LintFinding("a.py", n, "F401", "unused") for n in range(50)]
    report = await check(
        repository,
        answers(
            python_lint=LintReport(tool="r", config="target", files=1, findings=99, first=places)
        ),
    )
    assert (report.verdict, len(report.findings)) == ("findings", 5)


async def test_a_check_that_fails_is_told_and_the_others_go_on(repository: Repository) -> None:
    repository.commit(a="1")
    dead = TaskDead("python-test failed", task_id="t", state="dead", why="uv is missing")
    report = await check(repository, answers(python_test=dead))
    assert report.verdict == "incomplete"
    assert report.checks["python-test"].status == "could not run"
    assert (
        report.checks["python-test"].summary == "could not run: python-test failed: uv is missing"
    )
    assert report.tests is None
    assert report.checks["python-lint"].status == "clean"


@pytest.mark.parametrize(
    ("suite", "status"),
    [
        (SuiteReport(outcome="no tests"), "clean"),
        (SuiteReport(outcome="timed out", passed=4), "failing"),
        (SuiteReport(outcome="broken", notes=["no module named x"]), "could not run"),
    ],
)
async def test_each_end_of_the_tests_has_its_status(
    repository: Repository, suite: SuiteReport, status: str
) -> None:
    repository.commit(a="1")
    assert (await check(repository, answers(python_test=suite))).checks[
        "python-test"
    ].status == status


async def test_a_source_that_will_never_do_is_a_permanent_failure() -> None:
    with pytest.raises(Permanent, match="neither an absolute path"):
        await check_repo.check_repo.handler(RepoRequest(source="."), context(calls=CALLS))


def test_the_names_and_types_that_are_called_are_those_that_are_offered() -> None:
    offered = {
        name: (one.input, one.output)
        for service in (lint, metrics, pytest_runner, secrets)
        for name, one in service.agent.capabilities.items()
    }
    called = (check_repo.LINT, check_repo.TEST, check_repo.SECRETS, check_repo.METRICS)
    assert {one.name: (one.input, one.output) for one in called} == offered
    assert not offered.keys() & check_repo.agent.capabilities.keys()
    assert check_repo.check_repo.calls == offered.keys()


def offer(agent: Agent, called: Capability[Any, Any], takes: timedelta) -> None:
    """A check that gives its good report after so long; the metrics fail."""

    async def handle(asked: Any, ctx: Context) -> Any:
        del asked
        await ctx.sleep("work", takes)
        if called is check_repo.METRICS:
            raise Permanent("no tool")
        return WELL[called.name]

    handle.__annotations__ |= {"asked": called.input, "return": called.output}
    agent.capability(called)(handle)


async def test_a_check_takes_as_long_as_its_task_however_often_the_job_is_resumed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job gives up its slot after 10 s, and is run again from the top when a check has ended."""
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", "none")
    repository.commit(a="1")
    took = {"python-lint": 2, "secret-scan": 30, "code-metrics": 90, "python-test": 600}
    checks = Agent("checks", version="1.0.0")
    for called in (check_repo.LINT, check_repo.TEST, check_repo.SECRETS, check_repo.METRICS):
        offer(checks, called, timedelta(seconds=took[called.name]))
    async with testing.mesh(check_repo.agent, checks) as mesh:
        task = await mesh.submit(check_repo.check_repo, RepoRequest(source=str(repository)))
        report = await task.result()
        assert (await task.status()).attempt > 1
    assert report.verdict == "incomplete"
    seconds = {name: one.seconds for name, one in report.checks.items()}
    assert seconds == {name: pytest.approx(took[name], abs=1) for name in took}


async def test_a_host_that_cannot_be_reached_is_tried_again_later() -> None:
    with pytest.raises(Retryable, match="git fetch failed"):
        await check_repo.check_repo.handler(
            RepoRequest(source="https://127.0.0.1:1/x.git"), context(calls=CALLS)
        )
