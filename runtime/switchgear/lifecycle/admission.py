"""Whether a submission may become a task: what is wrong with it, as a code, a reason and a fix."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from switchgear.contract import limits, subjects
from switchgear.contract.announcement import Offer
from switchgear.contract.codes import REJECTIONS
from switchgear.contract.entries import Submitted
from switchgear.contract.values import retry_fault
from switchgear.errors import ProtocolError
from switchgear.lifecycle import routing

SchemaCheck = Callable[[Offer, bytes], "Misfit | None"]
"""Checks an input's JSON against an offer's schema; None where it fits."""


MAX_SUBMISSION = limits.MAX_ENTRY * 3 // 4
"""Bytes of a submission's body: a `dispatched` repeats it, and without room for a route is unreadable."""


class Misfit(NamedTuple):
    """Where an input does not fit its schema."""

    path: str
    """Of the bad field, such as `$.source`."""
    message: str


class Refusal(NamedTuple):
    """Why a submission is rejected."""

    code: str
    reason: str
    fix: str
    path: str = ""
    retry_after: float | None = None
    """Seconds after which the same submission may be accepted; None: never."""


def refusal(
    code: str, detail: str = "", *, path: str = "", retry_after: float | None = None
) -> Refusal:
    """The refusal of a known code, with what exactly is wrong."""
    meaning, fix = REJECTIONS[code]
    return Refusal(code, f"{meaning}: {detail}" if detail else meaning, fix, path, retry_after)


def unreadable(error: ProtocolError) -> Refusal:
    """The refusal of a submission whose bytes are not a message of this protocol."""
    return refusal("SG1205", f"{error.code} {error.what}")


def too_large(size: int) -> Refusal:
    """The refusal of a submission that would not fit into its dispatch."""
    return refusal("SG1205", f"{size} bytes; inputs above {limits.MAX_INLINE} travel as blobs")


def examine(submission: Submitted, stored_at: datetime) -> Refusal | None:
    """What is wrong with the submission itself, whoever may offer the capability."""
    if submission.priority not in subjects.PRIORITIES:
        return refusal("SG1201", repr(submission.priority))
    if submission.deadline is not None and submission.deadline <= stored_at:
        return refusal("SG1202", submission.deadline.isoformat())
    try:
        routing.version_range(submission.version)
    except ValueError as error:
        return refusal("SG1206", str(error))
    if not 0 <= submission.depth <= limits.MAX_DEPTH:
        return refusal("SG1208", f"level {submission.depth}")
    fault = retry_fault(submission.retry) if submission.retry is not None else ""
    return refusal("SG1209", fault) if fault else None
