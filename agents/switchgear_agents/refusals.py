"""What programs raise, and the exit codes by which their agent hears of it."""

from __future__ import annotations

REFUSED, TEMPORARY = 65, 75
"""EX_DATAERR and EX_TEMPFAIL of sysexits.h."""


class Refused(Exception):
    """A program's input will never do; the text says why and what would."""


class Temporary(Exception):
    """A program met a condition that may pass."""
