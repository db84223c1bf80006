"""Core requests: what clients ask coordinators and the read model, and what instances are told.

A query is sent to `sg.api.<verb>.<principal>`; the answer is the verb's answer type, or a `Problem`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from switchgear.contract import limits
from switchgear.contract.announcement import Announcement, CronTrigger, Offer
from switchgear.contract.values import (
    Awaited,
    Failure,
    Route,
    Sequence,
    State,
    Text,
    Time,
    Token,
)


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error instead of an answer."""

    code: str
    what: Text
    why: Text = ""
    fix: Text = ""
    retry_after: float | None = None


class Nothing(Struct, frozen=True, kw_only=True):
    """A query without arguments."""

    v: Literal[1] = 1


class ListQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tasks of the asking principal, newest first. Answered by the read model."""

    v: Literal[1] = 1
    capability: Token | None = None
    state: State | None = None
    open_only: bool = False
    root: Token | None = None
    """Only this run: its root and all its children."""
    parent: Token | None = None
    """Only children of this task."""
    fingerprint: str | None = None
    """Only tasks whose error has this fingerprint."""
    redrives: Token | None = None
    """Only further tries of this dead task."""
    search: str = ""
    """Part of a task id, a capability or an error message."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: str | None = None
    """The last id of the page before."""


class TaskRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task in a list, and what `Mesh.get` returns."""

    id: Token
    capability: Token
    owner: Token
    state: State
    submitted_at: Time
    updated_at: Time
    priority: str = "normal"
    attempt: int = 0
    failures: int = 0
    root: str = ""
    parent: str = ""
    agent: str = ""
    """The instance that holds or held it last, where known."""
    reason: Text = ""
    error: Failure | None = None
    deadline: Time | None = None
    redrives: str = ""
    """The dead task of which this is another try."""
    asks: tuple[Awaited, ...] = ()
    """Signals that it waits for: what somebody may answer."""


class TaskList(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page of tasks, and how far behind the ledger the read model is."""

    tasks: tuple[TaskRow, ...]
    lag: int
    """Ledger entries that the read model has not read yet."""
    more: bool = False


class TimelineQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All entries of a run, as the read model keeps them."""

    root: Token
    after: Sequence = 0
    """The last sequence of the page before; 0 for the first page."""
    v: Literal[1] = 1


class Moment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry on a run's timeline."""

    task: Token
    capability: Token
    event: str
    time: Time
    sequence: int
    writer: str = ""
    attempt: int = 0
    detail: Text = ""
    key: str = ""
    """Of a checkpoint its key, of a signal its name."""
    kind: str = ""
    """Of a checkpoint: what was recorded, such as step, call or undo-done."""
    ok: bool | None = None
    """Of a checkpoint: whether it succeeded."""
    duration: timedelta | None = None
    """Of a checkpoint, where it was measured."""
    void: str = ""
    """Why the entry counts for nothing; empty for a valid one."""


class Timeline(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The entries of a run in ledger order."""

    moments: tuple[Moment, ...]
    lag: int
    more: bool = False
    """There are later ones: ask again with `after`."""


class CapabilityRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A capability as the mesh offers it."""

    offer: Offer
    agents: tuple[str, ...]
    instances: int
    """Live instances of this pool."""
    free: int
    """Their free slots, as last announced."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """All offered capabilities, one row a pool."""

    rows: tuple[CapabilityRow, ...]


class Agents(Struct, frozen=True, kw_only=True):
    """All live instances."""

    instances: tuple[Announcement, ...]


class ExplainQuery(Struct, frozen=True, kw_only=True):
    """Why a task is where it is."""

    task: Token
    v: Literal[1] = 1


class Explanation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a task is where it is, in sentences and as data."""

    task: Token
    capability: Token
    state: State
    sentences: tuple[str, ...]
    route: Route | None = None
    voids: tuple[str, ...] = ()
    """Entries that count for nothing, and why."""


class DrainQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ask an agent's instances to finish what they hold and leave."""

    agent: Token
    instance: Token | None = None
    """One instance; None for all of the agent."""
    v: Literal[1] = 1


class Drained(Struct, frozen=True, kw_only=True):
    """The instances that were told to drain."""

    instances: tuple[str, ...]


class HolderQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sent by an instance that takes a task over: does anybody announce that it runs it?"""

    task: Token
    former: Token | None = None
    """The instance that held it: what is known of its death? Only instances of one agent hear that of each other."""
    v: Literal[1] = 1


class Holder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The live instance that announces the task as running; empty for none."""

    instance: str
    ended: Text = ""
    """How the former holder's process ended, where it was seen to die."""
    last_words: Text = ""
    """The end of that process's error output."""


class LaneQuery(Struct, frozen=True, kw_only=True):
    """Sent by an instance: make sure that the lanes of its offers exist."""

    agent: Token
    instance: Token
    lanes: tuple[tuple[Token, Token], ...]
    """Capability and pool."""
    missing: bool = False
    """A pull found that a lane does not exist (any more): look, whatever is remembered."""
    v: Literal[1] = 1


class Lanes(Struct, frozen=True, kw_only=True):
    """The lanes exist."""

    consumers: tuple[str, ...]
    lease: timedelta = limits.LANE_ACK_WAIT
    """How long a silent holder keeps a delivery of theirs: extend what runs every third of it."""


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one instance is told on its control subject."""

    verb: Literal["drain", "breaker"]
    action: Literal["reset", "open", "close"] | None = None
    """Of `breaker`, as all that follows: hold it open, let everything through, or leave it to itself."""
    dependency: str = ""
    by: str = ""
    """The principal that ordered it."""
    why: Text = ""
    v: Literal[1] = 1


class Cancel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all instances of a capability hear when one of its tasks is cancelled."""

    task: Token
    reason: Text = ""
    v: Literal[1] = 1


class LogLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line that a handler logged."""

    time: Time
    level: str
    text: Text


class Chunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a handler streams to whoever watches: live only, stored nowhere."""

    step: str
    """Key of the step that sent it; empty outside of steps."""
    run: int
    """The fence of the run that sent it: a higher one replaces what that step sent before."""
    number: int
    """From 0, of this step and run."""
    value: Raw
    v: Literal[1] = 1


class TopicMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message on a topic, or a direct request."""

    id: Token
    sender: Token
    """The principal that sent it."""
    time: Time
    value: Raw
    priority: str = "normal"
    """Of the tasks that it starts."""
    expires: Time | None = None
    """After this it is dropped instead of handled."""
    depth: int = 0
    """Levels of calls and topics above it."""
    trace: str | None = None
    token: str | None = None
    """Identity or task token of the sender."""
    v: Literal[1] = 1


class SignalQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Signal a task of another owner: a coordinator decides whether the asking principal may."""

    task: Token
    name: Token
    payload: Raw
    v: Literal[1] = 1


class Signalled(Struct, frozen=True, kw_only=True):
    """The signal is in the ledger."""

    sequence: int


class RetryQuery(Struct, frozen=True, kw_only=True):
    """Run a task now that waits for its next attempt, or for its start."""

    task: Token
    v: Literal[1] = 1


class Retried(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of it."""

    state: State
    reason: Text = ""


class Schedule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that is submitted again and again, as it is kept."""

    name: Token
    owner: Token
    capability: Token
    cron: CronTrigger
    created: Time
    paused: bool = False
    fired: Time | None = None
    """The newest due time that was handled."""
    last: str = ""
    """The task that it started last."""
    agent: str = ""
    """The agent whose declaration it is; empty for one that a client put."""
    version: str = ""
    """Of that agent."""
    priority: str = "normal"
    v: Literal[1] = 1


class ScheduleRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule in a list."""

    schedule: Schedule
    next: Time | None = None
    """When it is due next; None while paused."""


class SchedulesQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Schedules of the asking principal; `agent`: those that this agent's declarations made."""

    agent: Token | None = None
    v: Literal[1] = 1


class Schedules(Struct, frozen=True, kw_only=True):
    """All of them, by name."""

    rows: tuple[ScheduleRow, ...]


class ScheduleCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Put, pause, resume or remove a schedule of the asking principal."""

    verb: Literal["put", "pause", "resume", "remove"]
    name: Token
    capability: Token | None = None
    """For `put`, as all that follows."""
    cron: CronTrigger | None = None
    priority: str = "normal"
    v: Literal[1] = 1


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest progress of a running task; the newest wins, nothing is kept after its end."""

    task: Token
    time: Time
    attempt: int = 0
    fraction: float | None = None
    """Done so far, 0 to 1."""
    message: Text = ""
    counters: dict[str, float] = {}
    lines: tuple[LogLine, ...] = ()
    """What was logged since the report before, oldest first; cut to the newest few."""
    writer: str = ""
    v: Literal[1] = 1
