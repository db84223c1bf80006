"""What failures of one cause have in common, as a short digest: it groups dead letters. Pure."""

from __future__ import annotations

import re

from msgspec.structs import replace

from switchgear import ids
from switchgear.contract.values import Failure

_LENGTH = 12
_TRACE = re.compile(r" ?\[traceparent:[0-9a-fx-]*\]")
"""What engines add to their errors: another one each time."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:/[\w.~+-]+){2,}/?")
_VARYING = re.compile(
    r"\d+(?:[.,:]\d+)*(?![0-9a-z-])"  # most often, and so tried first
    r"|\b[0-9a-hjkmnp-tv-z]{26}\b"  # ids of ours
    r"|\b(?:0x[0-9a-f]+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*)\b"  # digests, addresses, UUIDs
    r"|\d+(?:[.,:]\d+)*"
)
_DIGIT = re.compile(r"\d")
_MOST = 200
"""Characters of a text that count: what follows is rarely the cause, and takes its time."""


def normalised(text: str) -> str:
    """The text without what differs between two cases of one cause: traces, quotes, paths, ids, numbers."""
    text = text[: 2 * _MOST]
    if "[traceparent:" in text:
        text = _TRACE.sub("", text)
    text = _QUOTED.sub("'…'", text)[:_MOST].lower()
    if "/" in text:
        text = _PATH.sub("/…", text)
    if _DIGIT.search(text):
        text = _VARYING.sub("#", text)
    return " ".join(text.split())


def fingerprint(failure: Failure) -> str:
    """The digest of its class, code, step and message; numbers in a step's key count for nothing."""
    parts = (
        failure.error_class,
        failure.code,
        normalised(failure.step or ""),
        normalised(failure.message),
    )
    return ids.short_digest("\x1f".join(parts).encode(), _LENGTH)


def marked(failure: Failure) -> Failure:
    """The failure with its fingerprint."""
    return replace(failure, fingerprint=fingerprint(failure))
