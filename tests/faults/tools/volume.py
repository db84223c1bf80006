"""What a disk has of a folder: a live copy that programs see, and behind it what was synced.

The model is that of a journalling file system (ext4, XFS): creating, renaming, removing and
truncating wait in one ordered journal, and any fsync commits the journal up to there; the bytes of
a file get to the disk with an fsync of that file only. It is stricter than such a system where that
one writes something back on its own, after a while or on a rename: here nothing does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

SYNCED = os.O_SYNC | os.O_DSYNC
"""Flags of `open` that make every write its own fsync."""
NOT_OURS = SYNCED | os.O_APPEND | os.O_DIRECT | os.O_TRUNC
"""Flags that the live file is not opened with: the kernel or this module sees to them."""

Range = tuple[int, int]
"""From the first byte to the one behind the last."""


@dataclass(frozen=True)
class Loss:
    """What a power loss took."""

    bytes: int
    """Written, not synced."""
    changes: int
    """Of the folder: created, renamed, removed, truncated, and not synced."""


def merged(ranges: list[Range], new: Range) -> list[Range]:
    """Add a range to sorted ones that neither touch nor overlap."""
    start, end = new
    before = [one for one in ranges if one[1] < start]
    behind = [one for one in ranges if one[0] > end]
    for one in ranges[len(before) : len(ranges) - len(behind)]:
        start, end = min(start, one[0]), max(end, one[1])
    return [*before, (start, end), *behind]


def clipped(ranges: list[Range], length: int) -> list[Range]:
    """Return what of the ranges lies before `length`."""
    return [(start, min(end, length)) for start, end in ranges if start < length]


class Volume:
    """A live folder and its disk. Paths begin with a slash. Safe for threads."""

    def __init__(self, live: Path, disk: Path) -> None:
        """Both exist afterwards; what is live begins as what the disk has."""
        disk.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(live, ignore_errors=True)
        shutil.copytree(disk, live)
        self._live, self._disk = str(live), str(disk)
        self._lock = threading.RLock()
        self._journal: list[Callable[[], object]] = []
        self._unsynced: dict[int, list[Range]] = {}
        self._synced_handles = set[int]()
        self._is_lost = False
        self.syncs = 0
        """How often somebody synced a file."""

    def live(self, path: str) -> str:
        """Where the file of programs lies; never returns once the power is lost."""
        if self._is_lost:
            threading.Event().wait()
        return self._live + path

    def lose(self) -> Loss:
        """Stop here: what is not on the disk now never gets there, and no operation returns."""
        with self._lock:
            self._is_lost = True
            count = sum(end - start for one in self._unsynced.values() for start, end in one)
            return Loss(count, len(self._journal))

    def sync_all(self) -> None:
        """Bring everything to the disk, as `sync` does."""
        with self._lock:
            self._commit()
            for folder, _, names in os.walk(self._live):
                for name in names:
                    self._sync_path(folder[len(self._live) :] + "/" + name)
            self._unsynced.clear()

    def _sync_path(self, path: str) -> None:
        fd = os.open(self._live + path, os.O_RDONLY)
        try:
            self._copy(fd, path)
        finally:
            os.close(fd)

    # --- files ---------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open or create; returns the handle."""
        live = self.live(path)
        ours = flags & ~NOT_OURS
        if flags & os.O_ACCMODE == os.O_WRONLY:
            ours = ours & ~os.O_ACCMODE | os.O_RDWR  # a sync reads what was written
        with self._enter():
            is_new = not os.path.lexists(live)
            handle = os.open(live, ours, mode)
            if is_new:
                self._unsynced.pop(os.fstat(handle).st_ino, None)
                self._journal.append(functools.partial(_create, self._disk + path, mode))
            elif flags & os.O_TRUNC:
                self.truncate(path, 0)
            if flags & SYNCED:
                self._synced_handles.add(handle)
        return handle

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Read from a handle."""
        self.live("")
        return os.pread(handle, size, offset)

    def write(self, path: str, handle: int, data: bytes, offset: int) -> int:
        """Write to a handle; kept apart from the disk until a sync."""
        with self._enter():
            count = os.pwrite(handle, data, offset)
            file = os.fstat(handle).st_ino
            span = (offset, offset + count)
            self._unsynced[file] = merged(self._unsynced.get(file, []), span)
            if handle in self._synced_handles:
                self.sync(path, handle)
        return count

    def sync(self, path: str, handle: int) -> None:
        """Bring the journal and this file's bytes to the disk."""
        with self._enter():
            self._commit()
            self._copy(handle, path)
            self.syncs += 1

    def sync_folder(self) -> None:
        """Bring the journal to the disk."""
        with self._enter():
            self._commit()

    def close(self, handle: int) -> None:
        """Close a handle; says nothing about the disk."""
        with self._enter():
            self._synced_handles.discard(handle)
            os.close(handle)

    def truncate(self, path: str, length: int) -> None:
        """Cut or extend a file."""
        with self._enter():
            live = self.live(path)
            os.truncate(live, length)
            file = Path(live).stat().st_ino
            self._unsynced[file] = clipped(self._unsynced.get(file, []), length)
            self._journal.append(functools.partial(os.truncate, self._disk + path, length))

    # --- the folder ----------------------------------------------------------------------------------------------

    def change(self, what: Callable[..., None], path: str, *more: int) -> None:
        """Do `os.mkdir`, `os.unlink`, `os.chmod` and the like, live now and on the disk later."""
        with self._enter():
            what(self.live(path), *more)
            self._journal.append(functools.partial(what, self._disk + path, *more))

    def rename(self, old: str, new: str) -> None:
        """Rename, over a file that is there too."""
        with self._enter():
            Path(self.live(old)).rename(self.live(new))
            self._journal.append(functools.partial(Path(self._disk + old).rename, self._disk + new))

    # --- under the lock ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _enter(self) -> Generator[None]:
        """Hold the lock; never returns once the power is lost."""
        with self._lock:
            is_lost = self._is_lost
            if not is_lost:
                yield
        if is_lost:
            self.live("")

    def _commit(self) -> None:
        journal, self._journal = self._journal, []
        for change in journal:
            change()

    def _copy(self, handle: int, path: str) -> None:
        """Copy this file's bytes that the disk lacks."""
        ranges = self._unsynced.pop(os.fstat(handle).st_ino, [])
        if not ranges:
            return
        target = os.open(self._disk + path, os.O_WRONLY)
        try:
            for start, end in ranges:
                os.pwrite(target, os.pread(handle, end - start, start), start)
        finally:
            os.close(target)


def _create(path: str, mode: int) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, mode))
