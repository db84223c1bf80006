"""What came of a step: exit code, bounded output, duration. Pure data, recorded in the ledger."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct, field


class RunResult(Struct, frozen=True, kw_only=True):
    """The end of a process that ended as its spec expects."""

    exit_code: int
    """0 to 255, or minus the signal that killed it."""
    stdout: str = ""
    """The last part of the standard output, at most the spec's output limit; bytes that are not
    UTF-8 become U+FFFD."""
    stderr: str = ""
    """The last part of the error output, bounded as `stdout`."""
    truncated: int = 0
    """Bytes cut from the beginning of the two outputs together; 0: they are complete."""
    duration: timedelta = timedelta(0)
    """From the start of the process to its end."""
    outputs: dict[str, str] = field(default_factory=dict[str, str])
    """Declared outputs by name; empty for a local process."""
