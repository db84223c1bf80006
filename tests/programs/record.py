"""What really happened: executions, acknowledged submissions, results seen, faults; what the checkers judge by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec import Struct

from tests.programs.program import Program


class Execution(Struct, frozen=True):
    """A step, an undo or a handler began on some instance."""

    what: Literal["handler", "step", "undo"]
    task: str
    key: str
    fence: int
    at: float
    """Seconds since 1970, by the true clock."""
    attempt: int = 0
    instance: str = ""


class Submission(Struct, frozen=True):
    """A root task that the broker acknowledged to its client."""

    task: str
    capability: str
    owner: str
    program: Program
    deadline: float | None = None
    cancelled: bool = False
    """Somebody asked for its end."""


class Seen(Struct, frozen=True):
    """An end that a client was told."""

    task: str
    state: str
    value: int | None = None


class Outage(NamedTuple):
    """A server was killed and started again; seconds since 1970, by the true clock."""

    began: float
    ended: float


@dataclass
class Recording:
    """One run of a mesh."""

    executions: list[Execution] = field(default_factory=list[Execution])
    submissions: list[Submission] = field(default_factory=list[Submission])
    seen: list[Seen] = field(default_factory=list[Seen])
    faults: dict[str, int] = field(default_factory=dict[str, int])
    """Kind -> how often it was injected."""
    outages: list[Outage] = field(default_factory=list[Outage])
    """Of real servers; the simulation counts its restarts among the faults."""

    def fault(self, kind: str) -> None:
        """Count an injected fault."""
        self.faults[kind] = self.faults.get(kind, 0) + 1

    @property
    def injected(self) -> int:
        """All faults of the run."""
        return sum(self.faults.values())
