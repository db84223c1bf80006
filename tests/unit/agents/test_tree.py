"""Reading a git tree, which may be hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear_agents.refusals import Refused
from switchgear_agents.tree import MAX_FILE, copied, readable, tracked
from tests.unit.agents.repositories import Repository


def test_only_regular_tracked_files_are_listed(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret", "utf-8")
    (repository.path / "link").symlink_to(tmp_path / "outside")
    repository.commit(a_dot_py="x = 1\n", deep__b_dot_txt="b\n")
    repository.put("new.py", "y = 1\n")
    assert tracked(str(repository)) == ["a.py", "deep/b.txt"]


def test_names_of_any_bytes_are_listed(repository: Repository) -> None:
    repository.put("spaces and\nlines ü", "x")
    repository.commit()
    assert tracked(str(repository)) == ["spaces and\nlines ü"]


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    for path in ("relative", str(tmp_path / "nowhere"), str(tmp_path), "--help", "-"):
        with pytest.raises(Refused):
            tracked(path)


def test_binary_large_and_replaced_files_are_left_out(repository: Repository) -> None:
    repository.put("large", "x" * (MAX_FILE + 1))
    repository.put("replaced", "x")
    (repository.path / "binary").write_bytes(b"a\0b")
    repository.commit(text="x\n")
    (repository.path / "replaced").unlink()
    (repository.path / "replaced").symlink_to("/etc/passwd")
    assert readable(str(repository), tracked(str(repository))) == (["text"], 3)


def test_programs_named_by_a_trees_configuration_are_not_started(repository: Repository) -> None:
    repository.commit(a="x")
    started = repository.path / "started"
    program = repository.put("evil.sh", f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    repository.git("config", "core.fsmonitor", str(program))
    for hook in ("post-checkout", "post-index-change"):
        (repository.path / ".git/hooks" / hook).write_bytes(program.read_bytes())
        (repository.path / ".git/hooks" / hook).chmod(0o755)
    tracked(str(repository))
    with copied(str(repository)):
        pass
    assert not started.exists()


def test_a_copy_is_of_the_commit_and_goes_away(repository: Repository) -> None:
    repository.commit(a="committed")
    repository.write(a="changed")
    with copied(str(repository)) as copy:
        assert (copy / "a").read_text("utf-8") == "committed"
        (copy / "b").write_text("new", "utf-8")
    assert not copy.exists()
    assert repository.git("status", "--porcelain") == " M a\n"
