"""How commands find a mesh that `switchgear dev` runs in this folder or one above, without any option.

The mesh writes `dev.json` into its state folder and holds a lock beside it for as long as it lives, so that a
file left behind by a crash, or a process id used again, is never taken for a running mesh.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

STATE = Path(".switchgear")
"""The state folder of a mesh, relative to where it was started."""
_FILE = "dev.json"
_LOCK = "dev.lock"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the mesh."""

    pid: int
    restarts: int = 0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `dev.json` says."""

    url: str
    monitoring_url: str = ""
    pid: int
    """Of `switchgear dev` itself."""
    processes: dict[str, Process] = {}
    state: str = ""
    """The folder, absolute."""
    version: int = 1

    @property
    def path(self) -> Path:
        """The file that says so."""
        return Path(self.state) / _FILE


def find(start: Path | None = None) -> Running | None:
    """The running mesh of the nearest folder, from `start` (the working directory) upwards."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        running = read(folder / STATE)
        if running is not None:
            return running
    return None


def read(state: Path) -> Running | None:
    """What the mesh of this state folder says of itself; None when none runs."""
    try:
        data = (state / _FILE).read_bytes()
    except OSError:
        return None
    if not _held(state / _LOCK):
        return None
    try:
        return msgspec.json.decode(data, type=Running)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def claim(state: Path) -> int | None:
    """Take the folder's lock: the descriptor that holds it; None when another mesh has it."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def write(state: Path, running: Running) -> None:
    """Say that the mesh runs. Replaces the file at once, so that no reader sees half of it."""
    fresh = state / f"{_FILE}.new"
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(running)) + b"\n")
    fresh.replace(state / _FILE)


def release(state: Path, lock: int) -> None:
    """Say that the mesh has ended."""
    with contextlib.suppress(OSError):
        (state / _FILE).unlink(missing_ok=True)
    os.close(lock)


def _held(lock: Path) -> bool:
    """Whether somebody holds the lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
