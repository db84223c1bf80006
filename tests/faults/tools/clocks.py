"""The wall clock of a child process, set back or ahead while it runs (libfaketime).

Only the wall clock moves: the monotonic clock goes on as it is, as on a machine whose time is set.
It works for programs that ask the C library for the time, such as Python; a nats-server asks the
kernel, and keeps the true time.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

PACKAGE = "libfaketime"
"""Debian's package."""
PLACES = ("/usr/lib", "/usr/local/lib")
NAMES = ("*/faketime/libfaketimeMT.so.1", "faketime/libfaketimeMT.so.1")
"""Below a place; the library for programs with threads."""
SHARED = Path("/dev/shm")  # noqa: S108 - where Linux has its shared memory
BROKEN = b"clock_nanosleep"
"""libfaketime's version of this fails with EINVAL when the monotonic clock is left alone, up to its
release 0.9.10 (issue 426); Python's `time.sleep` calls it from 3.11 on. The C library's own is right."""


def library() -> Path | None:
    """Find libfaketime."""
    for place in PLACES:
        for name in NAMES:
            for found in sorted(Path(place).glob(name)):
                return found
    return None


def missing() -> str:
    """Return what keeps this machine from setting clocks; empty if nothing does."""
    return "" if library() else f"libfaketime is missing: install the package {PACKAGE}"


def without(symbol: bytes, library: bytes) -> bytes:
    """Return a shared library that no longer offers this function to others.

    Its name stands first among the names that the linker reads, and later as text in the code.
    """
    name = b"\0" + symbol + b"\0"
    return library.replace(name, b"\0" + b"_" * len(symbol) + b"\0", 1)


class FakeClock:
    """One clock for all processes that are started with its environment; right at first."""

    def __init__(self, folder: Path) -> None:
        """`folder` is created and holds the clock's file."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder.absolute() / "clock"
        self.ahead = timedelta()
        """Of the true time; negative when behind."""
        self.jump(timedelta())

    def environment(self) -> dict[str, str]:
        """What a child's environment needs, beside what else is in it. Raises without libfaketime."""
        found = library()
        if found is None:
            raise RuntimeError(missing())
        ours = self._file.with_name(found.name)
        if not ours.exists():
            ours.write_bytes(without(BROKEN, found.read_bytes()))
        others = os.environ.get("LD_PRELOAD", "")
        return {
            "LD_PRELOAD": f"{ours}:{others}".rstrip(":"),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # a jump is seen at once, not within ten seconds
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # times of files stay those of the machine
        }

    def jump(self, by: timedelta) -> None:
        """Set the clock ahead by this much, or back by a negative time, for all its processes."""
        self.ahead += by
        # Replaced whole: a process may read at any moment.
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{self.ahead.total_seconds():+.6f}\n", encoding="ascii")
        draft.replace(self._file)

    @staticmethod
    def forget(pid: int) -> None:
        """Remove what libfaketime keeps in shared memory for a child that was killed."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (SHARED / name).unlink(missing_ok=True)
