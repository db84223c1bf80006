"""What the host of a step ran out of, told from what is the step's own doing: what its breakers are asked to count.

Above: the runner and the executors. Below: the tables of `resilience.os_failures`. What a step's own limits refuse it
is its own failure: a program that may have no more memory, files or processor time ends by itself, or by a signal that
the kernel sends for that limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from switchgear.errors import StepFailed
from switchgear.resilience.classes import FILES, MEMORY, Verdict
from switchgear.resilience.os_failures import shortage, shortage_told
from switchgear.resilience.process_failures import process_end
from switchgear.steps import bubblewrap, spawning

if TYPE_CHECKING:
    from switchgear.steps.result import Isolation
    from switchgear.steps.spec import StepSpec

_ROOM = 256 * 1024
"""Bytes that the disk must take before a step begins."""
_CAUSES = 8
"""Links of a chain of causes that are followed."""
_COUNTERS = Path("/proc/vmstat")
_OOM_KILLS = b"\noom_kill "


def ensure_room(directory: Path) -> None:
    """Find out before a step begins whether the disk takes what it will write. Raises OSError."""
    file = directory / "room"
    file.write_bytes(bytes(_ROOM))
    file.unlink()


def oom_kills() -> int:
    """Processes of this machine that the kernel killed for want of memory; 0 where it does not count them.

    Raises OSError where it cannot be asked now, as with too many open files.
    """
    try:
        _, found, rest = _COUNTERS.read_bytes().partition(_OOM_KILLS)
    except (FileNotFoundError, PermissionError):
        return 0
    return int(rest.split(maxsplit=1)[0]) if found else 0


def found_in(error: BaseException, spec: StepSpec) -> Verdict | None:
    """What of this host ran out, by an exception around the step or what it came from; None: nothing did."""
    one: BaseException | None = error
    for _ in range(_CAUSES):
        if one is None:
            return None
        found = shortage(one) or _told(one, spec)
        if found is not None or (isinstance(one, StepFailed) and one.dependency):
            return found  # whoever named what failed has looked
        one = one.__cause__ or one.__context__
    return None


def failure(key: str, found: Verdict, error: BaseException, *, outcome_known: bool) -> StepFailed:
    """The error of a step that met this."""
    _, _, name = found.dependency.partition(":")
    return StepFailed(
        f"step {key} failed: its host is short of {name}",
        key=key,
        error_class=found.error_class,
        outcome_known=outcome_known,
        dependency=found.dependency,
        why=getattr(error, "why", "") or str(error),
        fix=found.fix,
    )


def starved(key: str, code: int, streams: spawning.Streams, isolation: Isolation) -> StepFailed:
    """The error of a step that the kernel killed, because the machine or the agent's container had no memory left."""
    failed = StepFailed(
        f"step {key} {process_end(code)}",
        key=key,
        exit_code=code,
        stdout=streams.stdout,
        stderr=streams.stderr,
        error_class="resource",
        outcome_known=False,
        dependency=MEMORY,
        why="the kernel killed it for want of memory",
        fix="give the host more memory, run fewer steps at a time, or bound each by .limits(memory=…)",
    )
    failed.isolation = isolation
    return failed


def _told(error: BaseException, spec: StepSpec) -> Verdict | None:
    """What programs of ours said: git, and the sandbox's, which holds the step's limits itself."""
    if isinstance(error, bubblewrap.NotRun):
        found = bubblewrap.lacking(error)
        own = {
            MEMORY: any(one.memory_limit is not None for one in spec.specs),
            FILES: any(one.open_limit is not None for one in spec.specs),
        }
        return None if found is None or own.get(found.dependency) else found
    if isinstance(error, StepFailed) and error.dependency.startswith("git:"):
        return shortage_told(error.why)
    return None
