"""A small disk, to be filled: a tmpfs of a given size. Mounting it needs root."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

CHUNK = 65536


def missing() -> str:
    """Return what keeps this process from mounting; empty if nothing does."""
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    if shutil.which("mount") is None or shutil.which("umount") is None:
        return "mount is missing: install the package mount"
    return ""


class SmallDisk:
    """A mounted tmpfs; `with` mounts it and takes it away again, with all that is on it."""

    def __init__(self, folder: Path, size: int) -> None:
        """`folder` is created and becomes the mount point; `size` is in bytes."""
        self.path = folder.absolute()
        self._size = size

    def __enter__(self) -> Self:
        """Mount it."""
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size},mode=700", "tmpfs", str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it, even while something has a file open there."""
        _run("umount", "--lazy", str(self.path))

    @property
    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    @property
    def is_full(self) -> bool:
        """Whether its space is taken: a server that is started then is never ready."""
        return (self.path / "ballast").exists()

    def fill(self, leave: int = 0) -> None:
        """Take all space but about `leave` bytes; again after something was removed if need be."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            try:
                while (room := self.free - leave) > 0:
                    ballast.write(bytes(min(CHUNK, room)))
            except OSError as error:
                # Others write there at the same time.
                if error.errno != errno.ENOSPC:
                    raise

    def relieve(self) -> None:
        """Give the space back."""
        (self.path / "ballast").unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
