"""From an exception of the Dagger SDK to plain facts, and from those to the error of a step.

Imports no SDK: the names of types along the chain of causes tell all that is needed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, cast

from switchgear.errors import StepFailed
from switchgear.resilience.dagger_failures import DaggerFacts, Finding

_TRACE = re.compile(r"\s*\[traceparent:[^\]]*\]\s*$")
"""Added by the engine to each message, another one each time."""
_ADVICE = re.compile(r"\s*For more information check: \S+")
"""Added by httpx: where a status code is explained."""
_LINKS = 12
_TEXT = 4000
"""Characters of a message or error output that are looked at."""


class SessionFailed(Exception):
    """A session that did not start; `stderr` is the last part of what its CLI had to say."""

    def __init__(self, what: str, stderr: str = "") -> None:
        super().__init__(what)
        self.stderr = stderr


class SessionLost(Exception):
    """A session that ended, or an engine that gives no sign of life, while steps used it."""

    def __init__(self, what: str, *, frozen: bool = False) -> None:
        super().__init__(what)
        self.frozen = frozen


def facts(error: BaseException, *, own: str = "") -> DaggerFacts:
    """What is known of this exception. `own`: the program of the step; a failed command of another is a service's."""
    chain = _chain(error)
    message = str(chain[0])
    path: tuple[str, ...] = ()
    if (errors := getattr(chain[0], "errors", None)) and isinstance(errors, list):
        first = cast("list[Any]", errors)[0]
        path = tuple(str(part) for part in getattr(first, "path", None) or ())
        message = str(getattr(first, "message", message))
    command = getattr(chain[0], "command", None)
    return DaggerFacts(
        kinds=tuple(kind.__name__ for one in chain for kind in _kinds(one)),
        message=_ADVICE.sub("", _TRACE.sub("", message))[-_TEXT:],
        path=path,
        status=_status(chain),
        exit_code=_number(getattr(chain[0], "exit_code", None)),
        stderr=str(getattr(chain[0], "stderr", ""))[-_TEXT:],
        own_command=not own or not _words(command) or own in _words(command),
    )


def failed(key: str, known: DaggerFacts, finding: Finding) -> StepFailed:
    """The error of a step that met this."""
    verdict = finding.verdict
    kind = known.kinds[0] if known.kinds else "an error"
    why = known.message or kind
    if known.stderr and known.stderr.strip() not in why:
        why = f"{why}: {known.stderr.strip()[-1000:]}"
    return StepFailed(
        f"step {key} could not be run by the engine"
        if finding.before_run
        else f"step {key} failed in the engine",
        key=key,
        exit_code=known.exit_code,
        stderr=known.stderr,
        error_class=verdict.error_class if _may_repeat(finding) else _final(verdict.error_class),
        outcome_known=verdict.outcome_known,
        dependency=verdict.dependency,
        retry_after=verdict.retry_after,
        why=why,
        fix=verdict.fix,
    )


def _may_repeat(finding: Finding) -> bool:
    return finding.verdict.retryable


def _final(error_class: str) -> str:
    """Classes of what is pointless to repeat stay; one that policies repeat would not be heard."""
    return (
        error_class if error_class in {"invalid", "auth", "bug", "cancelled", "step"} else "invalid"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes; one that only says that retries are used up is left out."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and len(chain) < _LINKS and todo not in chain:
        if type(todo).__name__ == "RetryError" and (last := _last_attempt(todo)) is not None:
            todo = last
            continue
        if isinstance(todo, BaseExceptionGroup):
            todo = cast("Sequence[BaseException]", todo.exceptions)[0]
            continue
        chain.append(todo)
        todo = todo.__cause__ or (None if todo.__suppress_context__ else todo.__context__)
        if isinstance(todo, asyncio.CancelledError):
            todo = None  # that is how timeouts end what they bound
    return chain


def _last_attempt(error: BaseException) -> BaseException | None:
    attempt = getattr(error, "last_attempt", None)
    found = None if attempt is None else attempt.exception()
    return found if isinstance(found, BaseException) else None


def _kinds(error: BaseException) -> list[type]:
    """Its type, and for types below a known one that too: an error of the system has many."""
    kinds: list[type] = [type(error)]
    kinds += [
        kind
        for kind in (TimeoutError, FileNotFoundError, ConnectionRefusedError)
        if isinstance(error, kind)
    ]
    return kinds


def _status(chain: Sequence[BaseException]) -> int | None:
    for error in chain:
        code = getattr(error, "code", None)
        if type(error).__name__ == "TransportServerError" and isinstance(code, int):
            return code
    return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _words(command: object) -> tuple[str, ...]:
    return tuple(map(str, cast("list[object]", command))) if isinstance(command, list) else ()
