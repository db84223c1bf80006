"""What the how-to pages show works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]

DOCS = Path(__file__).parents[2] / "docs"


def test_the_agent_of_the_how_to_runs(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "write-an-agent.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    shown = re.findall(r"^\$ switchgear (task submit .*)$", page, re.MULTILINE)
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    with Dev(tmp_path, "page:agent") as dev:
        answers = [dev.run(*shlex.split(line)) for line in shown]
        assert [answer.code for answer in answers] == [0, 0], answers[-1].err
    assert json.loads(answers[0].out) == {"text": "Hello, Ada!"}
    assert json.loads(answers[1].out)["printed"] == "Hello, Ada! / Hello, Grace!"
