"""The how-to of rollouts works as it stands there, on a mesh without an engine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "roll-out-dagger.md"
AGENT = """
from switchgear import Agent, Context, command

agent = Agent("linter", version="1.0.0")

@agent.capability("python-lint")
async def lint(value: None, ctx: Context) -> str:
    return (await ctx.run("ruff", command("true").idempotent())).executor
"""


def test_the_how_to_of_rollouts_works(tmp_path: Path) -> None:
    """Each command does what it says; what a rule sends to an engine that is not there is refused with the reason."""
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^\$ switchgear (rollout .*)$", page, re.MULTILINE)
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.py").write_text(AGENT, encoding="utf-8")
    (tmp_path / "switching.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "page:agent") as dev:
        answers = [dev.run(*shlex.split(line)) for line in shown]
        assert [answer.code for answer in answers] == [0] * len(shown), answers[-1].err
        assert "not ready" in answers[1].out
        dev.run("rollout", "rm", "python-lint", "--step", "ruff*")
        dev.run("rollout", "set", "python-lint", "fallback")

        def fell_back() -> bool:
            ran = dev.run("task", "submit", "python-lint", "null", "--wait")
            task, *_ = until(lambda: dev.run("task", "ls", "--json").json["tasks"], "a listed task")
            history = dev.run("task", "show", task["id"]).out
            return '"process"' in ran.out and "[fallback: ran on process; after dagger" in history

        assert until(fell_back, "the rule in force")
        dev.run("rollout", "set", "python-lint", "dagger")

        def refused() -> bool:
            ran = dev.run("task", "submit", "python-lint", "null", "--wait")
            return ran.code == 1 and "dagger" in ran.err

        assert until(refused, "a step that is refused")
        subprocess.run(
            [sys.executable, "switching.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=True,
        )  # fmt: skip
