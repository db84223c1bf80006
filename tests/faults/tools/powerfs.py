"""A mounted folder that can lose its power: `python -m tests.faults.tools.powerfs FOLDER MOUNT`.

FOLDER holds `disk`, what was synced, and `live`, what programs see. It is told what to do by lines
on its standard input, and answers each by one line of JSON: `sync`, `count`, `lose` (from then on
no operation on the mount returns; the caller then kills this process) and `stop` (sync, unmount).
When its input ends, so does it.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.tools.volume import Volume

STAT = ("mode", "ino", "nlink", "uid", "gid", "size")
TIMES = ("atime", "mtime", "ctime")
SPACE = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax")


class PowerFs:
    """The operations, in the words of libfuse; what it is not given, libfuse answers by itself."""

    use_ns = True
    """Times are whole nanoseconds."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def init(self, _path: str) -> None:
        """Say that the folder is mounted."""
        answer({"mounted": True})

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """A file's attributes, by its handle if it is open."""
        live = self._volume.live(path)
        found = os.lstat(live) if fh is None else os.fstat(fh)
        return {
            **{f"st_{name}": getattr(found, f"st_{name}") for name in STAT},
            **{f"st_{name}": getattr(found, f"st_{name}_ns") for name in TIMES},
        }

    def readdir(self, path: str, _fh: int) -> list[str]:
        """The names in a folder."""
        return [".", "..", *(one.name for one in Path(self._volume.live(path)).iterdir())]

    def statfs(self, path: str) -> dict[str, int]:
        """The space there is."""
        found = os.statvfs(self._volume.live(path))
        return {f"f_{name}": getattr(found, f"f_{name}") for name in SPACE}

    def open(self, path: str, flags: int) -> int:
        """Open a file."""
        return self._volume.open(path, flags)

    def create(self, path: str, mode: int, flags: int) -> int:
        """Create a file and open it."""
        return self._volume.open(path, flags | os.O_CREAT, mode & 0o7777)

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        """Read."""
        return self._volume.read(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write; returns how many bytes."""
        return self._volume.write(path, fh, data, offset)

    def truncate(self, path: str, length: int, _fh: int | None = None) -> None:
        """Cut or extend."""
        self._volume.truncate(path, length)

    def fsync(self, path: str, _datasync: int, fh: int) -> None:
        """Bring a file to the disk."""
        self._volume.sync(path, fh)

    def fsyncdir(self, _path: str, _datasync: int, _fh: int) -> None:
        """Bring the names to the disk."""
        self._volume.sync_folder()

    def release(self, _path: str, fh: int) -> None:
        """The last descriptor of an open file was closed."""
        self._volume.close(fh)

    def mkdir(self, path: str, mode: int) -> None:
        """Make a folder."""
        self._volume.change(os.mkdir, path, mode & 0o7777)

    def rmdir(self, path: str) -> None:
        """Remove a folder."""
        self._volume.change(os.rmdir, path)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._volume.change(os.unlink, path)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        self._volume.rename(old, new)

    def chmod(self, path: str, mode: int) -> None:
        """Change who may what."""
        self._volume.change(os.chmod, path, mode & 0o7777)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change whose it is."""
        self._volume.change(os.chown, path, uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        """Set times; the disk does without."""
        if times is None:
            os.utime(self._volume.live(path))
        else:
            os.utime(self._volume.live(path), ns=times)

    def getxattr(self, _path: str, _name: str, _position: int = 0) -> bytes:
        """There are none."""
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def answer(told: dict[str, Any]) -> None:
    """Write one line for who started this."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def unmount(mount: str) -> None:
    """Take the mount away, also from under those that use it; silent if there is none."""
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    tool = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if tool is not None:
        subprocess.run([tool, *command[1:], mount], check=False, stderr=subprocess.DEVNULL)


def obey(volume: Volume, mount: str) -> None:
    """Do as the input says, until it ends, and the process with it."""
    for line in sys.stdin:
        match line.strip():
            case "sync":
                volume.sync_all()
                answer({"synced": True})
            case "count":
                answer({"syncs": volume.syncs})
            case "lose":
                answer(asdict(volume.lose()))
            case "stop":
                volume.sync_all()
                answer({"stopped": True})  # before the unmount, which ends the main thread
                break
            case unknown:
                answer({"unknown": unknown})
    unmount(mount)
    # Threads may hang in operations that never return.
    os._exit(0)


def main() -> None:
    """Mount, and serve until told otherwise."""
    folder, mount = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fuse: Any = importlib.import_module("mfusepy")
    volume = Volume(Path(folder, "live"), Path(folder, "disk"))
    threading.Thread(target=obey, args=(volume, mount), daemon=True).start()
    fuse.FUSE(PowerFs(volume), mount, foreground=True, nothreads=False, fsname="powerfs")


if __name__ == "__main__":
    main()
