"""The service `python-lint`: ruff on a tree, by the tree's own rules. Executes nothing of the tree.

switchgear agent run switchgear_agents.lint:agent
"""

from __future__ import annotations

from datetime import timedelta

from switchgear import Agent, Context
from switchgear_agents.lint.ruff import lint
from switchgear_agents.places import git_reads
from switchgear_agents.programs import Needs, answer
from switchgear_agents.repository import LintReport, LintRequest
from switchgear_agents.trees import located

agent = Agent("python-lint", version="0.1.0")


@agent.capability("python-lint", timeout=timedelta(minutes=5))
async def python_lint(request: LintRequest, ctx: Context) -> LintReport:
    """Lint the Python files of a git tree with ruff, by its own rules or ruff's."""
    ctx.progress(0.0, "ruff is reading the tree")
    path = await located(ctx, request)
    needs = Needs(timedelta(minutes=4), git_reads(path), tools=("ruff",))
    report = await answer(ctx, "ruff", lint, needs, path)
    ctx.progress(1.0, f"{report.findings} findings", files=report.files)
    return report
