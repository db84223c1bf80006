"""What all examples share: who, when, which task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Raw

from switchgear.contract.values import Candidate, Failure, Route

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TASK = "01kjp9e2r0f7x3v5bqz8mtd4wa"
CHILD = "7c0n5k2yh4wq8rj1v6ztg3xe9m"
REDRIVE = "5h2rq9ym0c7txk3w8n1vj6pzea"
CLIENT = "cli-01kjp9dzq8"
COORDINATOR = "coordinator-01kjp8a7m2"
AGENT = "check-repo-01kjp8c4xd"
OTHER = "check-repo-01kjp8c9pn"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
OTHER_DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
SUBMITTED, DISPATCHED, CHECKPOINT = 4711, 4712, 4715
"""Their sequences in the ledger."""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
INPUT = Raw(b'{"source":"https://git.example.org/ana/site.git","ref":"main"}')
OUTPUT = Raw(b'{"passed":true,"findings":0}')
NULL = Raw(b"null")


def at(seconds: float) -> datetime:
    """So long after the submission."""
    return START + timedelta(seconds=seconds)


ROUTE = Route(
    reason="newest of 2 pools that fit",
    candidates=(
        Candidate(pool="check-repo-4f1c09d2ab", version="1.2.0", instances=2, free=7),
        Candidate(
            pool="check-repo-b70e55c318",
            version="1.1.4",
            instances=1,
            free=4,
            refused="another pool was better",
        ),
    ),
)
FAILURE = Failure(
    error_class="step",
    code="SG1503",
    message="step clone ended with exit code 128",
    why="the repository does not exist",
    fix="check the source",
    step="clone",
    fingerprint="4f1c09d2ab3e",
    last_words="fatal: repository not found",
)
CRASHED = Failure(
    error_class="transient",
    code="SG1510",
    message="ConnectionError: the package index did not answer",
    retryable=True,
    retry_after=5.0,
    outcome_known=False,
)
UNFIT = Failure(
    error_class="invalid",
    code="SG1507",
    message="signal review does not fit Approval: Expected `bool`, got `str`",
    fix="send what Approval says: `switchgear task signal`",
    path="$.approved",
    step="review",
)
