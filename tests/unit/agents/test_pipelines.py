"""The templates run, as a user would run them: through a mesh, with real processes."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from switchgear.agent.pipelines import PipelineResult
from switchgear.contract.capability import Capability
from switchgear.errors import TaskFailed, TaskRejected
from switchgear.testing.mesh import mesh
from switchgear_agents.pipelines import agent, offering
from tests.unit.agents.repositories import Repository
from tests.unit.steps.sandboxes import needs_sandbox

pytestmark = needs_sandbox

TEST = """\
import unittest

class Test(unittest.TestCase):
    def test_it(self):
        self.assertEqual(1, {found})
"""
OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """This interpreter before all others: a shim of a version manager finds nothing in a sandbox."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")


@pytest.fixture(autouse=True)
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks may name what a test has made."""
    monkeypatch.setitem(globals(), "agent", offering([tmp_path]))


async def ran(name: str, **params: Any) -> PipelineResult:
    async with mesh(agent) as made:
        return await made.call(Capability(name, object, PipelineResult), params)


def states(result: PipelineResult) -> dict[str, str]:
    return {step.key: step.state for step in result.steps}


async def test_a_commit_is_linted_tested_and_packed(repository: Repository) -> None:
    repository.commit(app_dot_py="x = 1\n", test_app_dot_py=TEST.format(found=1))
    result = await ran("ci", source=f"file://{repository}", ref="main", package=True)
    assert states(result) == dict.fromkeys(
        ("checkout", "lint", "test[python=python3]", "package"), "success"
    )
    assert result.outputs["files"] == 2
    archive = result.step("package").artifacts["archive"]
    assert result.outputs["archive"] == archive.digest


async def test_a_failing_test_fails_the_task_and_what_needs_it_does_not_run(
    repository: Repository,
) -> None:
    repository.commit(app_dot_py="x = 1\n", test_app_dot_py=TEST.format(found=2))
    with pytest.raises(TaskFailed) as caught:
        await ran("ci", source=f"file://{repository}", package=True)
    assert caught.value.error_class == "step"
    assert caught.value.step == "test[python=python3]"
    assert "1 != 2" in caught.value.why
    assert "2 of 4 steps succeeded" in caught.value.why
    assert "package blocked" in caught.value.why


async def test_a_repository_of_the_host_is_one_that_tasks_may_name(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(app_dot_py="x = 1\n")
    monkeypatch.setitem(globals(), "agent", offering([tmp_path / "mine"]))
    for url in (f"file://{repository}", f"file://{tmp_path}/mine/%2e%2e/{repository.path.name}"):
        with pytest.raises(TaskFailed) as caught:
            await ran("ci", source=url)
        assert f"only to: {tmp_path}/mine" in caught.value.why


async def test_code_that_cannot_be_compiled_fails_the_lint(repository: Repository) -> None:
    repository.commit(app_dot_py="def (:\n", test_app_dot_py=TEST.format(found=1))
    with pytest.raises(TaskFailed) as caught:
        await ran("ci", source=f"file://{repository}")
    assert caught.value.step == "lint"


async def test_a_source_that_is_no_url_is_rejected_before_anything_runs() -> None:
    with pytest.raises(TaskRejected) as caught:
        await ran("ci", source="--upload-pack=evil")
    assert caught.value.cause_code == "SG1203"


@pytest.mark.parametrize("kind", ["csv", "json"])
async def test_a_file_becomes_a_table(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"people.{kind}"
    rows = [{"id": "1", "name": " Ada "}, {"id": "", "name": "?"}, {"id": "1", "name": "Grace"},
            {"id": "2", "name": "O'Neil; drop table x"}]  # fmt: skip
    if kind == "json":
        source.write_text(json.dumps(rows), "utf-8")
    else:
        lines = ["id,name", *(f'{row["id"]},"{row["name"]}"' for row in rows)]
        source.write_text("\n".join(lines), "utf-8")
    store = tmp_path / "store"
    store.mkdir()
    given = {"source": str(source), "directory": str(store), "table": "people", "key": "id"}
    result = await ran("load-table", **given)
    assert result.outputs["report"] == {
        "table": "people", "read": 4, "rejected": 1, "loaded": 2, "load": "success",
    }  # fmt: skip
    base = sqlite3.connect(store / "tables.sqlite")
    found = base.execute("select id, name from people order by id").fetchall()
    base.close()
    assert found == [(1, "Grace"), (2, "O'Neil; drop table x")]
    assert await ran("load-table", **given, mode="update")
    assert "rejected" in result.step("transform").artifacts


async def test_rows_are_not_updated_by_a_key_that_the_table_does_not_have(tmp_path: Path) -> None:
    """They would be added once more by each run."""
    source = tmp_path / "people.csv"
    source.write_text("id,name\n1,Ada\n", "utf-8")
    given = {"source": str(source), "directory": str(tmp_path), "table": "people"}
    await ran("load-table", **given)
    with pytest.raises(TaskFailed) as caught:
        await ran("load-table", **given, key="id", mode="update")
    assert "the table is not keyed by id" in caught.value.why
    await ran("load-table", **given, key="id")
    await ran("load-table", **given, key="id", mode="update")
    base = sqlite3.connect(tmp_path / "tables.sqlite")
    found = base.execute("select id, name from people").fetchall()
    base.close()
    assert found == [(1, "Ada")]


async def test_too_many_rejected_rows_load_nothing(tmp_path: Path) -> None:
    source = tmp_path / "people.csv"
    source.write_text("id,name\n,a\n,b\n", "utf-8")
    given = {"source": str(source), "directory": str(tmp_path), "table": "people", "key": "id"}
    result = await ran("load-table", **given, max_rejected=1)
    assert result.step("load").state == "skipped"
    assert result.outputs["report"]["load"] == "skipped"
    assert not (tmp_path / "tables.sqlite").exists()


def aged(directory: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = directory / name
        file.write_text(name, "utf-8")
        os.utime(file, (OLD + number, OLD + number))


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


async def test_nothing_is_deleted_unless_it_is_asked_for(tmp_path: Path) -> None:
    aged(tmp_path, "a.log", "b.log", "c.log", "d.txt")
    result = await ran("prune-files", directory=str(tmp_path), pattern="*.log", keep_newest=1)
    assert result.outputs["plan"]["first"] == ["b.log", "a.log"]
    assert result.step("delete").state == "skipped"
    assert names(tmp_path) == ["a.log", "b.log", "c.log", "d.txt"]


@pytest.mark.parametrize("way", ["up", "link", "beside"])
async def test_a_task_leads_to_no_other_directory_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whoever may submit tasks would delete what the agent's user may delete."""
    mine, other = tmp_path / "mine", tmp_path / "mine-too"
    mine.mkdir()
    other.mkdir()
    aged(other, "a.log")
    (mine / "link").symlink_to(other)
    monkeypatch.setitem(globals(), "agent", offering([mine]))
    named = {"up": f"{mine}/../mine-too", "link": mine / "link", "beside": other}
    with pytest.raises(TaskFailed) as caught:
        await ran("prune-files", directory=str(named[way]), keep_newest=0, delete=True)
    assert "leads upwards" in caught.value.why or f"only to: {mine}" in caught.value.why
    assert names(other) == ["a.log"]


async def test_old_files_are_deleted_but_the_newest_stay(tmp_path: Path) -> None:
    aged(tmp_path, "a.log", "b.log", "c.log", "d.txt")
    (tmp_path / "new.log").write_text("new", "utf-8")
    given = {"directory": str(tmp_path), "pattern": "*.log", "keep_newest": 2, "delete": True}
    result = await ran("prune-files", **given)
    assert result.outputs["deleted"] == {"deleted": 2, "changed": []}
    assert names(tmp_path) == ["c.log", "d.txt", "new.log"]


def backup(directory: Path, name: str) -> Path:
    content = directory / "content.txt"
    content.write_text("kept\n" * 1000, "utf-8")
    path = directory / name
    with tarfile.open(path, "w:gz") as archive:
        archive.add(content, "content.txt")
    content.unlink()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / f"{name}.sha256").write_text(f"{digest}  {name}\n", "utf-8")
    return path


async def test_good_backups_pass_every_check(tmp_path: Path) -> None:
    backup(tmp_path, "monday.tar.gz")
    result = await ran("verify-backups", directory=str(tmp_path))
    assert result.outputs == {"checked": ["monday.tar.gz"]}
    assert set(states(result).values()) == {"success"}
    assert "1 files" in result.step("verify[check=contents]").stdout


async def test_a_damaged_backup_fails_both_its_checks_and_is_named(tmp_path: Path) -> None:
    path = backup(tmp_path, "monday.tar.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TaskFailed) as caught:
        await ran("verify-backups", directory=str(tmp_path))
    assert "monday.tar.gz does not match its checksum" in caught.value.why
    assert "verify[check=contents] failed" in caught.value.why
    assert "2 of 4 steps succeeded" in caught.value.why
