"""The service `check-repo`: checks out a repository and asks four other agents about it.

It offers nothing that it calls. A check that fails is a line of the report, never the end of the
job.

switchgear agent run switchgear_agents.check_repo:agent
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from switchgear import Agent, Artifact, Capability, Context, ProtocolError, TaskFailed, WaitTimeout
from switchgear_agents.check_repo.checkout import TREE, fetch, look
from switchgear_agents.check_repo.verdict import Checkout, Ended, merge
from switchgear_agents.places import GIT_HOME, git_dirs, git_reads
from switchgear_agents.programs import Needs, answer, produce
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

CHECKOUT = timedelta(minutes=10)
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
    checkout, tree = await _check_out(ctx, request.source, request.ref or "")
    tally = _Tally(ctx, parts=5)
    tally.done(f"checked out {checkout.commit[:12]}")
    lint, tests, secrets, metrics = await ctx.gather(
        _ask(ctx, tally, LINT, LintRequest(tree=tree)),
        _ask(ctx, tally, TEST, SuiteRequest(tree=tree)),
        _ask(ctx, tally, SECRETS, ScanRequest(tree=tree)),
        _ask(ctx, tally, METRICS, MetricsRequest(tree=tree)),
    )
    return merge(checkout, lint=lint, tests=tests, secrets=secrets, metrics=metrics)


async def _check_out(ctx: Context, source: str, ref: str) -> tuple[Checkout, Artifact]:
    """Fetch the commit into a repository that travels: from one on this host, or by the network."""
    leaves = {TREE: TREE}
    if not Path(source).is_absolute():
        needs = Needs(CHECKOUT, network=True, home=GIT_HOME, outputs=leaves)
        commit, outputs = await produce(ctx, "checkout", fetch, needs, source, ref)
        return Checkout(commit=commit, source=source), outputs[TREE]
    # It may be a folder within the repository, and files that are not committed are on this host only.
    real = os.path.realpath(source)  # noqa: ASYNC240 - one look
    needs = Needs(CHECKOUT, git_reads(real), host=True)
    found = await answer(ctx, "source", look, needs, real, ref)
    needs = Needs(CHECKOUT, git_dirs(found.top), outputs=leaves)
    commit, outputs = await produce(ctx, "checkout", fetch, needs, found.top, found.commit)
    return Checkout(commit=commit, source=source, notes=found.notes), outputs[TREE]


async def _ask(
    ctx: Context, tally: _Tally, capability: Capability[In, Out], request: In
) -> Ended[Out]:
    """One check's report, or why there is none, and how long its task took: in another run of this job too."""
    task = await ctx.submit(capability, request)
    report, why = None, ""
    try:
        report = await task.result(timeout=CHECK)
    except (TaskFailed, WaitTimeout, ProtocolError) as failure:
        why = f"{failure.what}: {failure.why}" if failure.why else failure.what
        if isinstance(failure, WaitTimeout):
            await task.cancel("its report comes too late")
    tally.done(f"{capability.name} could not run" if why else f"{capability.name} is done")
    told = await task.status()
    seconds = (told.updated_at - told.submitted_at).total_seconds()
    return Ended(report=report, why=why, seconds=seconds)
