"""The protocol's rules 1 and 8 once more, in as few lines as they need: the judge of what the fold says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

ENDS = {"rejected", "completed", "dead", "cancelled", "expired"}
ALWAYS = {"signalled", "cancel-requested", "cancelled", "expired"}
COORDINATORS = {
    "queued": {"dispatched", "waiting", "rejected"},
    "held": {"dispatched", "waiting"},
    "loose": {"dispatched", "waiting"},
    "failed": {"dispatched", "waiting", "dead", "rejected"},
    "waiting": {"dispatched", "waiting", "dead", "rejected"},
}
HOLDERS = {"checkpoint", "waiting", "released", "attempt-failed", "completed"}
HOLDERS_CANCELLING = {"checkpoint", "released", "cancelled", "expired"}


class Truth(NamedTuple):
    """What really happened at an append, whatever its bytes claim."""

    sequence: int
    event: str
    expected: int | None
    """What the broker checked; None where it checked nothing, or a foreign scope."""
    readable: bool = True
    hold: int = 0
    writer: str = ""
    attempt: int = 0
    detail: str = ""
    """Of a `waiting` and a cancel the reason, of a checkpoint the kind."""
    key: str = ""
    """Of a checkpoint."""
    failed: bool = False
    """Of a checkpoint: whether it carries a failure."""


@dataclass
class Model:
    """A task as its truths make it."""

    where: str = "none"
    cancelling: str = ""
    ended: str = ""
    runnable: bool = True
    valid: int = 0
    hold: int = 0
    holder: str | None = None
    live: int = 0
    attempt: int = 0
    failures: int = 0
    undos: list[str] = field(default_factory=list[str])
    """Keys of the open ones, oldest first."""
    undone: bool = False
    """Undos have begun: the handler is not run again."""
    voids: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    attempts: list[int] = field(default_factory=list[int])

    @property
    def state(self) -> str:
        """As people read it."""
        return self.ended or ("cancelling" if self.cancelling else self.where)

    def counts(self, truth: Truth) -> bool:
        """Whether the entry is valid."""
        if truth.expected is None or truth.expected < self.valid or self.ended:
            return False
        if self.where == "none" or truth.event == "submitted":
            return self.where == "none" and truth.event == "submitted"
        if not truth.readable:
            return False
        if truth.event == "taken-over" or truth.hold:
            return self._agent_may(truth)
        return truth.event in ALWAYS or self._coordinator_may(truth)

    def _coordinator_may(self, truth: Truth) -> bool:
        event = truth.event
        if event == "dispatched" and truth.attempt != self.attempt + 1:
            return False
        if self.cancelling:
            unheld = self.where not in ("held", "loose")
            return event == "dispatched" and unheld and bool(self.undos) and self.runnable
        if event in ("dispatched", "waiting") and not self.runnable:
            return False
        if event == "waiting" and self.where == "queued":
            return truth.detail in ("capacity", "start", "turn")
        if event == "rejected" and self.attempt:
            return False
        return event in COORDINATORS[self.where]

    def _agent_may(self, truth: Truth) -> bool:
        if self.where not in ("held", "loose") or truth.hold != self.hold:
            return False
        if truth.event == "taken-over":
            return True
        if self.where == "loose" or self.holder not in (None, truth.writer):
            return False
        if truth.event == "expired" and self.cancelling != "deadline":
            return False
        return truth.event in (HOLDERS_CANCELLING if self.cancelling else HOLDERS)

    def take(self, truth: Truth) -> bool:
        """Take it in. Returns whether it counts."""
        if not self.counts(truth):
            self.voids.append(truth.sequence)
            return False
        self.valid = truth.sequence
        if truth.event in ENDS:
            self.ended = truth.event
            self.ends.append(truth.sequence)
            self.live = 0
        elif truth.event == "submitted":
            self.where, self.runnable = "queued", truth.readable
        elif truth.event == "cancel-requested":
            self.cancelling = self.cancelling or truth.detail
        elif truth.event == "dispatched":
            self.where, self.holder, self.attempt = "held", None, truth.attempt
            self.hold = self.live = truth.sequence
            self.attempts.append(truth.attempt)
        elif truth.event in ("waiting", "attempt-failed"):
            self.where = "waiting" if truth.event == "waiting" else "failed"
            self.failures += truth.event == "attempt-failed"
            self.hold, self.holder, self.live = 0, None, 0
        elif truth.event != "signalled":
            self._held_on(truth)
        return True

    def _held_on(self, truth: Truth) -> None:
        self.holder = truth.writer
        if truth.event == "taken-over":
            self.where, self.hold = "held", truth.sequence
        elif truth.event == "released":
            self.where = "loose"
        if truth.event != "checkpoint":
            return
        if truth.detail == "undo-registered" and truth.key not in self.undos:
            self.undos.append(truth.key)
        elif truth.detail in ("undo-done", "undo-dropped") and truth.key in self.undos:
            self.undos.remove(truth.key)
        elif truth.detail == "undo-begun":
            self.undone = truth.failed
