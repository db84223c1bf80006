"""Values as people type them: durations, deadlines, labels, inputs."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchgear.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)


def duration(text: str) -> timedelta:
    """A duration such as 45s, 10m, 1h30m or 2d. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise UsageError(f"{text!r} is not a duration", fix="write it like 45s, 10m, 1h30m or 2d")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise UsageError(f"the duration {text!r} is too long") from None


def moment(text: str, what: str) -> timedelta | datetime:
    """A duration from now, or a moment such as 2030-01-31T12:00:00Z. Raises UsageError, naming `what` it is."""
    try:
        return duration(text)
    except UsageError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no {what}", fix="write it like 10m, 2h or 2030-01-31T12:00:00Z"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def labels(pairs: Iterable[str]) -> dict[str, str]:
    """Labels written KEY=VALUE. Raises UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{pair!r} is not a label", fix="write it like --label zone=eu")
        found[key] = value
    return found


def task_input(text: str) -> Any:
    """The input of a task: JSON, `@FILE` that holds it, or `-` for the standard input. Raises UsageError."""
    import msgspec

    if text == "-":
        source, data = "the standard input", sys.stdin.buffer.read()
    elif text.startswith("@"):
        source = text[1:]
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise UsageError(f"the file {source!r} cannot be read", why=str(error)) from error
    else:
        source, data = repr(text if len(text) <= 80 else f"{text[:80]}…"), text.encode()  # noqa: PLR2004 - shown length
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is no JSON", why=str(error), fix=_json_fix(text)) from error


def agent_path(text: str) -> tuple[str, str]:
    """Module and attribute of `MODULE:ATTR`; the attribute is `agent` where it is left out."""
    module, _, attribute = text.partition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module):
        raise UsageError(
            f"{text!r} does not name an agent",
            fix="write it like package.module:agent (no path, no .py)",
        )
    return module, attribute or "agent"


def _json_fix(text: str) -> str:
    if text != "-" and not text.startswith("@") and re.fullmatch(r"[\w .,!?/:-]+", text):
        return f"a text needs quotes of its own: '\"{text}\"'; a file is given as @FILE"
    return "give JSON, @FILE that holds it, or - for the standard input"
