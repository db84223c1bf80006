"""Ends every process that a step started, also those that left its session.

Each step's processes carry a mark in their environment, which children inherit. On Linux /proc
shows the mark, so daemons that called setsid or lost their parent are found too; one that also
cleared its environment escapes. Elsewhere only the step's process group is reached. A step that
runs steps of its own passes its mark on: its end reaches theirs.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

MARK = "SWITCHGEAR_STEP_PROCESS"
"""Environment variable that holds the marks of the steps that a process belongs to, outermost
first, split by colons."""

_PREFIX = f"{MARK}=".encode()
_PROC = Path("/proc")
_ROUNDS = 20
"""Passes over /proc at most: a fork bomb faster than this is left to the memory limit."""


def kill_group(leader: int) -> None:
    """Kill the process group of a leader that has not been reaped yet."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_marked(leader: int, mark: str, *, since: int) -> int:
    """Kill what is left of a step: its session, and every process with its mark. Returns how many.

    `since` is `clock_ticks()` read before the step started: older processes are not looked at.
    Repeats until a pass finds nobody alive, since a process may fork while /proc is read.
    """
    if not (_PROC / "self" / "stat").exists():
        kill_group(leader)
        return 0
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = [pid for pid in _processes(since) if _belongs(pid, leader, mark)]
        if not set(found) - killed:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    return len(killed)


def marked(mark: str) -> dict[str, str]:
    """The variable that marks a step's processes, after the marks that this process carries."""
    return {MARK: ":".join(filter(None, (os.environ.get(MARK), mark)))}


def clock_ticks() -> int:
    """Now, by the clock of process starts in /proc: ticks since boot; 0 where there is no /proc."""
    try:
        uptime = float((_PROC / "uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return int(uptime * os.sysconf("SC_CLK_TCK")) - 1


def alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody reaped does not."""
    return _started(pid) >= 0


def _processes(since: int) -> list[int]:
    """Living processes that started at that tick or later."""
    return [
        int(entry.name)
        for entry in _PROC.iterdir()
        if entry.name.isdecimal() and _started(int(entry.name)) >= since
    ]


def _started(pid: int) -> int:
    """Tick of the process's start; -1 for one that is gone or dead."""
    fields = _stat(pid)
    return -1 if not fields or fields[0] in {"Z", "X"} else int(fields[19])


def _belongs(pid: int, leader: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    fields = _stat(pid)
    if not fields:
        return False
    if int(fields[3]) == leader:
        return True
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    marks = next((e for e in environ.split(b"\0") if e.startswith(_PREFIX)), b"")
    return mark.encode() in marks.removeprefix(_PREFIX).split(b":")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty for a process that is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
