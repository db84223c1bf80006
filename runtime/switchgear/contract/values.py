"""Values that several messages carry: status, failure, retry policy, blob reference, route."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from switchgear.contract import limits
from switchgear.contract.subjects import TOKEN

Time = Annotated[datetime, Meta(tz=True)]
"""A moment in UTC, RFC 3339 with time zone."""
Token = Annotated[str, Meta(pattern=rf"^{TOKEN}\Z")]
"""A text that can stand as one token of a subject. `$` would let a trailing newline pass."""
Text = Annotated[str, Meta(max_length=limits.MAX_TEXT)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""SHA-256 in lower-case hex."""
Labels = Annotated[
    dict[Token, Annotated[str, Meta(max_length=limits.MAX_LABEL)]],
    Meta(max_length=limits.MAX_LABELS),
]
Sequence = Annotated[int, Meta(ge=0)]
"""A sequence of the ledger's stream; 0 stands for none."""

State = Literal[
    "none",
    "queued",
    "held",
    "loose",
    "failed",
    "waiting",
    "cancelling",
    "rejected",
    "completed",
    "dead",
    "cancelled",
    "expired",
]
"""The states of the protocol's table (docs/reference/protocol.md)."""

ErrorClass = Literal[
    "transient",
    "rate-limited",
    "resource",
    "timeout",
    "step",
    "invalid",
    "auth",
    "cancelled",
    "crash-loop",
    "bug",
]
"""What kind of failure it is: decides retry, breaker, grouping, and what the user reads."""

RETRIED: frozenset[ErrorClass] = frozenset({"transient", "rate-limited", "resource", "timeout"})


class RetryRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What differs for one error class; None: as the policy says."""

    max_attempts: int | None = None
    initial: timedelta | None = None
    factor: float | None = None
    max_delay: timedelta | None = None


class Retry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often a capability's attempts, or a step's, are repeated, and how long apart."""

    max_attempts: int = 3
    """Attempts in all, the first included; 1 to 100. Resumes and hand-backs do not count."""
    initial: timedelta = timedelta(seconds=1)
    """Upper bound of the first delay."""
    factor: float = 2.0
    """Growth of the bound from one delay to the next."""
    max_delay: timedelta = timedelta(minutes=1)
    """The bound never grows beyond this."""
    on: frozenset[ErrorClass] = RETRIED
    """Error classes that are repeated; all others are final."""
    rules: dict[ErrorClass, RetryRule] = {}
    """What differs by error class."""
    budget: float = 0.2
    """Retries that are dispatched per first dispatch of the capability, beyond ten a minute; more wait their turn."""

    def of(self, error_class: ErrorClass) -> Retry:
        """The policy for failures of this class."""
        rule = self.rules.get(error_class)
        if rule is None:
            return self
        own = {name: value for name, value in asdict(rule).items() if value is not None}
        return replace(self, **own)


def retry_fault(retry: Retry) -> str:
    """What is wrong with a policy; empty for nothing."""
    unknown = sorted((retry.on | retry.rules.keys()) - set(ErrorClass.__args__))
    if unknown:
        return f"{unknown[0]!r} is no error class: they are {', '.join(ErrorClass.__args__)}"
    if not 1 <= retry.max_attempts <= limits.MAX_ATTEMPTS:
        return f"max_attempts is {retry.max_attempts}, not 1 to {limits.MAX_ATTEMPTS}"
    if retry.initial.total_seconds() < 0 or retry.max_delay.total_seconds() < 0:
        return "a delay is negative"
    if not 1 <= retry.factor <= limits.MAX_FACTOR:
        return f"factor is {retry.factor}, not 1 to {limits.MAX_FACTOR}"
    if not 0 <= retry.budget <= limits.MAX_FACTOR:
        return f"budget is {retry.budget}, not 0 to {limits.MAX_FACTOR}"
    faults = (retry_fault(replace(retry.of(one), rules={})) for one in retry.rules)
    return next((fault for fault in faults if fault), "")


class Blob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A payload in the object store, named by its content."""

    digest: Digest
    size: Annotated[int, Meta(ge=0, le=limits.MAX_BLOB)]
    """Bytes."""
    names: Annotated[tuple[Digest, ...], Meta(max_length=limits.MAX_NAMED)] = ()
    """Digests of the artifacts that stand in it: they are kept as long as it is."""


class Parent(Struct, frozen=True, kw_only=True):
    """The task that submitted this one, and under which key."""

    task: Token
    capability: Token
    key: str


class Awaited(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a suspended handler waits for."""

    key: str
    kind: Literal["child", "children", "signal", "timer"]
    begun: Time
    """When the wait began: later runs of the handler do not begin it anew."""
    until: Time | None = None
    """A timer's time, or when any other wait gives up."""
    capability: str = ""
    """Of the child or children."""
    task: str = ""
    """The child's id; the part that all the children's ids begin with (`<task>-<index>`)."""
    count: int = 0
    """How many children, from index 0."""
    max_failures: int | None = None
    """Of `children`: more failed ones end the wait; None: any number may fail."""
    signal: str = ""
    sender: str = ""
    """Who may send the signal: a group, or empty for the run's owner."""
    question: Text = ""
    together: str = ""
    """Waits with the same mark are over when all of them are, or one has failed."""


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt or a task failed."""

    error_class: ErrorClass
    code: str
    """The stable code, such as SG1503."""
    message: Text
    why: Text = ""
    fix: Text = ""
    path: str = ""
    """The bad field of an invalid input, such as `$.source`."""
    step: str | None = None
    """Key of the step that failed, if one did."""
    retryable: bool = False
    """What the failed side says; the policy decides."""
    retry_after: float | None = None
    """Seconds that the failed side asks to wait."""
    outcome_known: bool = True
    """False where the work may have taken effect all the same."""
    dependency: str = ""
    """What failed below the work, such as `http:api.example.com` or `dagger`; empty for the work itself."""
    fingerprint: str = ""
    """What failures of one cause have in common: groups dead letters."""
    last_words: Text = ""
    """The end of the error output of a process that died."""


class Status(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the entry's writer claims the task's state to be after it: for lists and screens only."""

    state: State
    submitted_at: Time
    attempt: int = 0
    """Dispatches so far."""
    failures: int = 0
    """Failed attempts so far."""
    reason: Text = ""
    """Why it waits or ended, in a few words."""


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pool that could have been chosen, and what was found about it."""

    pool: Token
    version: str
    instances: int
    """Live instances that accept work."""
    free: int = 0
    """Their free slots, as last announced."""
    refused: str = ""
    """Why it was not chosen; empty for the chosen one."""


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The routing decision of a dispatch."""

    reason: Text
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=limits.MAX_CANDIDATES)] = ()
