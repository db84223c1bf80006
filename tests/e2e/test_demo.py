"""`switchgear demo`: the main job on a small repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.mesh import Place, alive
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("nats_binary"),
]

CHECKS = {"python-test", "secret-scan", "python-lint", "code-metrics"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in which the checks find something."""
    folder = tmp_path / "calc"
    folder.mkdir()
    (folder / "calc.py").write_text("import os\n\n\ndef add(a, b):\n    return a + b\n", "utf-8")
    (folder / "test_calc.py").write_text(
        "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n", "utf-8"
    )
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True, capture_output=True)
    return folder


def demo(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        place.command("demo", *arguments), cwd=place.folder, capture_output=True, text=True,
        env=place.environment | {"TMPDIR": str(place.folder / "tmp")}, timeout=300, check=False,
    )  # fmt: skip


def test_the_demo_checks_a_repository_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    ran = demo(Place(tmp_path), str(repository))
    assert ran.returncode == 0, ran.stderr
    where = "in bubblewrap" if shutil.which("bwrap") else "plain: bubblewrap is not installed"
    assert f"steps ran {where}" in " ".join(ran.stdout.split())
    for name in CHECKS:
        assert name in ran.stdout
        assert f"{name}" in ran.stderr
    assert "F401" in ran.stdout
    assert "timeline of run" in ran.stdout
    assert ran.stdout.count("completed") >= 5
    assert list((tmp_path / "tmp").glob("switchgear-demo-*")) == []


def test_the_demo_answers_with_a_document(repository: Path, tmp_path: Path) -> None:
    import json

    (tmp_path / "tmp").mkdir()
    ran = demo(Place(tmp_path), str(repository), "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["schema"] == "switchgear/demo"
    assert set(told["report"]["checks"]) == CHECKS
    assert told["executor"] in {"process, bubblewrap", "process, not isolated"}
    ran_steps = [(one["capability"], one["step"]) for one in told["steps"]]
    assert set(ran_steps) == {
        ("check-repo", "source"),
        ("check-repo", "checkout"),
        ("python-lint", "ruff"),
        ("code-metrics", "lizard"),
        ("secret-scan", "scan"),
        ("python-test", "environment"),
        ("python-test", "suite"),
    }
    writers = {moment["writer"].rpartition("-")[0] for moment in told["timeline"]}
    assert {"coordinator", "check-repo", *CHECKS} <= writers
    processes = {moment["writer"] for moment in told["timeline"] if moment["event"] == "completed"}
    assert len(processes) == 5


def test_without_bubblewrap_the_demo_runs_plain_and_says_so(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    place = Place(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh", "ssh", "prlimit"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    place.environment["PATH"] = str(programs)
    ran = demo(place, str(repository))
    assert ran.returncode == 0, ran.stderr
    told = " ".join(ran.stdout.split())
    assert "steps ran plain: bubblewrap is not installed (install the package bubblewrap)" in told
    assert "(process, not isolated)" in told


def test_a_job_that_does_not_complete_ends_with_one(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    ran = demo(Place(tmp_path), str(repository), "--ref", "no-such-branch")
    assert ran.returncode == 1
    assert "no-such-branch" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_is_no_repository_is_a_usage_error(tmp_path: Path) -> None:
    told = Place(tmp_path).run("demo", str(tmp_path))
    assert told.code == 2
    assert "is no git repository" in told.err


@pytest.mark.faults
def test_ctrl_c_ends_the_demo_and_its_processes(repository: Path, tmp_path: Path) -> None:
    import signal

    (tmp_path / "tmp").mkdir()
    place = Place(tmp_path)
    place.environment["TMPDIR"] = str(tmp_path / "tmp")
    process = place.start("demo", str(repository))
    assert process.stdout is not None
    for line in process.stdout:
        if "dispatched" in line:
            break
    states = list((tmp_path / "tmp").glob("switchgear-demo-*/dev.json"))
    pids = _pids(states[0])
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 130, output
    assert [pid for pid in pids if alive(pid)] == []
    assert list((tmp_path / "tmp").glob("switchgear-demo-*")) == []


def _pids(state: Path) -> list[int]:
    import json

    return [one["pid"] for one in json.loads(state.read_bytes())["processes"].values()]
