"""Examples of every message: a run from its submission to its end, and the ways it could have gone.

Built from the types with fixed values, so that they cannot drift from them and come out the same
every time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Raw, Struct

from switchgear.contract import entries
from switchgear.contract.export.examples_core import asked, told
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
    ROUTE,
    START,
    SUBMITTED,
    TASK,
    TRACE,
    at,
)
from switchgear.contract.values import Blob, Parent, Retry, State, Status


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
        "signalled": entries.Signalled(
            **_entry(8, 60, CLIENT, "waiting", 4717, attempt=1),
            name="review",
            payload=Raw(b'{"approved":true,"note":"fine"}'),
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


def _agent() -> dict[str, Struct]:
    return {
        "taken-over": entries.TakenOver(
            **_held(11, 32, "held", DISPATCHED, writer=OTHER),
            deliveries=2,
            how="crash",
            former=AGENT,
        ),
        "released": entries.Released(**_held(12, 3, "loose", CHECKPOINT), why="drain"),
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
        "waiting": entries.Waiting(
            **_entry(15, 4, AGENT, "waiting", CHECKPOINT, attempt=1),
            reason="signal",
            detail="approval by ana",
            signal="review",
            until=at(28_800),
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


def examples() -> dict[str, Struct]:
    """Name -> example. A name is the message's, or the message's with a variant after a dot."""
    return dict(sorted((_client() | _coordinator() | _agent() | asked() | told()).items()))
