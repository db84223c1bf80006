"""Examples of every message: a run from its submission to its end, and the ways it could have gone.

Built from the types with fixed values, so that they cannot drift from them and come out the same
every time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Raw, Struct

from switchgear.contract import entries
from switchgear.contract.export.examples_breakers import of_breakers
from switchgear.contract.export.examples_core import asked, told
from switchgear.contract.export.examples_rollout import DECISION
from switchgear.contract.export.scene import (
    AGENT,
    CHECKPOINT,
    CHILD,
    CLIENT,
    COORDINATOR,
    CRASHED,
    DIGEST,
    DISPATCHED,
    FAILURE,
    INPUT,
    NULL,
    OTHER,
    OTHER_DIGEST,
    OUTPUT,
    REDRIVE,
    ROUTE,
    START,
    SUBMITTED,
    TASK,
    TRACE,
    UNFIT,
    at,
)
from switchgear.contract.values import Awaited, Blob, Parent, Retry, RetryRule, State, Status

WAITS = (
    Awaited(
        key="review",
        kind="signal",
        begun=at(3.5),
        until=at(28_800),
        signal="review",
        sender="approvers",
        question="Release v1.2?",
    ),
    Awaited(
        key="check",
        kind="children",
        begun=at(3.5),
        capability="python-lint",
        task=CHILD,
        count=250,
        max_failures=0,
    ),
)


def _entry(
    number: int, seconds: float, writer: str, state: State, prev: int, **status: Any
) -> dict[str, Any]:
    """The fields that every entry carries."""
    return {
        "v": 1,
        "id": f"01kjp9e2r0e{number:015d}",
        "task": TASK,
        "time": at(seconds),
        "writer": writer,
        "prev": prev,
        "status": Status(state=state, submitted_at=START, **status),
        "trace": TRACE,
    }


def _held(
    number: int, seconds: float, state: State, prev: int, *, writer: str = AGENT, **status: Any
) -> dict[str, Any]:
    """The fields that every entry of the first holder carries."""
    common = _entry(number, seconds, writer, state, prev, attempt=1, **status)
    return common | {"hold": DISPATCHED, "attempt": 1, "started": at(0.012)}


def _client() -> dict[str, Struct]:
    child: dict[str, Any] = _entry(2, 0.4, AGENT, "queued", 0) | {"task": CHILD}
    later: dict[str, Any] = _entry(19, 0, CLIENT, "queued", 0) | {"task": REDRIVE}
    return {
        "submitted": entries.Submitted(
            **_entry(1, 0, CLIENT, "queued", 0),
            input=INPUT,
            digest=DIGEST,
            version=">=1.1,<2",
            priority="high",
            deadline=at(3600),
            labels={"region": "eu"},
            retry=Retry(max_attempts=5, initial=timedelta(seconds=2)),
        ),
        "submitted.child": entries.Submitted(
            **child,
            input=NULL,
            input_blob=Blob(digest=OTHER_DIGEST, size=734_003),
            digest=OTHER_DIGEST,
            root=TASK,
            parent=Parent(task=TASK, capability="check-repo", key="python-lint"),
            depth=1,
        ),
        "submitted.later": entries.Submitted(
            **later,
            input=INPUT,
            digest=DIGEST,
            start=at(7200),
            redrives=TASK,
        ),
        "signalled": entries.Signalled(
            **_entry(8, 60, CLIENT, "waiting", 4717, attempt=1),
            name="review",
            payload=Raw(b'{"approved":true,"note":"fine"}'),
            sender="bob",
            group="approvers",
        ),
        "cancel-requested": entries.CancelRequested(
            **_entry(9, 61, CLIENT, "cancelling", 4718, attempt=1), reason="no longer needed"
        ),
    }


def _coordinator() -> dict[str, Struct]:
    return {
        "rejected": entries.Rejected(
            **_entry(3, 0.002, COORDINATOR, "rejected", SUBMITTED),
            code="SG1203",
            reason="the input violates the capability's schema: expected `str` at $.source",
            fix="`switchgear capability show NAME` prints the schema",
            path="$.source",
        ),
        "dispatched": entries.Dispatched(
            **_entry(4, 0.003, COORDINATOR, "held", SUBMITTED, attempt=1),
            attempt=1,
            input=INPUT,
            route=ROUTE,
            retry=Retry(max_attempts=5, initial=timedelta(seconds=2)),
            submitted=SUBMITTED,
            deadline=at(3600),
        ),
        "waiting.capacity": entries.Waiting(
            **_entry(5, 0.003, COORDINATOR, "waiting", SUBMITTED),
            reason="capacity",
            detail="nobody offers this capability",
        ),
        "dispatched.undoing": entries.Dispatched(
            **_entry(20, 62, COORDINATOR, "held", 4719, attempt=2),
            attempt=2,
            input=INPUT,
            route=ROUTE,
            retry=Retry(rules={"rate-limited": RetryRule(max_attempts=10)}),
            submitted=SUBMITTED,
            then=CHILD,
            cleanup=timedelta(minutes=10),
            undoing=True,
        ),
        "waiting.retry": entries.Waiting(
            **_entry(21, 3.1, COORDINATOR, "waiting", 4716, attempt=1, failures=1),
            reason="retry",
            detail="attempt 2 follows at 09:30:08 UTC",
            until=at(8),
            attempt=1,
        ),
    }


def _ended() -> dict[str, Struct]:
    """What coordinators end a task with."""
    return {
        "dead": entries.Dead(
            **_entry(6, 9, COORDINATOR, "dead", 4716, attempt=1, failures=1),
            error=FAILURE,
            reason="the policy does not retry step failures",
        ),
        "cancelled": entries.Cancelled(
            **_entry(7, 61.01, COORDINATOR, "cancelled", 4719, attempt=1), reason="no longer needed"
        ),
        "expired": entries.Expired(
            **_entry(10, 3600.01, COORDINATOR, "expired", SUBMITTED), deadline=at(3600)
        ),
    }


def _commands() -> dict[str, Struct]:
    return {
        "checkpoint": entries.Checkpoint(
            **_held(13, 2, "held", DISPATCHED),
            key="clone",
            kind="run",
            ok=True,
            result=Raw(b'{"exit_code":0}'),
            duration=timedelta(seconds=1.25),
            executor="process",
        ),
        "checkpoint.failed": entries.Checkpoint(
            **_held(14, 2, "held", DISPATCHED),
            key="clone",
            kind="run",
            ok=False,
            result=NULL,
            error=FAILURE,
            duration=timedelta(seconds=1.25),
            executor="process",
            retries=1,
        ),
        "checkpoint.decided": entries.Checkpoint(
            **_held(24, 2, "held", DISPATCHED),
            key="ruff",
            kind="run",
            ok=True,
            result=Raw(b'{"exit_code":0}'),
            duration=timedelta(seconds=1.25),
            executor="process",
            decision=DECISION,
        ),
    }


def _checkpoints() -> dict[str, Struct]:
    return _commands() | {
        "checkpoint.undo": entries.Checkpoint(
            **_held(22, 2.5, "held", CHECKPOINT),
            key="withdraw",
            kind="undo-registered",
            ok=True,
            result=Raw(b'{"function":"shop.release:withdraw","args":["v1.2"]}'),
        ),
        "checkpoint.signal": entries.Checkpoint(
            **_held(23, 61, "held", CHECKPOINT),
            key="review",
            kind="signal",
            ok=True,
            result=Raw(b'{"approved":true,"note":"fine"}'),
            signal=4718,
        ),
        "checkpoint.signal-refused": entries.Checkpoint(
            **_held(25, 60, "held", CHECKPOINT),
            key="review",
            kind="signal",
            ok=False,
            result=NULL,
            error=UNFIT,
            signal=4717,
        ),
    }


def _agent() -> dict[str, Struct]:
    return {
        "taken-over": entries.TakenOver(
            **_held(11, 32, "held", DISPATCHED, writer=OTHER),
            deliveries=2,
            how="crash",
            former=AGENT,
        ),
        "released": entries.Released(**_held(12, 3, "loose", CHECKPOINT), why="drain"),
        "released.breaker": entries.Released(
            **_held(12, 3, "loose", CHECKPOINT), why="breaker", dependency="dagger"
        ),
        "waiting": entries.Waiting(
            **_entry(15, 4, AGENT, "waiting", CHECKPOINT, attempt=1),
            reason="signal",
            detail="",
            until=at(28_800),
            waits=WAITS,
            hold=DISPATCHED,
            attempt=1,
        ),
        "attempt-failed": entries.AttemptFailed(
            **_held(16, 3, "failed", CHECKPOINT, failures=1), error=CRASHED
        ),
        "completed": entries.Completed(**_held(17, 8.5, "completed", CHECKPOINT), output=OUTPUT),
        "completed.large": entries.Completed(
            **_held(18, 8.5, "completed", CHECKPOINT),
            output=NULL,
            output_blob=Blob(digest=OTHER_DIGEST, size=1_048_577),
        ),
    }


def entry_examples() -> dict[str, Struct]:
    """Those of the ledger."""
    return _client() | _coordinator() | _ended() | _checkpoints() | _agent()


def examples() -> dict[str, Struct]:
    """Name -> example. A name is the message's, or the message's with a variant after a dot."""
    return dict(sorted((entry_examples() | asked() | told() | of_breakers()).items()))
