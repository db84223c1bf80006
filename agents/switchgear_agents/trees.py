"""Brings the tree of a request onto this host: a path that is here already, or an artifact that travelled.

The artifact is a bare repository, kept by its digest in the user's cache for as long as it is used.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import shutil
import tarfile
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Protocol

from switchgear import Artifact, Context, Permanent
from switchgear_agents.places import cache_directory

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
_ELSEWHERE = {
    ("commondir",),
    ("gitdir",),
    ("objects", "info", "alternates"),
    ("objects", "info", "http-alternates"),
}
"""Files by which git looks for objects in other repositories: this host's, of which the tree is none."""
_THIS_HOST = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO}
"""Errors that say nothing of the tree: it is tried again, here or elsewhere."""
_KEEP = 24 * 3600
"""Seconds that a tree outlives its last use."""


class Request(Protocol):
    """What names a tree."""

    @property
    def path(self) -> str | None:
        """Absolute, of a tree on this host."""
        ...

    @property
    def tree(self) -> Artifact | None:
        """A bare repository."""
        ...


async def located(ctx: Context, request: Request) -> str:
    """Where this host has the tree. Raises `Permanent` for a request that names none, or one that is no tree."""
    if request.tree is None:
        if request.path is None:
            raise Permanent("the request names neither a path nor a tree")
        return request.path
    home = cache_directory("trees") / request.tree.digest.replace(":", "-")[:64]
    if not _used(home):
        data = await ctx.load(request.tree)
        try:
            await asyncio.to_thread(_unpack, data, home)
        except OSError as error:
            if error.errno in _THIS_HOST:
                raise
            raise Permanent(f"the tree cannot be unpacked: {error}") from error
        except tarfile.TarError as error:
            raise Permanent(f"the tree cannot be unpacked: {error}") from error
    return str(home)


def _used(home: Path) -> bool:
    """Whether it is there; then it counts as used now."""
    try:
        os.utime(home)
    except FileNotFoundError:
        return False
    return True


def _unpack(data: bytes, home: Path) -> None:
    """Give the tree its name complete and at once, unless somebody was faster; forget old ones."""
    _forget_old(home.parent)
    made = mkdtemp(prefix="new-", dir=home.parent)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                _write(archive, member, Path(made))
        # whoever made it could name programs in its own
        (Path(made) / "config").write_text(_CONFIG, "utf-8")
        os.utime(made)
        Path(made).rename(home)
    except OSError:
        if not _used(home):
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> None:
    """One file or directory: nothing leads elsewhere, nothing grows beyond the archive. Raises TarError."""
    parts = PurePosixPath(member.name).parts
    plain = (member.isreg() and not member.issparse()) or member.isdir()
    if not plain or {"..", "/"} & set(parts) or tuple(map(str.lower, parts)) in _ELSEWHERE:
        raise tarfile.TarError(f"{member.name} is no part of a repository")
    target = home.joinpath(*parts)
    content = archive.extractfile(member)
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.read())


def _forget_old(trees: Path) -> None:
    oldest = time.time() - _KEEP  # noqa: TID251 - compared with times of files, which are wall times
    for home in trees.iterdir():
        with suppress(FileNotFoundError):  # another process forgets, too
            if home.stat().st_mtime < oldest:
                shutil.rmtree(home, ignore_errors=True)
