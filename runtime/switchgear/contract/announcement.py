"""What an instance says of itself: its capabilities, its load, what it runs, and whether it drains."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

from switchgear.contract import limits
from switchgear.contract.values import Digest, Labels, Retry, Text, Time, Token


class CronTrigger(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Starts a task at each time that a cron expression names."""

    expression: str
    """Five fields: minute, hour, day of month, month, day of week."""
    input: Raw = field(default_factory=lambda: Raw(b"null"))  # a plain default has no JSON Schema
    """Of each task."""
    timezone: str = "UTC"
    missed: Literal["latest", "all", "skip"] = "latest"
    """What becomes of the times at which no coordinator ran."""
    overlap: Literal["skip", "queue", "cancel"] = "skip"
    """What becomes of a time at which the task before is still open."""


class TopicTrigger(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Starts a task for each message of a topic."""

    topic: Token
    durable: bool = True


class Offer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One capability as an instance offers it."""

    name: Token
    version: str
    """The agent's version, `major.minor.patch`."""
    pool: Token
    """Instances of one pool are interchangeable: same agent, version, schemas and labels."""
    input_digest: Digest
    """Of the canonical JSON of `input_schema`."""
    output_digest: Digest
    input_schema: dict[str, Any]
    """JSON Schema 2020-12 of the input; coordinators check submissions against it."""
    output_schema: dict[str, Any]
    description: Text = ""
    concurrency: Annotated[int, Meta(ge=1)] = 4
    """Tasks of this capability that one instance runs at a time."""
    timeout: timedelta | None = None
    """Bound of one attempt; None for none."""
    retry: Retry = Retry()
    calls: tuple[str, ...] = ()
    """Capabilities that its handler may call."""
    cleanup: timedelta = limits.CLEANUP
    """Time to undo after a cancel or deadline."""
    crons: tuple[CronTrigger, ...] = ()
    topics: tuple[TopicTrigger, ...] = ()


class Running(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that the instance runs."""

    task: Token
    owner: Token
    capability: Token
    since: Time
    ack: str = ""
    """Ack subject of the delivery that it holds: lets a coordinator hand it on after a crash."""


class BreakerState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One breaker of the instance, as it stands. Breakers are local: other instances have their own."""

    dependency: str
    """What it guards, such as `dagger` or `registry:docker.io`."""
    state: Literal["closed", "open", "half-open", "forced-open", "disabled"]
    since: Time
    until: Time | None = None
    """When an open one lets probes through."""
    failure_rate: float = 0.0
    """Share of the window's calls that failed, 0 to 1."""
    slow_rate: float = 0.0
    """Share of the window's calls that were slow."""
    calls: int = 0
    """Calls in the window; of a half-open one its probes so far."""
    opened: int = 0
    """How often it opened by itself since the instance started."""
    why: Text = ""
    """Why it is in this state."""
    forced_by: str = ""
    """Who holds it in its state; empty for nobody."""
    forced_at: Time | None = None
    forced_why: Text = ""
    busy: int = 0
    """Calls that go on now."""
    waiting: int = 0
    """Calls that wait for a place."""


class Announcement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Published on start, on change and every 10 s, with a TTL of 30 s; deleted on leaving (rule 15)."""

    v: Literal[1]
    agent: Token
    instance: Token
    version: str
    started: Time
    time: Time
    """The instance's clock when it announced."""
    offers: tuple[Offer, ...]
    labels: Labels = {}
    running: tuple[Running, ...] = ()
    """Tasks that have run for longer than 0.3 s."""
    busy: dict[Token, int] = {}
    """Occupied slots by capability."""
    draining: bool = False
    host: str = ""
    process: int = 0
    """Process id on that host."""
    sdk: str = ""
    """Name and version of the library that announces."""
    breakers: tuple[BreakerState, ...] = ()
    """Those that are not closed come first; at most 64."""
