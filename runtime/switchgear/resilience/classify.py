"""From an exception to what kind of failure it is: one pure function, the same for steps and handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import cast

from msgspec.structs import replace

from switchgear.contract import limits
from switchgear.contract.values import RETRIED, ErrorClass, Failure
from switchgear.errors import (
    BreakerOpen,
    Forbidden,
    InvalidInput,
    NotRecordable,
    OutcomeUnknown,
    Overloaded,
    Permanent,
    ProtocolError,
    Retryable,
    SignalTimeout,
    StepChanged,
    StepFailed,
    SwitchgearError,
    TaskFailed,
    Unavailable,
    UsageError,
    WaitTimeout,
)
from switchgear.resilience.classes import Verdict, as_class, worst
from switchgear.resilience.fingerprint import marked
from switchgear.resilience.http_failures import http_verdict
from switchgear.resilience.nats_failures import nats_verdict
from switchgear.resilience.os_failures import os_verdict, shortage
from switchgear.resilience.process_failures import TIMED_OUT, process_verdict

Own = Callable[[BaseException], ErrorClass | None]
"""An agent's own classifier: the class of an exception, or None for those that it does not know."""


def classify(
    error: BaseException,
    *,
    step: str | None = None,
    own: Own | None = None,
    known: Verdict | None = None,
    now: datetime | None = None,
) -> Failure:
    """What this exception of a handler means for its task.

    `retryable` is False only where the raising side knows that a repetition is pointless; otherwise the
    capability's policy decides by class. Unknown exceptions are `transient`. `own` is asked first; it sets the class,
    and what else is known of the exception stays. `known`: what the caller knows instead of the tables. `now` dates a
    Retry-After that is a date.
    """
    found = known or verdict(error, now)
    wanted = None if own is None else own(error)
    if wanted is not None:
        found = found._replace(error_class=wanted, retryable=found.retryable or wanted in RETRIED)
    if isinstance(error, SwitchgearError):
        return failure_of(
            found,
            error.what,
            code=error.code,
            why=error.why,
            fix=error.fix,
            path=error.path if isinstance(error, InvalidInput) else "",
            step=_step(error) or step,
        )
    return failure_of(found, f"{type(error).__name__}: {error}", step=step)


def failure_of(
    found: Verdict,
    message: str,
    *,
    code: str = "SG1510",
    why: str = "",
    fix: str = "",
    path: str = "",
    step: str | None = None,
) -> Failure:
    """The failure that a verdict and plain facts make: for whoever has no exception, or knows better than its type."""
    return marked(
        Failure(
            error_class=found.error_class,
            code=code,
            message=_cut(message),
            why=_cut(why),
            fix=_cut(fix or found.fix),
            path=_cut(path),
            step=step,
            retryable=found.retryable,
            retry_after=found.retry_after,
            outcome_known=found.outcome_known,
            dependency=found.dependency[: limits.MAX_LABEL],
        )
    )


def verdict(error: BaseException, now: datetime | None = None) -> Verdict:
    """The same as plain facts, without texts and fingerprint: what a breaker asks for."""
    if isinstance(error, SwitchgearError):
        return _of_ours(error)
    if isinstance(error, BaseExceptionGroup):
        members = cast("Sequence[BaseException]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        return worst([verdict(one, now) for one in members[:_MEMBERS]])
    found = _of_foreign(error, now) or _of_kind(error)
    cause, depth = error.__cause__, 0
    while found is None and cause is not None and depth < _CAUSES:
        # who wraps an error of a library in one of their own has not changed what happened
        found = _of_cause(cause, now)
        cause, depth = cause.__cause__, depth + 1
    return found or _UNKNOWN


def unfit_output(capability: str, error: Exception) -> Failure:
    """An output that is not what the capability's type says, or that cannot be stored."""
    return _coded(
        "bug",
        "SG1513",
        _cut(f"the output of {capability} does not fit its type: {error}"),
        "return a value of the annotated type",
    )


def timed_out(seconds: float) -> Failure:
    """An attempt that ran longer than its capability allows."""
    message = f"the attempt ran longer than the capability's timeout of {seconds:g} s"
    fix = "raise `timeout=` of the capability, or split the work"
    return _coded("timeout", "SG1511", message, fix, retryable=True)


def stalled(seconds: float) -> Failure:
    """A handler that showed no sign of progress for too long, and was stopped."""
    message = f"the handler showed no progress for longer than its stall_timeout of {seconds:g} s"
    fix = "report progress, or raise `stall_timeout=` of the capability"
    return _coded("timeout", "SG1516", message, fix, retryable=True)


def crash_loop(crashes: int, ended: str = "", last_words: str = "") -> Failure:
    """A task that takes its agents down; `ended` and `last_words` are of the last one, where known."""
    message = f"{crashes} agents died while they ran this attempt"
    fix = "read the agents' logs for the crash, then submit again"
    failure = _coded("crash-loop", "SG1512", message, fix)
    why = _cut(f"the last one {ended}") if ended else ""
    return replace(failure, why=why, last_words=last_words[-limits.MAX_TEXT // 2 :])


def too_late() -> Failure:
    """An attempt that would begin after its task's deadline."""
    message = "the deadline passed before the attempt began"
    return _coded("timeout", "SG1515", message, "submit with a later deadline")


def undo_failed(key: str, error: BaseException) -> Failure:
    """An undo that could not be run to its end."""
    cause = classify(error, step=key)
    return marked(
        Failure(
            error_class=cause.error_class,
            code="SG1518",
            message=_cut(f"undo {key} failed: {cause.message}"),
            why=cause.why,
            fix=f"undo {key} by hand",
            step=key,
        )
    )


def _coded(
    error_class: ErrorClass, code: str, message: str, fix: str, *, retryable: bool = False
) -> Failure:
    return marked(
        Failure(error_class=error_class, code=code, message=message, fix=fix, retryable=retryable)
    )


_UNKNOWN = Verdict("transient")
_MEMBERS = 16
"""Exceptions of a group that are looked at."""
_CAUSES = 4
"""Links of a chain of causes that are followed."""

_OURS: tuple[tuple[tuple[type[SwitchgearError], ...], Verdict], ...] = (
    ((InvalidInput, ProtocolError), Verdict("invalid", retryable=False)),
    ((Permanent,), Verdict("step", retryable=False)),
    ((Forbidden,), Verdict("auth", retryable=False)),
    ((Overloaded,), Verdict("rate-limited")),
    ((Retryable,), Verdict("transient")),
    ((Unavailable,), Verdict("transient", dependency="nats")),
    (
        (OutcomeUnknown,),
        Verdict("transient", retryable=False, outcome_known=False, dependency="nats"),
    ),
    ((WaitTimeout, SignalTimeout), Verdict("timeout")),
    ((NotRecordable, StepChanged, UsageError), Verdict("bug", retryable=False)),
)
_KINDS: tuple[tuple[tuple[type[BaseException], ...], Verdict], ...] = (
    ((TimeoutError,), Verdict("timeout", outcome_known=False)),
    ((SystemExit,), Verdict("bug", retryable=False)),
    (
        (TypeError, NameError, AttributeError, ImportError, AssertionError, RecursionError),
        Verdict("bug"),
    ),
    ((EOFError,), Verdict("transient", outcome_known=False)),
    ((KeyboardInterrupt, GeneratorExit), Verdict("cancelled", retryable=False)),
)
"""Exceptions, and what they mean; the first that fits decides."""


def _of_ours(error: SwitchgearError) -> Verdict:
    """What an error of ours means: it says so itself, or its type does."""
    if isinstance(error, StepFailed):
        return Verdict(
            as_class(error.error_class),
            retryable=error.outcome_known or error.idempotent,
            outcome_known=error.outcome_known,
            dependency=error.dependency,
            retry_after=error.retry_after,
        )
    if isinstance(error, BreakerOpen):
        return Verdict(
            as_class(error.error_class, "transient"),
            dependency=error.dependency,
            retry_after=_retry_after(error),
        )
    if isinstance(error, TaskFailed):
        return Verdict(as_class(error.error_class or "step"), retryable=False)
    for kinds, found in _OURS:
        if isinstance(error, kinds):
            return found._replace(retry_after=_retry_after(error))
    return (
        Verdict("transient") if error.disposition == "retry" else Verdict("step", retryable=False)
    )


def _of_cause(cause: BaseException, now: datetime | None) -> Verdict | None:
    """What the cause of an exception that no table knows means for it; that an outcome is unknown is never lost."""
    if isinstance(cause, StepFailed) and not cause.outcome_known:
        return _of_ours(cause)
    return _of_foreign(cause, now)


def _of_foreign(error: BaseException, now: datetime | None) -> Verdict | None:
    """What a library's error means; None for one that no table knows."""
    kind = type(error)
    if kind.__module__ in _PLAIN_MODULES:
        return os_verdict(error) if isinstance(error, OSError) else None
    found = nats_verdict(error) or http_verdict(error, now)
    if found is None and isinstance(error, OSError):
        found = os_verdict(error)
    return found or _of_named(error)


_PLAIN_MODULES = frozenset({"builtins", "exceptiongroup"})


def _of_named(error: BaseException) -> Verdict | None:
    """Exceptions of the standard library whose modules nobody should have to import for this."""
    name = f"{type(error).__module__}.{type(error).__name__}"
    if name == "subprocess.CalledProcessError":
        return process_verdict(getattr(error, "returncode", None))
    if name == "tenacity.RetryError":  # says only that its retries are used up
        inner = _last_attempt(error)
        return None if inner is None else verdict(inner)
    return _BY_NAME.get(name)


def _last_attempt(error: BaseException) -> Exception | None:
    attempt = getattr(error, "last_attempt", None)
    inner = attempt.exception() if attempt is not None and attempt.done() else None
    return inner if isinstance(inner, Exception) else None


_BY_NAME: dict[str, Verdict] = {
    "subprocess.TimeoutExpired": TIMED_OUT,
    "asyncio.exceptions.CancelledError": Verdict("cancelled", retryable=False),
    "concurrent.futures.process.BrokenProcessPool": Verdict("resource", outcome_known=False),
}


def _of_kind(error: BaseException) -> Verdict | None:
    known = next((found for kinds, found in _KINDS if isinstance(error, kinds)), None)
    return known or shortage(error)


def _step(error: BaseException) -> str | None:
    if isinstance(error, StepFailed):
        return error.key
    return error.step if isinstance(error, TaskFailed) else None


def _retry_after(error: BaseException) -> float | None:
    """Seconds, whatever the raising side took for a delay: a foreign attribute of that name means nothing."""
    if not isinstance(error, Retryable | Unavailable | Overloaded | BreakerOpen):
        return None
    asked: object = error.retry_after
    if isinstance(asked, timedelta):
        return asked.total_seconds()
    return float(asked) if isinstance(asked, int | float) else None


def _cut(text: str) -> str:
    """A text that any reader can decode, and that leaves room for others beside it."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= limits.MAX_TEXT // 4:
        return text
    return text[: limits.MAX_TEXT // 4] + " […]"
