"""The service `check-repo`: checks out a repository and asks four other agents about it.

It offers nothing that it calls. A check that fails is a line of the report, never the end of the
job.

switchgear agent run switchgear_agents.check_repo:agent
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from switchgear import Agent, Capability, Context, ProtocolError, TaskFailed, WaitTimeout
from switchgear_agents.check_repo.checkout import check_out
from switchgear_agents.check_repo.verdict import Ended, merge
from switchgear_agents.programs import GIT_HOME, Needs, answer, git_reads
from switchgear_agents.repository import (
    LintReport,
    LintRequest,
    MetricsReport,
    MetricsRequest,
    RepoReport,
    RepoRequest,
    ScanReport,
    ScanRequest,
    SuiteReport,
    SuiteRequest,
)

In = TypeVar("In")
Out = TypeVar("Out")

LINT = Capability("python-lint", LintRequest, LintReport)
TEST = Capability("python-test", SuiteRequest, SuiteReport)
SECRETS = Capability("secret-scan", ScanRequest, ScanReport)
METRICS = Capability("code-metrics", MetricsRequest, MetricsReport)

CHECK = timedelta(minutes=25)
"""Longest wait for one check, queueing included."""

agent = Agent("check-repo", version="0.1.0")


class _Tally:
    """Tells progress: one part for the checkout, one for each check."""

    def __init__(self, ctx: Context, parts: int) -> None:
        self._ctx = ctx
        self._parts = parts
        self._done = 0

    def done(self, message: str) -> None:
        self._done += 1
        self._ctx.progress(self._done / self._parts, message, done=self._done, of=self._parts)


@agent.capability("check-repo", calls=(LINT, TEST, SECRETS, METRICS), timeout=timedelta(minutes=30))
async def check_repo(request: RepoRequest, ctx: Context) -> RepoReport:
    """Check a git repository: lint, tests, secrets and code metrics, each by another agent.

    Checks a commit, never uncommitted changes; the tests of the repository are executed.
    """
    ctx.progress(0.0, f"checking out {request.source}")
    checkout = await answer(
        ctx, "checkout", check_out, _needs(request.source), request.source, request.ref or ""
    )
    tally = _Tally(ctx, parts=5)
    tally.done(f"checked out {checkout.commit[:12]}")
    path = checkout.path
    lint, tests, secrets, metrics = await ctx.gather(
        _ask(ctx, tally, LINT, LintRequest(path=path)),
        _ask(ctx, tally, TEST, SuiteRequest(path=path)),
        _ask(ctx, tally, SECRETS, ScanRequest(path=path)),
        _ask(ctx, tally, METRICS, MetricsRequest(path=path)),
    )
    return merge(checkout, lint=lint, tests=tests, secrets=secrets, metrics=metrics)


def _needs(source: str) -> Needs:
    """Of a checkout: the repository, or the network and what git knows of its hosts."""
    time, caches = timedelta(minutes=10), ("checkouts",)
    if Path(source).is_absolute():
        return Needs(time, git_reads(str(Path(source).resolve())), caches)
    return Needs(time, (), caches, network=True, home=GIT_HOME)


async def _ask(
    ctx: Context, tally: _Tally, capability: Capability[In, Out], request: In
) -> Ended[Out]:
    """One check's report, or why there is none."""
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        report = await ctx.call(capability, request, timeout=CHECK)
    except (TaskFailed, WaitTimeout, ProtocolError) as failure:
        why = f"{failure.what}: {failure.why}" if failure.why else failure.what
        tally.done(f"{capability.name} could not run")
        return Ended(why=why, seconds=clock() - started)
    tally.done(f"{capability.name} is done")
    return Ended(report=report, seconds=clock() - started)
