"""Exit codes, and which error ends a command with which. Documented in docs/reference/cli.md."""

from __future__ import annotations

from typing import Final

from switchgear import errors

OK: Final = 0
TASK_FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
AUTH: Final = 4
UNREACHABLE: Final = 5
TIMEOUT: Final = 6
CONFLICT: Final = 7
PARTIAL: Final = 8
BUG: Final = 70
INTERRUPTED: Final = 130

MEANING: Final[dict[int, str]] = {
    OK: "done",
    TASK_FAILED: "the task ended without a result",
    USAGE: "a command, option, input or setting that cannot work as written",
    NOT_FOUND: "no such task, agent, capability or context",
    AUTH: "refused: the credentials, a connection that would not be encrypted, or what this principal may not do",
    UNREACHABLE: "the broker, or a service behind it, does not answer, does not fit, or takes nothing more for now",
    TIMEOUT: "the wait ended first; the task goes on",
    CONFLICT: "the key was used before for another submission, or the task's state does not allow it",
    PARTIAL: "part of it was done: some checks failed, some instances stayed",
    BUG: "a fault of Switchgear, or a message that is none of its protocol",
    INTERRUPTED: "Ctrl-C",
}

_BY_CLASS: Final[tuple[tuple[type[errors.SwitchgearError], int], ...]] = (
    (errors.TaskFailed, TASK_FAILED),
    (errors.WaitTimeout, TIMEOUT),
    (errors.Conflict, CONFLICT),
    (errors.NotFound, NOT_FOUND),
    (errors.ClearTextRefused, AUTH),
    (errors.Forbidden, AUTH),
    (errors.Unavailable, UNREACHABLE),
    (errors.ServerUnfit, UNREACHABLE),
    (errors.OutcomeUnknown, UNREACHABLE),
    (errors.Overloaded, UNREACHABLE),
    (errors.ServerMissing, UNREACHABLE),
    (errors.ServerFailed, UNREACHABLE),
    (errors.RolloutRefused, USAGE),
    (errors.UsageError, USAGE),
    (errors.ConfigError, USAGE),
    (errors.ExtraMissing, USAGE),
    (errors.InvalidInput, USAGE),
    (errors.DuplicateKey, USAGE),
    (errors.NotDeclared, USAGE),
    (errors.NotRecordable, USAGE),
    (errors.Permanent, TASK_FAILED),
    (errors.Retryable, TASK_FAILED),
    (errors.StepFailed, TASK_FAILED),
    (errors.StepChanged, TASK_FAILED),
    (errors.BreakerOpen, TASK_FAILED),
    (errors.SignalTimeout, TASK_FAILED),
)
"""The first class that fits decides."""

_TYPED: Final = frozenset({"SG1105", "SG1107"})
"""Protocol errors in what was typed: input that is no JSON, an id that is no token."""
_REFUSED: Final = "the broker refused the credentials"
"""What the bus gives as the reason when it was not let in."""


def code_of(error: BaseException) -> int:
    """The exit code of a command that ended with this error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, errors.Unavailable) and error.why == _REFUSED:
        return AUTH
    if isinstance(error, errors.ProtocolError) and error.code in _TYPED:
        return USAGE
    if isinstance(error, errors.SwitchgearError):
        for kind, code in _BY_CLASS:
            if isinstance(error, kind):
                return code
        # Answers of services carry the code of an error whose class is not rebuilt.
        return _by_code(error.code)
    return BUG


def _by_code(code: str) -> int:
    return next((exit_code for kind, exit_code in _BY_CLASS if kind.code == code), BUG)
