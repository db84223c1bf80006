"""The service `secret-scan`: what looks like a secret in a tree. Executes nothing of it.

switchgear agent run switchgear_agents.secrets:agent
"""

from __future__ import annotations

from datetime import timedelta

from switchgear import Agent, Context
from switchgear_agents.places import git_reads
from switchgear_agents.programs import Needs, answer
from switchgear_agents.repository import ScanReport, ScanRequest
from switchgear_agents.secrets.scan import scan
from switchgear_agents.trees import located

agent = Agent("secret-scan", version="0.1.0")


@agent.capability("secret-scan", timeout=timedelta(minutes=10), concurrency=1)
async def secret_scan(request: ScanRequest, ctx: Context) -> ScanReport:
    """Search the tracked text files of a git tree for secrets, offline; reports places only."""
    ctx.progress(0.0, "searching the tracked files")
    path = await located(ctx, request)
    needs = Needs(timedelta(minutes=9), git_reads(path), ("detect-secrets",))
    report = await answer(ctx, "scan", scan, needs, path)
    ctx.progress(1.0, f"{report.findings} findings", files=report.files)
    return report
