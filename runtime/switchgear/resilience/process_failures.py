"""What the end of a process means: exit codes, signals, time limits. Pure: takes plain facts."""

from __future__ import annotations

from switchgear.resilience.classes import Verdict

_SHELL = 128
"""Shells, containers and bubblewrap say 128 + n for the death by signal n."""
_SIGNALS = 64
_CRASHES = frozenset({3, 4, 5, 6, 7, 8, 11, 31})
"""QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS: the program itself broke."""

SIGNAL_NAMES: dict[int, str] = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}

_LONGER = "raise .limits(timeout=…), or give it less to do"
_MEMORY = "give it more memory, or bound it by .limits(memory=…)"
_CODES: dict[int, Verdict] = {
    # A limit that ended it says nothing about what it had done by then.
    124: Verdict("timeout", outcome_known=False, fix=_LONGER),
    125: Verdict("step", fix="read its error output: the program that starts it failed"),
    126: Verdict("invalid", retryable=False, fix="make the program executable, and check its #!"),
    127: Verdict("invalid", retryable=False, fix="install the program, or give its full path"),
}
_BY_SIGNAL: dict[int, Verdict] = {
    # Ended from outside, it could not say what it had done: as with a time limit, nobody knows.
    1: Verdict("transient", outcome_known=False, fix="its host shut down, or somebody hung it up"),
    2: Verdict("transient", outcome_known=False, fix="somebody interrupted it"),
    # Most likely the kernel, for want of memory; the code alone does not show it, so no resource is named.
    9: Verdict("resource", outcome_known=False, fix=_MEMORY),
    13: Verdict("step", fix="what read its output went away first"),
    15: Verdict("transient", outcome_known=False, fix="its host shut down, or somebody ended it"),
    24: Verdict("timeout", outcome_known=False, fix="give it more CPU time, or less to do"),
    25: Verdict("step", outcome_known=False, fix="raise .limits(file=…), or let it write less"),
}
_CRASHED = Verdict("step", fix="the program crashed: run it by hand with the same input")
_PLAIN = Verdict("step")
TIMED_OUT = Verdict("timeout", outcome_known=False, fix=_LONGER)
"""It was killed at its time limit."""


def process_verdict(exit_code: int | None, *, timed_out: bool = False) -> Verdict:
    """What an unexpected end means. `exit_code`: as the process gave it, or minus the signal that killed it.

    A process that ended by itself has a known outcome: it failed. One that a limit or somebody else ended has not.
    """
    if timed_out:
        return TIMED_OUT
    if exit_code is None:
        return Verdict("transient", outcome_known=False)
    known = _CODES.get(exit_code)
    if known is not None:
        return known
    number = signal_of(exit_code)
    if number is None:
        return _PLAIN
    if number == 15 and exit_code > 0:  # noqa: PLR2004 - SIGTERM, see below
        return TIMED_OUT  # the `timeout` of busybox ends with 143 where that of GNU ends with 124
    return _CRASHED if number in _CRASHES else _BY_SIGNAL.get(number, _PLAIN)


def signal_of(exit_code: int) -> int | None:
    """The signal behind an exit code, told as minus its number or as 128 and more; None for none."""
    if exit_code < 0:
        return -exit_code
    return exit_code - _SHELL if _SHELL < exit_code <= _SHELL + _SIGNALS else None


def process_end(exit_code: int) -> str:
    """How it ended, in words: `ended with exit code 3`, `was killed by SIGKILL`."""
    number = signal_of(exit_code)
    if number is None:
        return f"ended with exit code {exit_code}"
    name = SIGNAL_NAMES.get(number, f"signal {number}")
    return f"was killed by {name}" + (f" (exit code {exit_code})" if exit_code > 0 else "")
