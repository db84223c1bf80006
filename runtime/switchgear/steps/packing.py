"""Files and directories as bytes and back: the same content always gives the same bytes; unpacking stays inside."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
from pathlib import Path
from typing import NamedTuple

from switchgear import ids
from switchgear.contract import limits
from switchgear.contract.artifact import BYTES, TAR, Artifact


class Unpackable(Exception):
    """Something that cannot become an artifact, or bytes that cannot become files; the text says why."""


class Packed(NamedTuple):
    """An artifact and its bytes."""

    artifact: Artifact
    data: bytes


def pack(path: Path, name: str = "") -> Packed:
    """The file or directory as an artifact; links are kept as links, never followed. Raises Unpackable."""
    try:
        state = path.lstat()
        if stat.S_ISDIR(state.st_mode):
            return packed(_tar(path), name or path.name, media_type=TAR, directory=True)
        if not stat.S_ISREG(state.st_mode):
            raise Unpackable(f"{path} is neither a file nor a directory")
        if state.st_size > limits.MAX_BLOB:
            raise Unpackable(f"{path} has {state.st_size} bytes")
        return packed(path.read_bytes(), name or path.name)
    except OSError as error:
        raise Unpackable(f"{path} cannot be read: {error.strerror}") from error


def packed(
    data: bytes, name: str = "", *, media_type: str = BYTES, directory: bool = False
) -> Packed:
    """These bytes as an artifact."""
    artifact = Artifact(
        digest=ids.digest(data),
        size=len(data),
        name=name[:255],
        media_type=media_type,
        directory=directory,
    )
    return Packed(artifact, data)


def unpack(artifact: Artifact, data: bytes, path: Path) -> None:
    """Write the artifact to this path, which must not exist. Raises Unpackable.

    Of a directory: no absolute names, no way out through `..` or links, no devices, owners or set-uid bits.
    """
    try:
        if not artifact.directory:
            with path.open("xb") as file:
                file.write(data)
            return
        path.mkdir()
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            _extract(archive, path)
    except (OSError, tarfile.TarError) as error:
        raise Unpackable(f"artifact {artifact.name or artifact.digest}: {error}") from error


def _extract(archive: tarfile.TarFile, path: Path) -> None:
    """Write files, directories and links that stay inside.

    By hand: links below links lead the `data` filter of older Pythons outside (CVE-2025-4517), and the first releases
    of 3.11 have none.
    """
    links: set[str] = set()
    for member in archive:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        above = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if ".." in parts or above & links:
            raise Unpackable(f"the member {member.name!r} leads outside")
        target = path.joinpath(*parts)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            if not _stays(member.linkname, depth=len(parts) - 1):
                raise Unpackable(f"the link {member.name!r} leads outside, to {member.linkname!r}")
            target.symlink_to(member.linkname)
            links.add("/".join(parts))
        elif member.isreg():
            content = archive.extractfile(member)
            assert content is not None
            with target.open("xb") as file:
                shutil.copyfileobj(content, file)
            target.chmod(member.mode & 0o755 | 0o600)
        else:
            raise Unpackable(
                f"the member {member.name!r} is neither a file, a directory nor a link"
            )


def _stays(target: str, *, depth: int) -> bool:
    """Whether a link so deep inside leads inside: it goes up at its beginning only, and not too far.

    Further on `..` could follow another link, and so mean another directory than it says.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and ups <= depth and ".." not in parts[ups:]


class _Bounded(io.BytesIO):
    """Refuses to grow beyond what a blob may hold, before the memory is used."""

    def write(self, data: object, /) -> int:
        if self.tell() + len(memoryview(data)) > limits.MAX_BLOB:  # type: ignore[arg-type]  # tarfile writes bytes
            raise Unpackable(f"the directory's archive has more than {limits.MAX_BLOB} bytes")
        return super().write(data)  # type: ignore[arg-type]  # as above


def _tar(directory: Path) -> bytes:
    buffer = _Bounded()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            if not (path.is_symlink() or path.is_file() or path.is_dir()):
                raise Unpackable(f"{path} is neither a file, a directory nor a link")
            archive.inodes = {}  # type: ignore[attr-defined]  # each name of a hard link carries the bytes
            info = archive.gettarinfo(path, arcname=str(path.relative_to(directory)))
            # Times and owners would give the same content another digest in each run.
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            if info.isreg():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    return buffer.getvalue()
