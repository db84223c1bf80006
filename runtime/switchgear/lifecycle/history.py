"""A task's history: its entries folded by the state table, void ones skipped by one rule for all readers.

Every reader uses this fold: coordinators before they decide, agents after a refusal, clients before they
believe a result. Rule numbers are those of docs/reference/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from switchgear import ids
from switchgear.contract import codec, entries, subjects
from switchgear.contract.stored import Stored, expectation
from switchgear.contract.values import Failure, State
from switchgear.errors import ProtocolError
from switchgear.lifecycle.table import LEGAL, LEGAL_CANCELLING, Position, Role

_BEFORE_DISPATCH = ("capacity", "start", "turn")
"""What a task may wait for that has not been dispatched yet."""


@lru_cache(maxsize=64)
def _parts(scope: str) -> list[str]:
    """A scope's tokens, which a decision asks for again and again."""
    return scope.split(".")


class Valid(NamedTuple):
    """An entry that counts."""

    stored: Stored
    subject: subjects.TaskSubject
    entry: entries.Entry


class Void(NamedTuple):
    """An entry that counts for nothing, and why: a security event."""

    stored: Stored
    reason: str


@dataclass(slots=True)
class History:
    """What the entries of one scope say, up to the last one added. Add them in ledger order."""

    scope: str
    position: Position = "none"
    ended: State | None = None
    cancelling: entries.CancelRequested | None = None
    cancelling_since: datetime | None = None
    """Store time of the first cancel-requested."""
    last: int = 0
    """Sequence of the newest entry, void or not: what the next append expects."""
    last_valid: int = 0
    hold: int = 0
    """The sequence that fences: of `dispatched`, or of the newest `taken-over` (rule 8)."""
    holder: str | None = None
    """The instance of the hold; None until its first entry fixes it."""
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    """Take-overs after a crash, in this attempt (rule 9)."""
    open_undos: dict[str, entries.Checkpoint] = field(default_factory=dict[str, entries.Checkpoint])
    """Registered undos that have neither run nor been dropped, oldest first."""
    undoing: Failure | None = None
    """The final failure whose undos have begun: the handler is never run again."""
    remnant: bool = False
    """The scope's beginning was deleted by retention: nobody acts on it, its id counts as ended (rule 18)."""
    gap: bool = False
    """An entry builds on one that was not added: read the ledger before believing anything (rule 17)."""
    malformed: ProtocolError | None = None
    """Why the submission cannot be read; it is rejected with this."""
    submitted: entries.Submitted | None = None
    submitted_stored: Stored | None = None
    dispatched: entries.Dispatched | None = None
    dispatched_at: int = 0
    dispatched_time: datetime | None = None
    pool: str = ""
    waiting: entries.Waiting | None = None
    waiting_since: datetime | None = None
    failure: entries.AttemptFailed | None = None
    failed_time: datetime | None = None
    """When the newest attempt failed; None while it has not."""
    end: entries.Entry | None = None
    valid: list[Valid] = field(default_factory=list[Valid])
    voids: list[Void] = field(default_factory=list[Void])

    @property
    def task(self) -> str:
        """The task's id."""
        return _parts(self.scope)[4]

    @property
    def capability(self) -> str:
        """The capability that the task asks for."""
        return _parts(self.scope)[2]

    @property
    def owner(self) -> str:
        """The principal that the run is for."""
        return _parts(self.scope)[3]

    @property
    def state(self) -> State:
        """The state as people read it."""
        if self.ended:
            return self.ended
        return "cancelling" if self.cancelling else self.position

    @property
    def undos(self) -> int:
        """How many registered undos have neither run nor been dropped."""
        return len(self.open_undos)

    @property
    def parent(self) -> str | None:
        """The scope of the task that submitted this one; None for a root."""
        parent = self.submitted.parent if self.submitted is not None else None
        if parent is None:
            return None
        return subjects.scope(parent.capability, self.owner, parent.task)

    @property
    def is_open(self) -> bool:
        """Whether the task exists and has not ended."""
        return self.position != "none" and self.ended is None

    @property
    def live_dispatch(self) -> int:
        """Sequence of the `dispatched` that somebody must hold or pull; 0 for none (rule 4)."""
        return self.dispatched_at if self.ended is None and self._is_held else 0

    @property
    def _is_held(self) -> bool:
        return self.position in ("held", "loose")

    def begin(self, opening: Valid) -> None:
        """Take in a submission that the broker has acknowledged to its writer: nothing is left to check."""
        self._count(opening)
        self.last = opening.stored.sequence

    def add(self, stored: Stored, subject: subjects.TaskSubject | None = None) -> str:
        """Take the next entry in. Returns why it is void, or an empty text when it counts.

        `subject`: the parts of the entry's subject, where the caller has them.
        """
        if stored.sequence <= self.last:
            return "seen before"
        reason = self._take(stored, subject)
        self.last = stored.sequence
        if reason:
            self.voids.append(Void(stored, reason))
        return reason

    def landed(self, entry_id: str) -> int:
        """The sequence under which the entry with this id counts; 0 when it does not."""
        for valid in reversed(self.valid):
            if valid.entry.id == entry_id:
                return valid.stored.sequence
        return 0

    def _take(self, stored: Stored, subject: subjects.TaskSubject | None) -> str:
        expected = expectation(stored.headers, self.scope)
        if expected is None:
            return "it does not prove that it was appended with compare-and-set"
        if self.position == "none" and expected > self.last:
            self.remnant = True
        if self.remnant:
            return "the scope's beginning was deleted"
        if expected > self.last:
            self.gap = True
        if expected < self.last_valid:
            return f"it was written before entry {self.last_valid} was known"
        try:
            subject = subject or subjects.parse_task(stored.subject)
        except ProtocolError as error:
            return str(error)
        try:
            entry = codec.decode_entry(subject, stored.data)
        except ProtocolError as error:
            return self._unreadable(stored, subject, error)
        reason = self._illegal(subject, entry)
        if not reason:
            self._count(Valid(stored, subject, entry))
        return reason

    def _unreadable(
        self, stored: Stored, subject: subjects.TaskSubject, error: ProtocolError
    ) -> str:
        """A submission that cannot be read still opens its task, so that its sender hears a rejection."""
        if subject.event != "submitted" or self.position != "none":
            return str(error)
        self.position = "queued"
        self.malformed = error
        self.submitted_stored = stored
        self.last_valid = stored.sequence
        return ""

    def _role(self, event: str, entry: entries.Entry) -> Role:
        if event in ("submitted", "signalled", "cancel-requested"):
            return "client"
        if event == "taken-over":
            return "next holder"
        return "holder" if getattr(entry, "hold", 0) else "coordinator"

    def _illegal(self, subject: subjects.TaskSubject, entry: entries.Entry) -> str:
        """Rule 1 (c) and (d): why the table does not allow this entry here; empty when it does."""
        event = subject.event
        if self.ended:
            return f"the task had ended as {self.ended}"
        role = self._role(event, entry)
        table = LEGAL_CANCELLING if self.cancelling else LEGAL
        if (event, role) not in table[self.position]:
            return f"{event} by the {role} is not allowed in state {self.state}"
        if isinstance(entry, entries.Dispatched):
            return self._illegal_dispatch(entry)
        if role in ("holder", "next holder"):
            return self._illegal_hold(role, entry)
        if event == "waiting" and self.position == "queued":
            if self.malformed is not None:
                return "a submission that cannot be read is only rejected"
            admitted = isinstance(entry, entries.Waiting) and entry.reason in _BEFORE_DISPATCH
            return "" if admitted else "nothing has run yet that could wait"
        if event == "rejected" and self.attempt:
            return "the task was dispatched before"
        return ""

    def _illegal_dispatch(self, entry: entries.Dispatched) -> str:
        if self.malformed is not None:
            return "a submission that cannot be read is only rejected"
        if entry.attempt != self.attempt + 1:
            return f"attempt {entry.attempt} does not follow attempt {self.attempt}"
        if self.cancelling and not self.undos:
            return "nothing is to be undone"
        return ""

    def _illegal_hold(self, role: Role, entry: entries.Entry) -> str:
        hold: int = getattr(entry, "hold", 0)
        if hold != self.hold:
            return f"it names hold {hold}, the task is held by {self.hold}"
        if role == "holder" and self.holder not in (None, entry.writer):
            return f"{entry.writer} does not hold the task, {self.holder} does"
        token = self.dispatched.token if self.dispatched else None
        if token is not None and getattr(entry, "token_digest", None) != ids.digest(token.encode()):
            return "it does not carry the digest of the task's token"
        reason = self.cancelling.reason if self.cancelling else ""
        if isinstance(entry, entries.Expired) and reason != "deadline":
            return "the task was not cancelled by its deadline"
        return ""

    def _count(self, valid: Valid) -> None:
        """Take a valid entry's meaning in."""
        stored, subject, entry = valid
        self.valid.append(valid)
        self.last_valid = stored.sequence
        event = subject.event
        if event in subjects.TERMINAL:
            self.ended = event  # type: ignore[assignment]  # terminal events are states
            self.end = entry
        elif isinstance(entry, entries.Submitted):
            self.position = "queued"
            self.submitted, self.submitted_stored = entry, stored
        elif isinstance(entry, entries.Dispatched):
            self._hold_given(valid, entry)
        elif isinstance(entry, entries.CancelRequested):
            if self.cancelling is None:
                self.cancelling, self.cancelling_since = entry, stored.time
        elif isinstance(entry, entries.Waiting):
            self.position, self.hold, self.holder = "waiting", 0, None
            self.waiting, self.waiting_since = entry, stored.time
        elif isinstance(entry, entries.AgentEntry):
            self._agent_said(stored, entry)

    def _hold_given(self, valid: Valid, entry: entries.Dispatched) -> None:
        self.position = "held"
        self.hold = self.dispatched_at = valid.stored.sequence
        self.holder = None
        self.dispatched, self.pool = entry, valid.subject.pool
        self.dispatched_time = valid.stored.time
        self.attempt = entry.attempt
        self.crashes = 0
        self.waiting = self.failed_time = None

    def _agent_said(self, stored: Stored, entry: entries.AgentEntry) -> None:
        self.holder = entry.writer
        if isinstance(entry, entries.TakenOver):
            self.position, self.hold = "held", stored.sequence
            self.crashes += entry.how == "crash"
        elif isinstance(entry, entries.Released):
            self.position = "loose"
        elif isinstance(entry, entries.AttemptFailed):
            self.position, self.hold, self.holder = "failed", 0, None
            self.failure, self.failed_time = entry, stored.time
            self.failures += 1
        else:
            assert isinstance(entry, entries.Checkpoint)
            self._checkpointed(entry)

    def _checkpointed(self, entry: entries.Checkpoint) -> None:
        if entry.kind == "undo-registered":
            self.open_undos[entry.key] = entry
        elif entry.kind in ("undo-done", "undo-dropped"):
            self.open_undos.pop(entry.key, None)
        elif entry.kind == "undo-begun":
            self.undoing = entry.error


def fold(scope: str, stored: Iterable[Stored]) -> History:
    """The history that these entries of a scope tell, oldest first."""
    history = History(scope)
    for one in stored:
        history.add(one)
    return history
