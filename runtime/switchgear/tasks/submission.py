"""Submitting: the opening entry of a task, and what a refusal of it means (rule 5)."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

from switchgear.bus.port import Appended, Bus, Refused
from switchgear.clock import nanoseconds
from switchgear.contract import codec, entries, subjects
from switchgear.contract.stored import Stored
from switchgear.contract.values import Parent, Retry, Status
from switchgear.errors import Conflict
from switchgear.lifecycle.history import Valid, fold
from switchgear.tasks.payload import Payload


class Options(NamedTuple):
    """How a task shall be treated."""

    version: str = "*"
    priority: str = "normal"
    deadline: datetime | None = None
    deadline_in: timedelta | None = None
    """The deadline as it was asked for, when relative: what makes a repeated submission the same."""
    labels: dict[str, str] = {}  # noqa: RUF012  # a NamedTuple's default; nobody writes to it
    retry: Retry | None = None
    require_agent: bool = False
    start: datetime | None = None
    start_in: timedelta | None = None
    """The start as it was asked for, when relative."""
    redrives: str | None = None
    """The dead task of which this is another try."""


class Lineage(NamedTuple):
    """Where a child stands in its run."""

    root: str = ""
    parent: Parent | None = None
    depth: int = 0
    trace: str | None = None


class Opening(NamedTuple):
    """A submission, ready to be appended."""

    scope: str
    subject: str
    body: bytes
    entry: entries.Submitted
    parts: subjects.TaskSubject

    def acknowledged(self, sequence: int) -> Valid:
        """The submission as the ledger holds it; its store time is the writer's, near enough for a watcher."""
        stored = Stored(self.subject, sequence, nanoseconds(self.entry.time), b"", self.body)
        return Valid(stored, self.parts, self.entry)


NO_OPTIONS = Options()
ROOT = Lineage()
_FIRST = Options._fields.index("start")
"""How many options the first release had."""


def opening(
    capability: str,
    owner: str,
    task: str,
    payload: Payload,
    *,
    entry_id: str,
    writer: str,
    now: datetime,
    options: Options = NO_OPTIONS,
    lineage: Lineage = ROOT,
) -> Opening:
    """The `submitted` entry of a new task. Raises ProtocolError SG1107 for names that are no tokens."""
    subjects.token(capability, "capability")
    subjects.token(owner, "owner")
    scope = subjects.scope(capability, owner, task)
    entry = entries.Submitted(
        v=entries.VERSION,
        id=entry_id,
        task=task,
        time=now,
        writer=writer,
        status=Status(state="queued", submitted_at=now),
        trace=lineage.trace,
        input=payload.inline,
        input_blob=payload.blob,
        digest=_digest(capability, payload, options),
        version=options.version,
        priority=options.priority,
        deadline=options.deadline,
        labels=options.labels,
        retry=options.retry,
        require_agent=options.require_agent,
        start=options.start,
        redrives=options.redrives,
        root=lineage.root,
        parent=lineage.parent,
        depth=lineage.depth,
    )
    parts = subjects.TaskSubject(capability, owner, task, "submitted")
    return Opening(
        scope, subjects.task_event(scope, "submitted"), codec.encode(entry), entry, parts
    )


def _digest(capability: str, payload: Payload, options: Options) -> str:
    """What makes two submissions the same: capability, input and options."""
    content = payload.blob.digest if payload.blob else payload.inline
    if options.deadline_in is not None:
        options = options._replace(deadline=None)
    if options.start_in is not None:
        options = options._replace(start=None)
    # Options that came later count where they are used: digests of older releases stay what they were.
    later = options[_FIRST:]
    asked = options if later != NO_OPTIONS[_FIRST:] else options[:_FIRST]
    return hashlib.sha256(codec.canonical((capability, content, asked))).hexdigest()


async def confirm(bus: Bus, opened: Opening, answer: Appended | Refused) -> None:
    """Make sure that the submission stands, whatever the broker answered to its append.

    A refusal is success when the stored submission has the same digest. Raises Conflict otherwise.
    """
    while isinstance(answer, Refused):
        history = fold(opened.scope, await bus.ledger.history(opened.scope))
        if history.landed(opened.entry.id):
            return
        if history.submitted is not None and history.submitted.digest == opened.entry.digest:
            return
        if history.position != "none" or history.remnant:
            raise Conflict(
                f"task {opened.entry.task} exists with a different submission",
                why="its key was used before for another input or other options",
            )
        answer = await bus.ledger.append(
            opened.subject, opened.body, scope=opened.scope, expect=history.last
        )
