"""Core requests: what clients ask coordinators and the read model, and what instances are told.

A query is sent to `sg.api.<verb>.<principal>`; the answer is the verb's answer type, or a `Problem`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from switchgear.contract.announcement import Announcement, Offer
from switchgear.contract.values import Failure, Route, State, Text, Time, Token


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


class TaskList(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page of tasks, and how far behind the ledger the read model is."""

    tasks: tuple[TaskRow, ...]
    lag: int
    """Ledger entries that the read model has not read yet."""
    more: bool = False


class TimelineQuery(Struct, frozen=True, kw_only=True):
    """All entries of a run, as the read model keeps them."""

    root: Token
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
    void: str = ""
    """Why the entry counts for nothing; empty for a valid one."""


class Timeline(Struct, frozen=True, kw_only=True):
    """The entries of a run in ledger order."""

    moments: tuple[Moment, ...]
    lag: int


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


class HolderQuery(Struct, frozen=True, kw_only=True):
    """Sent by an instance that takes a task over: does anybody announce that it runs it?"""

    task: Token
    v: Literal[1] = 1


class Holder(Struct, frozen=True, kw_only=True):
    """The live instance that announces the task as running; empty for none."""

    instance: str


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


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one instance is told on its control subject."""

    verb: Literal["drain"]
    v: Literal[1] = 1


class Cancel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all instances of a capability hear when one of its tasks is cancelled."""

    task: Token
    reason: Text = ""
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
    writer: str = ""
    v: Literal[1] = 1
