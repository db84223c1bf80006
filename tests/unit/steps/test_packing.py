"""Files as bytes and back."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from switchgear.contract import limits
from switchgear.contract.artifact import TAR, Artifact
from switchgear.steps import packing
from switchgear.steps.packing import Unpackable, pack, packed, unpack


def tree(home: Path) -> Path:
    (home / "deep").mkdir(parents=True)
    (home / "deep" / "file").write_bytes(b"x\0y")
    (home / "empty").mkdir()
    (home / "run").write_text("#!/bin/sh\n")
    (home / "run").chmod(0o755)
    (home / "link").symlink_to("deep/file")
    os.link(home / "run", home / "same")
    return home


def archive(*members: tarfile.TarInfo) -> tuple[Artifact, bytes]:
    """An archive with these members, as a foreign writer may have made it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for member in members:
            member.size = 1 if member.isreg() else 0
            file.addfile(member, io.BytesIO(b"x") if member.isreg() else None)
    return packed(buffer.getvalue(), media_type=TAR, directory=True)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_a_directory_comes_back_as_it_was(tmp_path: Path) -> None:
    artifact, data = pack(tree(tmp_path / "tree"))
    unpack(artifact, data, tmp_path / "back")
    back = tmp_path / "back"
    assert (artifact.name, artifact.directory, artifact.size) == ("tree", True, len(data))
    assert (back / "deep" / "file").read_bytes() == b"x\0y"
    assert (back / "empty").is_dir()
    assert os.access(back / "run", os.X_OK)
    assert (back / "same").read_text() == "#!/bin/sh\n"
    assert (back / "link").readlink() == Path("deep/file")


def test_the_same_files_make_the_same_artifact_whenever_they_were_written(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one" / "tree"), tree(tmp_path / "two" / "tree")
    os.utime(two / "run", (1, 1))
    assert pack(one) == pack(two)
    (two / "run").write_text("other")
    assert pack(one).artifact.digest != pack(two).artifact.digest


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    artifact, data = pack(tmp_path / "file", "wheel")
    unpack(artifact, data, tmp_path / "back")
    assert (artifact.name, artifact.directory) == ("wheel", False)
    assert (tmp_path / "back").read_bytes() == b"data"


def test_what_is_neither_file_nor_directory_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc")
    for name in ("pipe", "link", "nowhere"):
        with pytest.raises(Unpackable):
            pack(tmp_path / name)


def test_what_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BLOB", 20_000)
    (tmp_path / "tree").mkdir()
    for name in "abc":
        (tmp_path / "tree" / name).write_bytes(bytes(9000))
    with pytest.raises(Unpackable, match="more than 20000"):
        pack(tmp_path / "tree")
    (tmp_path / "big").write_bytes(bytes(20_001))
    with pytest.raises(Unpackable, match="20001 bytes"):
        pack(tmp_path / "big")


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("a/../../outside")],
        [member("link", tarfile.SYMTYPE, ".."), member("link/outside")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("link", tarfile.LNKTYPE, "../../outside")],
        [member("device", tarfile.CHRTYPE)],
    ],
)
def test_an_archive_writes_nothing_outside(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    artifact, data = archive(*members)
    with pytest.raises(Unpackable):
        unpack(artifact, data, tmp_path / "inner" / "back")
    (tmp_path / "inner").mkdir()
    with pytest.raises(Unpackable):
        unpack(artifact, data, tmp_path / "inner" / "back")
    assert not list(tmp_path.glob("**/outside"))


def test_an_absolute_name_in_an_archive_lands_inside(tmp_path: Path) -> None:
    artifact, data = archive(member("/outside"))
    unpack(artifact, data, tmp_path / "back")
    assert (tmp_path / "back" / "outside").exists()


def test_rights_beyond_a_users_are_dropped(tmp_path: Path) -> None:
    info = member("run")
    info.mode, info.uid = 0o6777, 0
    artifact, data = archive(info)
    unpack(artifact, data, tmp_path / "back")
    assert (tmp_path / "back" / "run").stat().st_mode & 0o7022 == 0


@pytest.mark.parametrize("data", [b"", b"no archive", bytes(10240)])
def test_bytes_that_are_no_archive_make_no_files(tmp_path: Path, data: bytes) -> None:
    artifact = packing.packed(data, directory=True).artifact
    with suppress(Unpackable):
        unpack(artifact, data, tmp_path / "back")
    assert not (tmp_path / "back").exists() or list((tmp_path / "back").iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    artifact, data = packed(b"new")
    with pytest.raises(Unpackable):
        unpack(artifact, data, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"kept"


SYM, DIR = tarfile.SYMTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("a", SYM, "."), member("a/b", SYM, ".."), member("a/b/file")],
        [member("here", SYM, "."), member("out", SYM, "here/../..")],
        [member("deep", DIR), member("deep/out", SYM, "../../x")],
        [member("a/b/../../../file")],
        [member("device", tarfile.CHRTYPE)],
        [member("file"), member("again", tarfile.LNKTYPE, "file")],
    ],
)
def test_nothing_of_a_crafted_archive_lands_or_points_outside(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    """Whatever this Python's own filter lets through."""
    artifact, data = archive(*members)
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(Unpackable):
        unpack(artifact, data, home / "tree")
    assert [one.name for one in home.iterdir()] == ["tree"]


def test_links_that_stay_inside_come_back(tmp_path: Path) -> None:
    artifact, data = archive(
        member("deep/er/up", SYM, "../../file"), member("file"), member("self", SYM, "./deep/er")
    )
    unpack(artifact, data, tmp_path / "tree")
    assert (tmp_path / "tree" / "self" / "up").read_text() == "x"
