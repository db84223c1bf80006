"""Checkouts of a commit, from sources that may be hostile."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from switchgear_agents.check_repo.checkout import Source, fetch, look
from switchgear_agents.places import git_dirs
from switchgear_agents.refusals import Refused, Temporary
from switchgear_agents.tree import git, opened, tracked
from tests.unit.agents.repositories import Repository


class Made(NamedTuple):
    """What was found, and the fetched commit checked out again."""

    source: Source
    files: dict[str, str]


def check_out(source: str, ref: str = "") -> Made:
    """Both programs, one after the other, as the service runs them."""
    found = look(source, ref)
    with TemporaryDirectory() as folder:
        bare = Path(folder) / "tree"
        assert fetch(found.top, found.commit, str(bare)) == found.commit
        with opened(str(bare)) as tree:
            files = {name: (Path(tree) / name).read_text("utf-8") for name in tracked(tree)}
    return Made(found, files)


def test_the_commit_is_checked_out_and_the_source_left_as_it_was(repository: Repository) -> None:
    commit = repository.commit(a="committed")
    before = sorted(str(file) for file in repository.path.rglob("*"))
    made = check_out(str(repository))
    assert made.source == Source(top=str(repository), commit=commit)
    assert made.files == {"a": "committed"}
    assert sorted(str(file) for file in repository.path.rglob("*")) == before


def test_changes_that_are_not_committed_are_noted(repository: Repository) -> None:
    repository.commit(a="committed", _dot_gitignore="ignored\n")
    repository.write(a="changed", new="new", ignored="x")
    made = check_out(str(repository))
    assert made.files["a"] == "committed"
    assert len(made.source.notes) == 1
    assert made.source.notes[0].startswith("2 files differ from commit")


def test_a_ref_names_the_commit(repository: Repository) -> None:
    first = repository.commit(a="1")
    repository.git("tag", "--annotate", "--message=one", "v1.0")
    repository.commit(a="2")
    for ref in ("v1.0", first, first[:10]):
        assert look(str(repository), ref).commit == first
    repository.write(a="3")
    assert look(str(repository), "v1.0").notes == []


def test_a_path_within_a_repository_stands_for_all_of_it(repository: Repository) -> None:
    commit = repository.commit(deep__a="1")
    made = check_out(str(repository.path / "deep"))
    assert made.source.commit == commit
    assert made.files == {"deep/a": "1"}
    assert "lies in the repository" in made.source.notes[0]


def test_a_bare_repository_can_be_checked(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(a="1")
    repository.git("clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare"))
    made = check_out(str(tmp_path / "bare"))
    assert (made.source.commit, made.files) == (commit, {"a": "1"})


def test_objects_that_the_repository_borrows_and_work_trees_of_it_are_read(
    repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit(a="1")
    repository.git("clone", "--quiet", "--shared", str(repository), str(tmp_path / "borrower"))
    repository.git("worktree", "add", "--quiet", str(tmp_path / "beside"))
    for name in ("borrower", "beside"):
        made = check_out(str(tmp_path / name))
        assert (made.source.commit, made.source.notes, made.files) == (commit, [], {"a": "1"})
        assert {str(tmp_path / name / ".git"), str(repository.path / ".git" / "objects")} & set(
            git_dirs(str(tmp_path / name))
        )


def test_a_repository_without_a_commit_is_refused(repository: Repository) -> None:
    with pytest.raises(Refused, match="no commit yet"):
        look(str(repository))


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
def test_a_source_of_another_kind_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        look(source)
    with pytest.raises(Refused):
        fetch(source, "", str(tmp_path / "tree"))


@pytest.mark.parametrize(
    "ref", ["--all", "a:b", "+main", "a..b", "HEAD@{1}", "main^", "a b", "nosuch", ":/x"]
)
def test_a_ref_of_another_kind_is_refused(repository: Repository, ref: str) -> None:
    repository.commit(a="1")
    with pytest.raises(Refused):
        look(str(repository), ref)


def test_a_host_that_cannot_be_reached_may_be_reached_later(tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="git fetch failed"):
        fetch("https://127.0.0.1:1/x.git", "", str(tmp_path / "tree"))


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
    assert len(check_out(str(repository)).source.notes) == 1
    assert not started.exists()


def test_git_fetches_by_no_other_protocol(tmp_path: Path) -> None:
    ran = git("ls-remote", "--", "git://127.0.0.1:1/x", cwd=tmp_path)
    assert "not allowed" in ran.stderr
