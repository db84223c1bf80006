"""The service `python-test`: pytest on a tree's commit, in an environment and copy of its own.

It executes code of the tree by nature: its tests without the network, and, where it is a project, its build backend
with the network and the caches of packages, which that could change. The sandbox of its steps keeps the agent's
variables and the user's other files from that code; where there is no sandbox, it has the rights of this agent's user:
run it where that may be.

switchgear agent run switchgear_agents.pytest_runner:agent
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from switchgear import Agent, Context
from switchgear_agents.places import git_reads
from switchgear_agents.programs import Needs, answer
from switchgear_agents.pytest_runner.environment import (
    Environment,
    environment_of,
    usable,
    using,
)
from switchgear_agents.pytest_runner.suite import run_suite
from switchgear_agents.repository import SuiteReport, SuiteRequest
from switchgear_agents.trees import located

agent = Agent("python-test", version="0.1.0")

ENVIRONMENT = timedelta(minutes=10)
SUITE = timedelta(minutes=8)
"""Longest run of the target's tests."""


@agent.capability("python-test", timeout=timedelta(minutes=20), concurrency=2)
async def python_test(request: SuiteRequest, ctx: Context) -> SuiteReport:
    """Run the tests of a git tree's commit with pytest; executes the tree's code.

    What to run is read from `[tool.switchgear.check]` of its pyproject.toml (`tests`, `extras`,
    `groups`, `constraints`), or from pytest's own configuration.
    """
    path = await located(ctx, request)
    ctx.progress(0.0, "preparing the environment")
    environment = await _environment(ctx, path)
    if not environment.path:
        return SuiteReport(outcome="no tests", environment=environment.origin)
    home = Path(environment.path)
    ctx.progress(0.3, f"running the tests ({environment.origin})")
    needs = Needs(SUITE + timedelta(minutes=1), (*git_reads(path), str(home)), tools=("uv",))
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, using(home))
        report = await answer(
            ctx, "suite", run_suite, needs, path, SUITE.total_seconds(), str(home)
        )
    ctx.progress(1.0, report.outcome, passed=report.passed, failed=report.failed)
    return replace(
        report, environment=environment.origin, notes=[*environment.notes, *report.notes]
    )


async def _environment(ctx: Context, path: str) -> Environment:
    """The shared environment: built on this host, whose caches it fills."""
    needs = Needs(
        ENVIRONMENT, git_reads(path), tools=("uv",), caches=("environments", "uv"), network=True
    )
    found = await answer(ctx, "environment", environment_of, needs, path)
    if found.path and not usable(Path(found.path)):
        # It was recorded by an earlier run, perhaps on another host.
        found = await answer(ctx, "environment again", environment_of, needs, path)
    return found
