"""From errors to what is recorded of them, and back."""

from __future__ import annotations

import pytest

from switchgear import errors
from switchgear.contract.values import Failure
from switchgear.resilience.classify import classify, stalled, too_late, undo_failed
from switchgear.resilience.fingerprint import fingerprint, normalised
from switchgear.resilience.replay import details, error_of


class Custom(errors.Permanent):
    """An agent's own kind of error."""

    def __init__(self, what: str, amount: int, client: object) -> None:
        super().__init__(what)
        self.amount = amount
        self.client = client


@pytest.mark.parametrize(
    "error",
    [
        errors.StepFailed("x", key="k", exit_code=3, stdout="o", stderr="e", why="w", fix="f"),
        errors.TaskDead("x", task_id="t", state="dead", error_class="auth", step="s"),
        errors.InvalidInput("x", path="$.a"),
        errors.Retryable("x", retry_after=2),
        errors.Overloaded("x", retry_after=2.5),
        errors.ProtocolError("x", code="SG1102"),
        errors.SignalTimeout("x"),
    ],
)
def test_error_comes_back_as_it_was(error: errors.SwitchgearError) -> None:
    """Class, code, text and attributes."""
    again = error_of(classify(error), details(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (str(again), again.args) == (str(error), error.args)


def test_own_class_comes_back_without_what_is_no_data() -> None:
    """A client cannot be recorded; the rest can."""
    error = Custom("broke", 3, object())
    again = error_of(classify(error), details(error))
    assert isinstance(again, Custom)
    assert (again.what, again.amount) == ("broke", 3)
    assert not hasattr(again, "client")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SG1503", errors.StepFailed),
        ("SG1412", errors.TaskDead),
        ("SG1508", errors.SignalTimeout),
        ("SG1102", errors.ProtocolError),
        ("SG1510", errors.StepFailed),
        ("XX1", errors.StepFailed),
    ],
)
@pytest.mark.parametrize("recorded", [b"null", b"{}", b"[1]", b'{"kind":"gone:Error"}'])
def test_failure_of_another_writer_becomes_the_class_of_its_code(
    code: str, kind: type[errors.SwitchgearError], recorded: bytes
) -> None:
    """With every attribute that the class promises."""
    failure = Failure(error_class="timeout", code=code, message="m", step="s")
    error = error_of(failure, recorded)
    assert type(error) is kind
    assert (error.code, error.what) == (code, "m")
    if isinstance(error, errors.StepFailed):
        assert (error.key, error.error_class, error.exit_code) == ("s", "timeout", None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 7 of 12 failed", "row 8 of 13 failed"),
        ("cannot read /tmp/a/b.txt", "cannot read /var/x/y/z.txt"),
        ("no task 01kjp9e2r0f7x3v5bqz8mtd4wa", "no task 01kjp9e2r0f7x3v5bqz8mtd4wb"),
        ("object at 0x7f3a2b", "object at 0x123456"),
        ("commit deadbeef01 is bad", "commit 0badcafe99 is bad"),
        ("key 'a' is missing", "key 'b' is missing"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-e89b-12d3-a456-426614174001"),
    ],
)
def test_failures_of_one_cause_share_a_fingerprint(one: str, other: str) -> None:
    """What differs from case to case counts for nothing."""
    assert normalised(one) == normalised(other)
    assert classify(OSError(one)).fingerprint == classify(OSError(other)).fingerprint


def test_failures_of_different_causes_differ() -> None:
    """In class, code, step or words."""
    found = {
        classify(OSError("disk full")).fingerprint,
        classify(OSError("no such host")).fingerprint,
        classify(OSError("disk full"), step="save").fingerprint,
        classify(TypeError("disk full")).fingerprint,
        stalled(5).fingerprint,
        too_late().fingerprint,
        undo_failed("it", OSError("disk full")).fingerprint,
    }
    assert len(found) == 7
    assert all(found)
    assert classify(OSError("x"), step="d1").fingerprint == fingerprint(
        classify(OSError("x"), step="d2")
    )
