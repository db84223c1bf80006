"""What came of a step: exit code, bounded output, artifacts, and how it was run. Pure data, recorded in the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from msgspec import Struct, field

from switchgear.contract.artifact import Artifact

Isolation = Literal["bubblewrap", "container", "none"]


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which kind of limit held; empty for what was not asked for."""

    memory: Literal["", "address-space", "cgroup", "none"] = ""
    """`address-space`: each process for itself; `cgroup`: all together; `none`: asked for, and not enforced."""
    cpu: Literal["", "cpu-time", "none"] = ""
    """`cpu-time`: of each process for itself; `none`: asked for, and not enforced."""


class RunResult(Struct, frozen=True, kw_only=True):
    """The end of a step that ended as its spec expects."""

    exit_code: int
    """Of the last command, 0 to 255; 128 and the signal's number for one that a signal killed."""
    stdout: str = ""
    """The last part of the standard output, at most the spec's output limit; bytes that are not
    UTF-8 become U+FFFD."""
    stderr: str = ""
    """The last part of the error output, bounded as `stdout`."""
    truncated: int = 0
    """Bytes cut from the beginning of the two outputs together; 0: they are complete."""
    duration: timedelta = timedelta(0)
    """From the start of the first process to the end of the last."""
    outputs: dict[str, Artifact] = field(default_factory=dict[str, Artifact])
    """Declared outputs by name."""
    executor: str = ""
    """What ran it: `process`, `dagger`."""
    isolation: Isolation = "none"
    limits: Limits = Limits()
    cached: bool = False
    """Whether an engine answered from its cache: nothing ran."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as isolation that was missing or an image that is not pinned."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What an executor saw, whatever was expected: the runner makes a `RunResult` or a `StepFailed` of it."""

    exit_code: int
    """Of the command that ended the step, 0 to 255; 128 and the signal's number for one that a signal killed."""
    stdout: str = ""
    stderr: str = ""
    truncated: int = 0
    duration: timedelta = timedelta(0)
    timed_out: bool = False
    """Whether the spec's time limit ended it."""
    outputs: dict[str, Artifact] = field(default_factory=dict[str, Artifact])
    """Empty unless the exit code was expected."""
    executor: str
    isolation: Isolation
    limits: Limits = Limits()
    cached: bool = False
    notes: tuple[str, ...] = ()
