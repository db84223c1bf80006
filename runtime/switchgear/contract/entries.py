"""Ledger entries: one struct for each event of the protocol's state table.

The subject names the event; the body never repeats it. Fields that readers do not know are ignored, so a
release may add optional ones; anything else needs a new version `v`. Proofs travel in headers of their own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from switchgear.contract import limits
from switchgear.contract.rollout import Decision
from switchgear.contract.values import (
    Awaited,
    Blob,
    Digest,
    Failure,
    Labels,
    Parent,
    Retry,
    Route,
    Sequence,
    Status,
    Text,
    Time,
    Token,
)

VERSION = 1
Version = Literal[1]
Reason = Literal["capacity", "start", "turn", "retry", "child", "signal", "timer"]
"""What a task waits for."""


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every entry carries."""

    v: Version
    id: Token
    """This entry's own id: how a writer recognises, on a refusal, that an append of its own had landed."""
    task: Token
    time: Time
    """The writer's clock; the broker's store time is what counts."""
    writer: Token
    """The instance that appends: of a client, a coordinator or an agent."""
    status: Status
    prev: Sequence = 0
    """Sequence of the last valid entry that this one builds on."""
    prev_time: Time | None = None
    """When that one was stored, so that projections never read back."""
    trace: str | None = None
    """W3C traceparent of the work that caused the entry."""


class Submitted(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """A client, or an agent for a child, asks for a capability. Opens the scope: expects sequence 0."""

    input: Raw
    """The input as JSON; `null` when `input_blob` is set."""
    digest: Digest
    """Of capability, input and options: what makes a repeated submission the same (rule 5)."""
    input_blob: Blob | None = None
    version: str = "*"
    """Range of agent versions, such as `>=1.2,<2`."""
    priority: str = "normal"
    """high, normal or low; anything else is rejected at admission, not at the codec."""
    deadline: Time | None = None
    labels: Labels = {}
    """Labels that the agent must have."""
    retry: Retry | None = None
    """Overrides the capability's policy."""
    require_agent: bool = False
    """Reject at once when no live agent offers the capability."""
    root: str = ""
    """The root task of the run; empty for a root itself."""
    parent: Parent | None = None
    depth: int = 0
    """Levels below the root."""
    detached: bool = False
    """Outlives its parent."""
    start: Time | None = None
    """Not before this."""
    after: Token | None = None
    """Not before this task of the same capability and owner has ended."""
    then: Token | None = None
    """The task that waits for this one's end as its `after`."""
    redrives: Token | None = None
    """The dead task of which this is another try."""
    scheduled_for: Time | None = None
    token: str | None = None
    """Identity token of the submitter, or the parent's task token."""


class Rejected(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """A coordinator refuses the submission. Ends the task."""

    code: str
    reason: Text
    fix: Text = ""
    path: str = ""
    """The bad field of the input, such as `$.source`."""
    retry_after: float | None = None
    """Seconds after which the same submission may be accepted; None: never."""


class Dispatched(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """A coordinator gives the task to a pool: this entry is the work item that agents pull."""

    attempt: Annotated[int, Meta(ge=1)]
    """Ordinal of this dispatch in its task."""
    input: Raw
    """As submitted."""
    route: Route
    retry: Retry
    """The policy in force."""
    submitted: Sequence
    """Sequence of the `submitted` entry."""
    input_blob: Blob | None = None
    root: str = ""
    parent: Parent | None = None
    depth: int = 0
    then: Token | None = None
    """As submitted."""
    deadline: Time | None = None
    scheduled_for: Time | None = None
    cleanup: timedelta = limits.CLEANUP
    """Time that the holder has to undo and leave, once the task is being cancelled."""
    undoing: bool = False
    """Only to run the undos that are recorded: the handler is not."""
    token: str | None = None
    """Task token: what the holder may do for whom."""


class AgentEntry(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """What every entry of an agent carries."""

    hold: Sequence
    """The entry that gave the right to append: a `dispatched`, or the writer's own `taken-over` (rule 8)."""
    attempt: int = 0
    token_digest: Digest | None = None
    started: Time | None = None
    """When this attempt began on this instance, by its own clock."""


class TakenOver(AgentEntry, frozen=True, kw_only=True, omit_defaults=True):
    """The next holder begins. `hold` is the one that this entry ends."""

    deliveries: int
    how: Literal["released", "alive", "crash"]
    former: str = ""
    """The instance that held the task, where known."""


class Released(AgentEntry, frozen=True, kw_only=True, omit_defaults=True):
    """Handed back unfinished on purpose; no crash of the handler."""

    why: Literal["drain", "no-slot", "breaker"]
    dependency: str = ""
    """Of `breaker`: what the instance does not call for now."""


class Checkpoint(AgentEntry, frozen=True, kw_only=True, omit_defaults=True):
    """A step's recorded end."""

    key: str
    kind: Literal[
        "step",
        "run",
        "call",
        "submit",
        "map",
        "sleep",
        "signal",
        "publish",
        "save",
        "undo-registered",
        "undo-dropped",
        "undo-begun",
        "undo-done",
    ]
    """`undo-registered` has the function's name and arguments as its result, `undo-begun` the failure as its error."""
    ok: bool
    result: Raw
    """JSON; `null` when the step failed or `result_blob` is set."""
    result_blob: Blob | None = None
    error: Failure | None = None
    input_digest: Digest | None = None
    duration: timedelta | None = None
    executor: str = ""
    isolation: str = ""
    """Of a command: `bubblewrap`, `container` or `none`."""
    retries: int = 0
    signal: Sequence = 0
    """Of a taken signal: the entry that brought it."""
    decision: Decision | None = None
    """Where a command ran, and why, while its capability moves from one executor to another."""


class Waiting(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """The task waits and holds no slot. By its holder with `hold`, by a coordinator without."""

    reason: Reason
    """`start`: for its time; `turn`: for the task named as its `after`; `child` and on: a suspended handler."""
    detail: Text = ""
    until: Time | None = None
    """The earliest time at which there is something to do."""
    waits: tuple[Awaited, ...] = ()
    """What the suspended handler waits for: any of these lets it go on."""
    waits_blob: Blob | None = None
    """The same as JSON, where it is too long for an entry."""
    hold: Sequence = 0
    attempt: int = 0
    token_digest: Digest | None = None


class Signalled(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """A signal for the task, taken in ledger order."""

    name: Token
    payload: Raw
    sender: str = ""
    """The principal that sends it."""
    group: str = ""
    """The group as whose member a coordinator let the sender signal; empty: as the run's owner."""
    token: str | None = None


class AttemptFailed(AgentEntry, frozen=True, kw_only=True, omit_defaults=True):
    """The attempt ended without a result."""

    error: Failure


class CancelRequested(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """The task shall end: a client's wish, its parent's end, or its deadline."""

    reason: Text
    """Free text; `deadline` makes the end `expired`."""
    token: str | None = None


class Completed(AgentEntry, frozen=True, kw_only=True, omit_defaults=True):
    """The result. Ends the task."""

    output: Raw
    """JSON; `null` when `output_blob` is set."""
    output_blob: Blob | None = None


class Dead(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """Failed for good. Ends the task."""

    error: Failure
    reason: Text = ""
    """Why it is not tried again."""


class Cancelled(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """Ended by a cancel: by its holder with `hold`, by a coordinator without."""

    reason: Text = ""
    hold: Sequence = 0
    attempt: int = 0
    token_digest: Digest | None = None


class Expired(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """Ended by its deadline: by its holder with `hold`, by a coordinator without."""

    deadline: Time | None = None
    hold: Sequence = 0
    attempt: int = 0
    token_digest: Digest | None = None


ENTRIES: dict[str, type[Entry]] = {
    "submitted": Submitted,
    "rejected": Rejected,
    "dispatched": Dispatched,
    "taken-over": TakenOver,
    "released": Released,
    "checkpoint": Checkpoint,
    "waiting": Waiting,
    "signalled": Signalled,
    "attempt-failed": AttemptFailed,
    "cancel-requested": CancelRequested,
    "completed": Completed,
    "dead": Dead,
    "cancelled": Cancelled,
    "expired": Expired,
}
"""Event of the subject -> the body's type."""
