"""Trees that travel."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from switchgear import Artifact, Context, Permanent
from switchgear.steps import packing
from switchgear_agents.check_repo.checkout import fetch
from switchgear_agents.lint.ruff import lint
from switchgear_agents.metrics.measure import measure
from switchgear_agents.places import git_reads
from switchgear_agents.repository import LintRequest
from switchgear_agents.secrets.scan import scan
from switchgear_agents.trees import located
from tests.unit.agents.handling import context
from tests.unit.agents.repositories import Repository


@pytest.fixture
async def travelled(repository: Repository, tmp_path: Path) -> tuple[Context, Artifact]:
    """A commit with links out of the tree, as an artifact of a task."""
    (repository.path / "link").symlink_to("/etc/passwd")
    repository.commit(a_dot_py="import os\n")
    fetch(str(repository), "", str(tmp_path / "bare"))
    packed = packing.pack(tmp_path / "bare", "tree")
    ctx = context()
    await ctx.save("tree", packed.data)
    return ctx, packed.artifact


async def test_a_tree_is_unpacked_once_and_kept_while_it_is_used(
    travelled: tuple[Context, Artifact], cache: Path
) -> None:
    ctx, tree = travelled
    old = cache / "trees" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    home = await located(ctx, LintRequest(tree=tree))
    assert Path(home).parent == cache / "trees"
    assert not old.exists()
    os.utime(home, (0, 0))
    assert await located(context(), LintRequest(tree=tree)) == home
    assert _is_used(home)


async def test_the_checks_read_a_tree_that_travelled(travelled: tuple[Context, Artifact]) -> None:
    ctx, tree = travelled
    home = await located(ctx, LintRequest(tree=tree))
    assert lint(home).rules == {"F401": 1}
    assert (scan(home).files, measure(home).files) == (1, 1)


async def test_what_is_no_tree_is_refused(travelled: tuple[Context, Artifact]) -> None:
    ctx, tree = travelled
    with pytest.raises(Permanent, match="neither a path nor a tree"):
        await located(ctx, LintRequest())
    broken = packing.packed(b"no archive").artifact
    await ctx.save("broken", b"no archive")
    with pytest.raises(Permanent, match="cannot be unpacked"):
        await located(ctx, LintRequest(tree=replace(tree, digest=broken.digest)))


def _is_used(home: str) -> bool:
    return Path(home).stat().st_mtime > 0


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("HEAD", tarfile.SYMTYPE, "../outside"),
        ("../outside", tarfile.REGTYPE, ""),
        ("/outside", tarfile.REGTYPE, ""),
        ("HEAD", tarfile.LNKTYPE, "config"),
        ("objects/info/alternates", tarfile.REGTYPE, ""),
        ("./objects//info/Alternates", tarfile.REGTYPE, ""),
        ("commondir", tarfile.REGTYPE, ""),
        ("HEAD", tarfile.GNUTYPE_SPARSE, ""),
    ],
)
async def test_a_tree_that_leads_elsewhere_is_refused(
    cache: Path, name: str, kind: bytes, link: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member, io.BytesIO())
    ctx = context()
    tree = await ctx.save("tree", buffer.getvalue())
    with pytest.raises(Permanent, match="no part of a repository"):
        await located(ctx, LintRequest(tree=tree))
    assert list((cache / "trees").iterdir()) == []


async def test_a_repository_in_a_home_under_git_shows_nothing_of_the_home(
    travelled: tuple[Context, Artifact], cache: Path
) -> None:
    """Its step would see all files of the user."""
    (cache / ".git").mkdir(parents=True)
    ctx, tree = travelled
    home = await located(ctx, LintRequest(tree=tree))
    assert set(git_reads(home)) == {home}


async def test_a_full_disk_is_no_fault_of_the_tree(
    travelled: tuple[Context, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("switchgear_agents.trees._write", full)
    ctx, tree = travelled
    with pytest.raises(OSError, match="no space left"):
        await located(ctx, LintRequest(tree=tree))
