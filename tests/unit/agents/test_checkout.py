"""Checkouts of a commit, from sources that may be hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchgear_agents.check_repo.checkout import check_out
from switchgear_agents.programs import Refused, Temporary
from switchgear_agents.tree import git
from tests.unit.agents.repositories import Repository


def test_the_commit_is_checked_out_and_the_source_left_as_it_was(
    repository: Repository, cache: Path
) -> None:
    commit = repository.commit(a="committed")
    before = sorted(str(file) for file in repository.path.rglob("*"))
    made = check_out(str(repository))
    assert (made.commit, made.source, made.notes) == (commit, str(repository), [])
    assert Path(made.path).is_relative_to(cache / "checkouts")
    assert (Path(made.path) / "a").read_text("utf-8") == "committed"
    assert sorted(str(file) for file in repository.path.rglob("*")) == before


def test_changes_that_are_not_committed_are_noted(repository: Repository) -> None:
    repository.commit(a="committed", _dot_gitignore="ignored\n")
    repository.write(a="changed", new="new", ignored="x")
    made = check_out(str(repository))
    assert (Path(made.path) / "a").read_text("utf-8") == "committed"
    assert len(made.notes) == 1
    assert made.notes[0].startswith("2 files differ from commit")


def test_a_ref_names_the_commit(repository: Repository) -> None:
    first = repository.commit(a="1")
    repository.git("tag", "--annotate", "--message=one", "v1.0")
    repository.commit(a="2")
    for ref in ("v1.0", first, first[:10]):
        assert check_out(str(repository), ref).commit == first
    repository.write(a="3")
    assert check_out(str(repository), "v1.0").notes == []


def test_a_checkout_is_used_again_until_somebody_changed_it(repository: Repository) -> None:
    repository.commit(a="1")
    path = Path(check_out(str(repository)).path)
    inode = path.stat().st_ino
    assert check_out(str(repository)).path == str(path)
    assert path.stat().st_ino == inode
    (path / "a").write_text("tampered", "utf-8")
    check_out(str(repository))
    assert (path / "a").read_text("utf-8") == "1"


def test_checkouts_that_nobody_used_for_a_day_are_removed(
    repository: Repository, cache: Path
) -> None:
    old = cache / "checkouts" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    repository.commit(a="1")
    check_out(str(repository))
    assert not old.exists()


def test_a_path_within_a_repository_stands_for_all_of_it(repository: Repository) -> None:
    commit = repository.commit(deep__a="1")
    made = check_out(str(repository.path / "deep"))
    assert made.commit == commit
    assert (Path(made.path) / "deep/a").is_file()
    assert "lies in the repository" in made.notes[0]


def test_a_bare_repository_can_be_checked(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(a="1")
    repository.git("clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare"))
    assert check_out(str(tmp_path / "bare")).commit == commit


def test_a_repository_without_a_commit_is_refused(repository: Repository) -> None:
    with pytest.raises(Refused, match="no commit yet"):
        check_out(str(repository))


@pytest.mark.parametrize(
    "source",
    [
        "relative/path",
        ".",
        "--upload-pack=touch x",
        "ext::sh -c touch% x",
        "file:///etc",
        "http://example.org/x.git",
        "git://example.org/x.git",
        "https://-evil/x.git",
        "https://user:word@example.org/x.git",
        "https://token@example.org/x.git",
        "https://[",
        "user@-oProxyCommand=x:path",
        "-oProxyCommand=x@host:path",
        "user@host:-path",
        "/nowhere/at/all",
        "",
    ],
)
def test_a_source_of_another_kind_is_refused(source: str) -> None:
    with pytest.raises(Refused):
        check_out(source)


@pytest.mark.parametrize(
    "ref", ["--all", "a:b", "+main", "a..b", "HEAD@{1}", "main^", "a b", "nosuch", ":/x"]
)
def test_a_ref_of_another_kind_is_refused(repository: Repository, ref: str) -> None:
    repository.commit(a="1")
    with pytest.raises(Refused):
        check_out(str(repository), ref)


def test_a_host_that_cannot_be_reached_may_be_reached_later() -> None:
    with pytest.raises(Temporary, match="git fetch failed"):
        check_out("https://127.0.0.1:1/x.git")


def test_filters_and_monitors_of_the_source_are_not_started(repository: Repository) -> None:
    started = repository.path.parent / "started"
    program = repository.path.parent / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {started}\ncat\n", "utf-8")
    program.chmod(0o755)
    repository.put(".gitattributes", "* filter=evil\n")
    repository.commit(a="1")
    for name in ("filter.evil.clean", "filter.evil.smudge", "core.fsmonitor"):
        repository.git("config", name, str(program))
    repository.put("a", "2")
    assert len(check_out(str(repository)).notes) == 1
    assert not started.exists()


def test_git_fetches_by_no_other_protocol(tmp_path: Path) -> None:
    ran = git("ls-remote", "--", "git://127.0.0.1:1/x", cwd=tmp_path)
    assert "not allowed" in ran.stderr
