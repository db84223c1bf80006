"""What failures of one cause have in common, as a short digest: it groups dead letters. Pure."""

from __future__ import annotations

import re

from msgspec.structs import replace

from switchgear import ids
from switchgear.contract.values import Failure

_LENGTH = 12
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:/[\w.~+-]+){2,}/?")
_ID = re.compile(r"\b(?=[0-9a-z]*\d)[0-9a-hjkmnp-tv-z]{26}\b")
_HEX = re.compile(r"\b(?:0x[0-9a-f]+|(?=[0-9a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*)\b")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SPACE = re.compile(r"\s+")


def normalised(text: str) -> str:
    """The text without what differs between two cases of one cause: quotes, paths, ids, numbers."""
    text = _QUOTED.sub("'…'", text)
    text = _PATH.sub("/…", text.lower())
    text = _HEX.sub("#", _ID.sub("#", text))
    return _SPACE.sub(" ", _NUMBER.sub("#", text)).strip()


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
