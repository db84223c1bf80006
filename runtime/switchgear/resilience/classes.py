"""What each error class means, and what a classifier says of one failure. Pure data."""

from __future__ import annotations

from typing import NamedTuple

from switchgear.contract.values import ErrorClass, Failure

CLASSES: frozenset[str] = frozenset(ErrorClass.__args__)
"""Every class by name."""

MEANINGS: dict[ErrorClass, str] = {
    "transient": "something is down or unreachable for now",
    "rate-limited": "something refuses more work for now, and may say how long",
    "resource": "memory, disk or file handles ran out",
    "timeout": "it took longer than it may",
    "step": "the work itself ended otherwise than expected",
    "invalid": "the input, or what was asked for, can never work",
    "auth": "credentials are missing or wrong, or a right is",
    "cancelled": "it was told to stop",
    "crash-loop": "it takes its agents down with it",
    "bug": "the code is wrong",
}
"""What a person reads beside the class."""

RESOURCE = "resource:"
"""How the names begin of what all processes of one host share."""
DISK = "resource:disk"
FILES = "resource:files"
"""Open ones."""
MEMORY = "resource:memory"
PROCESSES = "resource:processes"
"""And threads."""
RESOURCES = (DISK, FILES, MEMORY, PROCESSES)


class Verdict(NamedTuple):
    """What a classifier says of one failure."""

    error_class: ErrorClass
    retryable: bool = True
    """False only where a repetition is pointless."""
    outcome_known: bool = True
    """False where the work may have taken effect all the same."""
    dependency: str = ""
    """What failed: `http:HOST`, `nats`, `dns`, `dagger`, `registry:HOST`, `git:HOST`, one of `RESOURCES`; empty: the
    work itself."""
    retry_after: float | None = None
    """Seconds that the failed side asks to wait."""
    fix: str = ""
    """What a person can do about it."""


def repeatable(failure: Failure, *, idempotent: bool) -> bool:
    """Whether work that failed so may be repeated at all: an unknown outcome only where twice is no harm."""
    return failure.retryable if failure.outcome_known else idempotent


def as_class(text: str, default: ErrorClass = "step") -> ErrorClass:
    """The class of that name; `default` where there is none."""
    return text if text in CLASSES else default  # type: ignore[return-value]  # checked against the literal


def worst(verdicts: list[Verdict]) -> Verdict:
    """What several failures of one piece of work mean together; the first final one decides, else the first."""
    found = next((one for one in verdicts if not one.retryable), verdicts[0])
    asked = [one.retry_after for one in verdicts if one.retry_after is not None]
    return found._replace(
        outcome_known=all(one.outcome_known for one in verdicts),
        retry_after=max(asked, default=None),
    )
