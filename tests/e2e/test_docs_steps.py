"""The how-to of steps works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev, until
from tests.patience import PATIENCE
from tests.unit.steps.sandboxes import needs_sandbox

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary"), needs_sandbox]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-steps.md"


def test_the_how_to_of_steps_works(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    agent, program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "builder.py").write_text(agent, encoding="utf-8")
    (tmp_path / "packing.py").write_text(program, encoding="utf-8")
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", repository], check=True)
    (repository / "file").touch()
    who = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "-m", "one"], cwd=repository, check=True)
    with Dev(tmp_path, "builder:agent") as dev:
        ran = subprocess.run(
            [sys.executable, "packing.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        counted = dev.run("task", "submit", "count", f'"file://{repository}"', "--wait")
        tasks = until(
            lambda: dev.run("task", "ls", "--capability", "count", "--json").json["tasks"],
            "the task is listed",
        )
        history = dev.run("task", "show", tasks[0]["id"]).out
    with tarfile.open(tmp_path / "notes.tar.gz") as packed:
        assert "./one.txt" in packed.getnames()
    assert counted.out.strip() == "1"
    assert "(process, bubblewrap)" in history
