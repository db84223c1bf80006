"""The service `code-metrics`: size and complexity of a tree's source files. Executes nothing of it.

switchgear agent run switchgear_agents.metrics:agent
"""

from __future__ import annotations

from datetime import timedelta

from switchgear import Agent, Context
from switchgear_agents.metrics.measure import measure
from switchgear_agents.places import git_reads
from switchgear_agents.programs import Needs, answer
from switchgear_agents.repository import MetricsReport, MetricsRequest
from switchgear_agents.trees import located

agent = Agent("code-metrics", version="0.1.0")


@agent.capability("code-metrics", timeout=timedelta(minutes=5), concurrency=2)
async def code_metrics(request: MetricsRequest, ctx: Context) -> MetricsReport:
    """Measure size and cyclomatic complexity of a git tree's tracked sources, in many languages."""
    ctx.progress(0.0, "measuring the source files")
    path = await located(ctx, request)
    needs = Needs(timedelta(minutes=4), git_reads(path), ("lizard",))
    report = await answer(ctx, "lizard", measure, needs, path)
    ctx.progress(1.0, f"{report.functions} functions", files=report.files)
    return report
