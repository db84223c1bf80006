"""Ends of processes, errors of the system, of NATS clients, and what wraps them."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
from typing import Any

import nats.errors
import nats.js.errors
import pytest

from switchgear import errors
from switchgear.contract.values import Failure, Retry
from switchgear.lifecycle.retrying import why_final
from switchgear.resilience import classes
from switchgear.resilience.classes import Verdict
from switchgear.resilience.classify import classify, failure_of, verdict
from switchgear.resilience.fingerprint import normalised
from switchgear.resilience.os_failures import shortage, shortage_told
from switchgear.resilience.process_failures import process_end, process_verdict
from switchgear.resilience.rollout import falls_back
from switchgear.steps.executor import Asked
from switchgear.steps.result import Outcome
from switchgear.steps.runner import judge
from switchgear.steps.spec import command


@pytest.mark.parametrize(
    ("code", "error_class", "retryable", "known"),
    [
        (1, "step", True, True),
        (124, "timeout", True, False),
        (125, "step", True, True),
        (126, "invalid", False, True),
        (127, "invalid", False, True),
        (128, "step", True, True),
        (129, "transient", True, False),
        (130, "transient", True, False),
        (134, "step", True, True),
        (137, "resource", True, False),
        (139, "step", True, True),
        (143, "timeout", True, False),
        (152, "timeout", True, False),
        (153, "step", True, False),
        (193, "step", True, True),
        (255, "step", True, True),
        (-9, "resource", True, False),
        (-11, "step", True, True),
        (-13, "step", True, True),
        (-15, "transient", True, False),
        (-1, "transient", True, False),
        (-2, "transient", True, False),
        (-64, "step", True, True),
        (None, "transient", True, False),
    ],
)
def test_an_exit_code_says_what_ended_the_process(
    code: int | None, error_class: str, *, retryable: bool, known: bool
) -> None:
    """By itself, or by a signal or a limit from outside: what it had done by then, it could not say."""
    found = process_verdict(code)
    assert (found.error_class, found.retryable, found.outcome_known) == (
        error_class,
        retryable,
        known,
    )


def test_a_time_limit_leaves_the_outcome_unknown_whatever_the_exit_code() -> None:
    assert process_verdict(0, timed_out=True) == process_verdict(-9, timed_out=True)
    assert not process_verdict(0, timed_out=True).outcome_known


@pytest.mark.parametrize("code", [129, 130, 137, 143, 152, 153, -1, -2, -9, -15, -24, -25])
def test_a_kill_speaks_against_no_resource_of_the_host(code: int) -> None:
    """The code alone does not tell the kernel's want of memory from a step's own limit, or `kill -9`."""
    assert process_verdict(code).dependency == ""


@pytest.mark.parametrize("code", [129, 130, 137, 143, -1, -2, -9, -15])
@pytest.mark.parametrize("idempotent", [False, True])
def test_a_command_that_was_killed_from_outside_runs_again_only_where_twice_is_no_harm(
    code: int, *, idempotent: bool
) -> None:
    spec = command("make", "release")
    outcome = Outcome(exit_code=code, executor="process", isolation="none")
    with pytest.raises(errors.StepFailed) as caught:
        judge(Asked(spec.idempotent() if idempotent else spec, "it"), outcome)
    failure = classify(caught.value)
    assert (failure.retryable, failure.outcome_known) == (idempotent, False)
    assert (why_final(failure, Retry(), failures=1) == "") is idempotent
    assert not falls_back(failure.error_class, outcome_known=failure.outcome_known)


def test_an_end_is_told_in_words() -> None:
    assert process_end(3) == "ended with exit code 3"
    assert process_end(-9) == "was killed by SIGKILL"
    assert process_end(137) == "was killed by SIGKILL (exit code 137)"
    assert process_end(-50) == "was killed by signal 50"


@pytest.mark.parametrize(
    ("number", "error_class", "known", "dependency"),
    [
        (errno.ENOSPC, "resource", True, "resource:disk"),
        (errno.EDQUOT, "resource", True, "resource:disk"),
        (errno.EROFS, "resource", True, "resource:disk"),
        (errno.EMFILE, "resource", True, "resource:files"),
        (errno.ENFILE, "resource", True, "resource:files"),
        (-1, "resource", True, "resource:files"),
        (errno.ENOMEM, "resource", True, "resource:memory"),
        (errno.EAGAIN, "resource", True, "resource:processes"),
        (errno.EIO, "resource", True, "resource:disk"),
        (errno.EACCES, "auth", True, ""),
        (errno.ECONNREFUSED, "transient", True, ""),
        (errno.EHOSTUNREACH, "transient", True, ""),
        (errno.ECONNRESET, "transient", False, ""),
        (errno.EPIPE, "transient", False, ""),
        (errno.ETIMEDOUT, "timeout", False, ""),
        (errno.ENOENT, "transient", True, ""),
    ],
)
def test_an_errno_says_what_ran_out_or_went_away(
    number: int, error_class: str, *, known: bool, dependency: str
) -> None:
    failure = classify(OSError(number, "it broke"))
    assert (failure.error_class, failure.outcome_known) == (error_class, known)
    assert failure.dependency == dependency


@pytest.mark.parametrize(
    ("error", "error_class", "known"),
    [
        (ConnectionResetError(), "transient", False),
        (ConnectionRefusedError(), "transient", True),
        (PermissionError("no"), "auth", True),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "transient", True),
        (ssl.SSLCertVerificationError("bad"), "auth", True),
        (ssl.SSLError("bad"), "transient", True),
        (TimeoutError(), "timeout", False),
        (asyncio.IncompleteReadError(b"", 4), "transient", False),
        (asyncio.CancelledError(), "cancelled", True),
        (KeyboardInterrupt(), "cancelled", True),
        (RecursionError("deep"), "bug", True),
        (subprocess.CalledProcessError(127, "x"), "invalid", True),
        (subprocess.CalledProcessError(-9, "x"), "resource", False),
        (subprocess.TimeoutExpired("x", 3), "timeout", False),
        (subprocess.SubprocessError("x"), "transient", True),
    ],
)
def test_exceptions_of_the_standard_library_have_a_class(
    error: BaseException, error_class: str, *, known: bool
) -> None:
    failure = classify(error)
    assert (failure.error_class, failure.outcome_known) == (error_class, known)


@pytest.mark.parametrize(
    ("error", "error_class", "known", "dependency"),
    [
        (nats.errors.TimeoutError(), "timeout", False, "nats"),
        (nats.errors.FlushTimeoutError(), "timeout", False, "nats"),
        (nats.js.errors.FetchTimeoutError(), "timeout", True, "nats"),
        (nats.errors.NoRespondersError(), "transient", True, "nats"),
        (nats.errors.ConnectionClosedError(), "transient", True, "nats"),
        (nats.errors.StaleConnectionError(), "transient", False, "nats"),
        (nats.errors.AuthorizationError(), "auth", True, "nats"),
        (nats.errors.MaxPayloadError(), "invalid", True, ""),
        (nats.errors.MsgAlreadyAckdError(), "bug", True, ""),
        (nats.errors.Error("odd"), "transient", True, "nats"),
        (nats.js.errors.KeyNotFoundError(), "step", True, ""),
        (nats.js.errors.NotFoundError(code=404), "step", True, ""),
        (nats.js.errors.APIError(code=503, err_code=10077), "resource", True, "nats"),
        (nats.js.errors.BadRequestError(code=400, err_code=10071), "step", True, ""),
        (nats.js.errors.BadRequestError(code=400, err_code=1), "invalid", True, ""),
        (nats.js.errors.ServerError(code=500), "transient", True, "nats"),
        (nats.js.errors.ServiceUnavailableError(code=503), "transient", True, "nats"),
    ],
)
def test_errors_of_the_nats_client_have_a_class(
    error: Exception, error_class: str, *, known: bool, dependency: str
) -> None:
    """Of the client that is installed: its types are told by name."""
    failure = classify(error)
    assert (failure.error_class, failure.outcome_known) == (error_class, known)
    assert failure.dependency == dependency


def test_all_error_types_of_the_nats_client_are_known() -> None:
    """A new one of a later release is seen here, and not first by a user."""
    from switchgear.resilience.nats_failures import BY_TYPE

    mine = set(BY_TYPE) | {"Error", "ProtocolError", "APIError", "ServerError", "NotFoundError"}
    mine |= {"BadRequestError", "KeyValueError", "BucketNotFoundError", "BadBucketError"}
    for module in (nats.errors, nats.js.errors):
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, nats.errors.Error):
                assert {one.__name__ for one in kind.__mro__} & mine, name


def test_several_failures_at_once_are_as_the_worst_of_them() -> None:
    """A final one decides; an unknown outcome stays one; the longest wait counts."""
    several = ExceptionGroup(
        "several",
        [
            TimeoutError(),
            errors.Retryable("later", retry_after=9),
            ExceptionGroup("inner", [errors.Permanent("never")]),
        ],
    )
    failure = classify(several)
    assert (failure.error_class, failure.retryable) == ("step", False)
    assert (failure.outcome_known, failure.retry_after) == (False, 9)
    assert (
        verdict(ExceptionGroup("one", [OSError(errno.ENOSPC, "x")])).dependency == "resource:disk"
    )


@pytest.mark.parametrize(
    ("error", "dependency"),
    [
        (OSError(errno.ENOSPC, "x"), "resource:disk"),
        (OSError(errno.EMFILE, "x"), "resource:files"),
        (BlockingIOError(errno.EAGAIN, "x"), "resource:processes"),
        (RuntimeError("can't start new thread"), "resource:processes"),
        (MemoryError(), "resource:memory"),
        (OSError(errno.ENOENT, "x"), None),
        (ConnectionResetError(errno.ECONNRESET, "x"), None),
        (RuntimeError("x"), None),
        (ValueError("No space left on device"), None),
    ],
)
def test_what_the_host_ran_out_of_is_told_by_the_exception(
    error: Exception, dependency: str | None
) -> None:
    found = shortage(error)
    assert (found.dependency if found else None) == dependency
    if found is not None:
        assert (found.error_class, verdict(error)) == ("resource", found)


@pytest.mark.parametrize(
    ("text", "dependency"),
    [
        ("fatal: write error: No space left on device", "resource:disk"),
        ("error: unable to write file x: Disk quota exceeded", "resource:disk"),
        ("bwrap: Can't open /proc: Too many open files", "resource:files"),
        ("fatal: mmap failed: Cannot allocate memory", "resource:memory"),
        ("error: cannot fork() for x: Resource temporarily unavailable", "resource:processes"),
        ("remote: fatal: No space left on device\nfatal: early EOF", None),
        ("remote: x\nfatal: No space left on device", "resource:disk"),
        ("fatal: not found", None),
        ("", None),
    ],
)
def test_what_the_host_ran_out_of_is_told_by_what_a_program_of_it_says(
    text: str, dependency: str | None
) -> None:
    """What a server says of its own disk is another matter."""
    found = shortage_told(text)
    assert (found.dependency if found else None) == dependency


def caused(error: Exception, *causes: Exception) -> Exception:
    inner = error
    for cause in causes:
        inner.__cause__ = cause
        inner = cause
    return error


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (caused(ValueError("x"), OSError(errno.ENOSPC, "full")), "resource"),
        (caused(ValueError("x"), ValueError("y"), OSError(errno.EMFILE, "many")), "resource"),
        (caused(ValueError("x"), KeyError("y")), "transient"),
        (caused(TypeError("x"), OSError(errno.ENOSPC, "full")), "bug"),
        (caused(ValueError("x"), errors.StepFailed("s", key="k")), "transient"),
    ],
)
def test_the_cause_tells_where_the_exception_does_not(error: Exception, error_class: str) -> None:
    assert classify(error).error_class == error_class


def test_a_wrapped_step_keeps_its_unknown_outcome() -> None:
    """Whoever raises an error of their own in its place has not made it known, nor safe to repeat."""
    step = errors.StepFailed("s", key="k", error_class="timeout", outcome_known=False)
    failure = classify(caused(ValueError("x"), step))
    assert (failure.outcome_known, failure.retryable) == (False, False)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_step_is_retried_unless_its_outcome_is_unknown_and_twice_would_harm(
    *, idempotent: bool, known: bool
) -> None:
    step = errors.StepFailed(
        "s",
        key="k",
        error_class="transient",
        outcome_known=known,
        idempotent=idempotent,
        dependency="dagger",
        retry_after=4,
    )
    failure = classify(step)
    assert failure.retryable is (known or idempotent)
    assert (failure.outcome_known, failure.dependency, failure.retry_after) == (known, "dagger", 4)
    assert classes.repeatable(failure, idempotent=idempotent) is (known or idempotent)


def test_an_own_class_goes_before_the_tables_and_keeps_what_else_is_known() -> None:
    """The class is the agent's; whether the outcome is known is not a matter of taste."""
    own: Any = {TimeoutError: "resource", errors.Permanent: "transient"}
    failure = classify(TimeoutError("x"), own=lambda error: own.get(type(error)))
    assert (failure.error_class, failure.outcome_known) == ("resource", False)
    again = classify(errors.Permanent("x"), own=lambda error: own.get(type(error)))
    assert (again.error_class, again.retryable) == ("transient", True)
    assert classify(KeyError("x"), own=lambda _: None).error_class == "transient"
    assert not classify(errors.Permanent("x"), own=lambda _: "bug").retryable


def test_facts_without_an_exception_make_a_failure_too() -> None:
    """With a fix from the verdict where nobody has a better one."""
    found = failure_of(
        Verdict("rate-limited", dependency="registry:docker.io", retry_after=3, fix="wait"),
        "429 [traceparent:00-aa11-bb22-01]",
        code="SG1503",
        step="build",
    )
    assert (found.dependency, found.retry_after, found.fix) == ("registry:docker.io", 3, "wait")
    assert (found.code, found.step, found.retryable) == ("SG1503", "build", True)
    other = failure_of(
        Verdict("rate-limited", dependency="registry:docker.io"),
        "429 [traceparent:00-cc33-dd44-01]",
        code="SG1503",
        step="build",
    )
    assert found.fingerprint == other.fingerprint


def test_the_trace_of_an_engine_counts_for_nothing() -> None:
    one = "exit code: 1 [traceparent:0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331]"
    assert normalised(one) == normalised("exit code: 1") == "exit code: #"


def test_every_class_has_a_meaning_and_unknown_names_a_default() -> None:
    assert set(classes.MEANINGS) == classes.CLASSES
    assert classes.as_class("odd") == "step"
    assert classes.as_class("odd", "bug") == "bug"
    assert classes.as_class("auth") == "auth"


def test_a_failure_without_dependency_is_written_as_before() -> None:
    """Readers of earlier releases meet no new field."""
    from switchgear.contract import codec

    assert b"dependency" not in codec.encode(Failure(error_class="step", code="x", message="m"))


class Attempt:
    """As tenacity keeps the last one."""

    def __init__(self, error: BaseException | None, *, done: bool = True) -> None:
        self._error, self._done = error, done

    def done(self) -> bool:
        return self._done

    def exception(self) -> BaseException | None:
        return self._error


@pytest.mark.parametrize(
    ("attempt", "error_class"),
    [
        (Attempt(OSError(errno.ENOSPC, "full")), "resource"),
        (Attempt(None), "transient"),
        (Attempt(OSError(errno.ENOSPC, "full"), done=False), "transient"),
        (None, "transient"),
    ],
)
def test_used_up_retries_are_what_the_last_one_failed_with(
    attempt: Attempt | None, error_class: str
) -> None:
    error = type("RetryError", (Exception,), {"__module__": "tenacity"})("used up")
    error.last_attempt = attempt  # type: ignore[attr-defined]
    assert classify(error).error_class == error_class


def test_what_the_caller_knows_goes_before_the_tables() -> None:
    failure = classify(ValueError("x"), known=Verdict("auth", retryable=False))
    assert (failure.error_class, failure.retryable) == ("auth", False)


def test_a_breaker_that_is_open_is_as_what_it_guards() -> None:
    found = verdict(
        errors.BreakerOpen("x", dependency="dagger", error_class="resource", retry_after=3)
    )
    assert found == Verdict("resource", dependency="dagger", retry_after=3)
