"""Which error ends a command with which exit code."""

from __future__ import annotations

from typing import Any

import pytest

from switchgear import errors
from switchgear.cli import exits

MADE: dict[str, dict[str, Any]] = {
    "TaskFailed": {"task_id": "t", "state": "dead"},
    "TaskRejected": {"task_id": "t", "state": "rejected"},
    "TaskDead": {"task_id": "t", "state": "dead"},
    "TaskCancelled": {"task_id": "t", "state": "cancelled"},
    "TaskExpired": {"task_id": "t", "state": "expired"},
    "ServiceFailed": {"key": "k"},
    "StepFailed": {"key": "k"},
    "BreakerOpen": {"dependency": "d"},
    "ExtraMissing": {"extra": "all"},
}

CODES = {
    "SwitchgearError": 70,
    "UsageError": 2,
    "ConfigError": 2,
    "ExtraMissing": 2,
    "ProtocolError": 70,
    "Unavailable": 5,
    "ServerUnfit": 5,
    "ClearTextRefused": 4,
    "OutcomeUnknown": 5,
    "Overloaded": 5,
    "NotFound": 3,
    "Conflict": 7,
    "Forbidden": 4,
    "WaitTimeout": 6,
    "TaskFailed": 1,
    "TaskRejected": 1,
    "TaskDead": 1,
    "TaskCancelled": 1,
    "TaskExpired": 1,
    "Permanent": 1,
    "Retryable": 1,
    "ServiceFailed": 1,
    "StepFailed": 1,
    "SignalTimeout": 1,
    "StepChanged": 1,
    "DuplicateKey": 2,
    "NotDeclared": 2,
    "NotRecordable": 2,
    "InvalidInput": 2,
    "BreakerOpen": 1,
    "RolloutRefused": 2,
    "ServerMissing": 5,
    "ServerFailed": 5,
}


def public() -> list[type[errors.SwitchgearError]]:
    """The classes of `errors`; others are private to their package."""
    return [kind for kind in errors.all_errors() if kind.__module__ == "switchgear.errors"]


@pytest.mark.parametrize("kind", public(), ids=lambda kind: kind.__name__)
def test_every_error_class_has_its_exit_code(kind: type[errors.SwitchgearError]) -> None:
    """A new error class fails here until somebody decides."""
    error = kind("it went wrong", **MADE.get(kind.__name__, {}))
    assert exits.code_of(error) == CODES[kind.__name__]


def test_an_answered_problem_counts_by_its_code() -> None:
    """Services answer with a code; the client does not rebuild every class."""
    error = errors.SwitchgearError("the key is taken")
    error.code = "SG1402"
    assert exits.code_of(error) == exits.CONFLICT


def test_refused_credentials_are_told_from_a_broker_that_is_away() -> None:
    error = errors.Unavailable("no connection", why="the broker refused the credentials")
    assert exits.code_of(error) == exits.AUTH


@pytest.mark.parametrize("code", ["SG1105", "SG1107"])
def test_what_was_typed_wrong_is_a_usage_error(code: str) -> None:
    assert exits.code_of(errors.ProtocolError("bad", code=code)) == exits.USAGE


def test_unexpected_exceptions_are_bugs_and_ctrl_c_is_not() -> None:
    assert exits.code_of(ValueError("x")) == exits.BUG
    assert exits.code_of(KeyboardInterrupt()) == exits.INTERRUPTED


def test_every_exit_code_is_explained() -> None:
    assert set(CODES.values()) | {0, 8, 130} == set(exits.MEANING)
