"""Near matches for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from switchgear.errors import NotFound

_SHOWN = 3


def near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like this one, the nearest first."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=_SHOWN, cutoff=0.6)
    starts = [one for one in sorted(by_lower) if one.startswith(name.lower()) and one not in found]
    return [by_lower[one] for one in [*found, *starts][:_SHOWN]]


def unknown(kind: str, name: str, known: Iterable[str], *, fix: str) -> NotFound:
    """The error for a name that is not among the known ones; suggests near matches before `fix`."""
    matches = near(name, known)
    if matches:
        return NotFound(f"no {kind} {name!r}", fix=f"did you mean {' or '.join(matches)}? {fix}")
    return NotFound(f"no {kind} {name!r}", fix=fix)
