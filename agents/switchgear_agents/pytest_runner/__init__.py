"""The service `python-test`: pytest on a tree's commit, in an environment and copy of its own.

It executes code of the tree by nature. The sandbox of its steps keeps the agent's variables and the
user's files from that code, except the caches of packages, which it could change; where there is no
sandbox, it has the rights of this agent's user: run it where that may be.

switchgear agent run switchgear_agents.pytest_runner:agent
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from switchgear import Agent, Context
from switchgear_agents.programs import Needs, answer, git_reads
from switchgear_agents.pytest_runner.environment import environment_of
from switchgear_agents.pytest_runner.suite import run_suite
from switchgear_agents.repository import SuiteReport, SuiteRequest

agent = Agent("python-test", version="0.1.0")

SUITE = timedelta(minutes=8)
"""Longest run of the target's tests."""
CACHES = ("environments", "uv")


@agent.capability("python-test", timeout=timedelta(minutes=20), concurrency=2)
async def python_test(request: SuiteRequest, ctx: Context) -> SuiteReport:
    """Run the tests of a git tree's commit with pytest; executes the tree's code.

    What to run is read from `[tool.switchgear.check]` of its pyproject.toml (`tests`, `extras`,
    `groups`, `constraints`), or from pytest's own configuration.
    """
    reads = git_reads(request.path)
    ctx.progress(0.0, "preparing the environment")
    environment = await answer(
        ctx,
        "environment",
        environment_of,
        Needs(timedelta(minutes=10), reads, CACHES, network=True),
        request.path,
    )
    if not environment.path:
        return SuiteReport(outcome="no tests", environment=environment.origin)
    ctx.progress(0.3, f"running the tests ({environment.origin})")
    report = await answer(
        ctx,
        "suite",
        run_suite,
        Needs(SUITE + timedelta(minutes=1), reads, CACHES, network=True),
        request.path,
        SUITE.total_seconds(),
    )
    ctx.progress(1.0, report.outcome, passed=report.passed, failed=report.failed)
    return replace(
        report, environment=environment.origin, notes=[*environment.notes, *report.notes]
    )
