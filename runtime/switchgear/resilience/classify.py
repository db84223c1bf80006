"""From an exception to what kind of failure it is: one pure function, the same for steps and handlers."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from switchgear.contract import limits
from switchgear.contract.values import ErrorClass, Failure
from switchgear.errors import (
    Forbidden,
    InvalidInput,
    NotRecordable,
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
from switchgear.resilience.fingerprint import marked


def classify(error: BaseException, *, step: str | None = None) -> Failure:
    """What this exception of a handler means for its task.

    `retryable` is False only where the raising side knows that a repetition is pointless; otherwise the
    capability's policy decides by class. Unknown exceptions are `transient`.
    """
    kind, retryable = _kind(error)
    known = isinstance(error, SwitchgearError)
    message = error.what if known else f"{type(error).__name__}: {error}"
    return marked(
        Failure(
            error_class=kind,
            code=error.code if known else "SG1510",
            message=_cut(message),
            why=_cut(error.why) if known else "",
            fix=_cut(error.fix) if known else "",
            path=_cut(error.path) if isinstance(error, InvalidInput) else "",
            step=_step(error) or step,
            retryable=retryable,
            retry_after=_retry_after(error),
        )
    )


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


_KINDS: tuple[tuple[tuple[type[BaseException], ...], ErrorClass, bool], ...] = (
    ((InvalidInput, ProtocolError), "invalid", False),
    ((Permanent,), "step", False),
    ((Forbidden,), "auth", False),
    ((Overloaded,), "rate-limited", True),
    ((Retryable, Unavailable), "transient", True),
    ((WaitTimeout, SignalTimeout, TimeoutError), "timeout", True),
    ((NotRecordable, StepChanged, UsageError), "bug", False),
    ((SystemExit,), "bug", False),
    ((TypeError, NameError, AttributeError, ImportError, AssertionError), "bug", True),
    ((MemoryError,), "resource", True),
)
"""Exceptions, the class that they mean, and whether a repetition could help; the first that fits decides."""


def _kind(error: BaseException) -> tuple[ErrorClass, bool]:
    if isinstance(error, StepFailed):
        return _as_class(error.error_class), True
    if isinstance(error, TaskFailed):
        return _as_class(error.error_class or "step"), False
    for kinds, error_class, retryable in _KINDS:
        if isinstance(error, kinds):
            return error_class, retryable
    if isinstance(error, SwitchgearError) and error.disposition != "retry":
        return "step", False
    return "transient", True


_CLASSES: frozenset[str] = frozenset(ErrorClass.__args__)


def _as_class(text: str) -> ErrorClass:
    return text if text in _CLASSES else "step"  # type: ignore[return-value]  # checked against the literal


def _step(error: BaseException) -> str | None:
    if isinstance(error, StepFailed):
        return error.key
    return error.step if isinstance(error, TaskFailed) else None


def _retry_after(error: BaseException) -> float | None:
    """Seconds, whatever the raising side took for a delay: a foreign attribute of that name means nothing."""
    if not isinstance(error, Retryable | Unavailable | Overloaded):
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
