"""What the pages show works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_agent_of_the_how_to_runs(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "write-an-agent.md").read_text(encoding="utf-8")
    code = python_blocks(DOCS / "how-to" / "write-an-agent.md")[0]
    shown = re.findall(r"^\$ switchgear (task submit .*)$", page, re.MULTILINE)
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    with Dev(tmp_path, "page:agent") as dev:
        answers = [dev.run(*shlex.split(line)) for line in shown]
        assert [answer.code for answer in answers] == [0, 0], answers[-1].err
    assert json.loads(answers[0].out) == {"text": "Hello, Ada!"}
    assert json.loads(answers[1].out)["printed"] == "Hello, Ada! / Hello, Grace!"


def test_the_readme_works_as_it_stands_there(tmp_path: Path) -> None:
    """The first agent runs in a mesh, and the program beside it finds that mesh by itself."""
    agent, program = python_blocks(ROOT / "README.md")
    (tmp_path / "greeter.py").write_text(agent, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "greeter:agent") as dev:
        told = dev.run("task", "submit", "greet", '{"name": "Ada"}', "--wait")
        assert "Hello, Ada!" in told.out
        ran = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert {"Hello, Ada!", "Hello, Grace!", "Hello, Edsger!"} == set(ran.stdout.splitlines())


def test_the_tutorials_agent_counts(tmp_path: Path) -> None:
    """What the tutorial submits is answered, and what does not fit is rejected as it says."""
    (agent,) = python_blocks(ROOT / "docs" / "tutorial.md")
    (tmp_path / "counter.py").write_text(agent, encoding="utf-8")
    with Dev(tmp_path, "counter:agent") as dev:
        told = dev.run("task", "submit", "count-words", '{"text": "the quick brown fox"}', "--wait")
        assert (told.code, '"words":4' in told.out.replace(" ", "")) == (0, True)
        refused = dev.run("task", "submit", "count-words", '{"text": 7}', "--wait")
    assert (refused.code, "SG1203" in refused.err) == (1, True)
