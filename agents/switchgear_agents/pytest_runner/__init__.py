"""The service `python-test`: pytest on a tree's commit, in an environment and copy of its own.

It executes code of the tree by nature, with the rights of this agent's user: run it where that may
be. A step's clean environment keeps the agent's variables from that code; files of the user are not
kept from it.

switchgear agent run switchgear_agents.pytest_runner:agent
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from switchgear import Agent, Context
from switchgear_agents.programs import answer
from switchgear_agents.pytest_runner.environment import environment_of
from switchgear_agents.pytest_runner.suite import run_suite
from switchgear_agents.repository import SuiteReport, SuiteRequest

agent = Agent("python-test", version="0.1.0")

SUITE = timedelta(minutes=8)
"""Longest run of the target's tests."""


@agent.capability("python-test", timeout=timedelta(minutes=20), concurrency=2)
async def python_test(request: SuiteRequest, ctx: Context) -> SuiteReport:
    """Run the tests of a git tree's commit with pytest; executes the tree's code.

    What to run is read from `[tool.switchgear.check]` of its pyproject.toml (`tests`, `extras`,
    `groups`, `constraints`), or from pytest's own configuration.
    """
    ctx.progress(0.0, "preparing the environment")
    environment = await answer(
        ctx, "environment", environment_of, timedelta(minutes=10), request.path
    )
    if not environment.path:
        return SuiteReport(outcome="no tests", environment=environment.origin)
    ctx.progress(0.3, f"running the tests ({environment.origin})")
    report = await answer(
        ctx,
        "suite",
        run_suite,
        SUITE + timedelta(minutes=1),
        request.path,
        SUITE.total_seconds(),
    )
    ctx.progress(1.0, report.outcome, passed=report.passed, failed=report.failed)
    return replace(
        report, environment=environment.origin, notes=[*environment.notes, *report.notes]
    )
