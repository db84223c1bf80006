"""A run as it is watched: its tasks by id, fed by ledger entries and progress reports. Pure.

Above: `following` feeds it, `render.tree` draws it. What it shows is for the eye; results are read elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from switchgear.contract import subjects
from switchgear.contract.entries import Submitted
from switchgear.errors import ProtocolError
from switchgear.lifecycle.history import History
from switchgear.tasks import events

if TYPE_CHECKING:
    from switchgear.contract.queries import Progress
    from switchgear.contract.stored import Stored
    from switchgear.lifecycle.history import Valid
    from switchgear.tasks.events import TaskEvent


@dataclass(slots=True)
class Node:
    """One task of the run."""

    id: str
    capability: str
    parent: str
    submitted: datetime
    state: str = "queued"
    """Of the ledger; `running` from the first sign of its handler on."""
    attempt: int = 0
    agent: str = ""
    """The instance that runs it, once known."""
    fraction: float | None = None
    message: str = ""
    ended: datetime | None = None


@dataclass(slots=True)
class Seen:
    """Something that happened in the run."""

    node: Node
    event: TaskEvent


@dataclass(slots=True)
class RunTree:
    """All tasks of one run, in the order of their submission."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    _histories: dict[str, History] = field(default_factory=dict[str, History])

    @property
    def start(self) -> datetime | None:
        """When the root was submitted."""
        node = self.nodes.get(self.root)
        return node.submitted if node else None

    @property
    def ended(self) -> bool:
        """Whether the root's end was seen."""
        node = self.nodes.get(self.root)
        return node is not None and node.ended is not None

    def children(self, parent: str) -> list[Node]:
        """The tasks that this one submitted."""
        return [node for node in self.nodes.values() if node.parent == parent]

    def entry(self, stored: Stored) -> Seen | None:
        """Take a ledger entry in; None when it is of another run, or void."""
        try:
            subject = subjects.parse_task(stored.subject)
        except ProtocolError:
            return None
        history = self._histories.setdefault(subject.task, History(subject.scope))
        known = len(history.valid)
        if history.add(stored) or len(history.valid) == known:
            return None
        valid = history.valid[-1]
        node = self.nodes.get(subject.task)
        if node is None:
            node = self._opened(valid)
            if node is None:
                return None
        _apply(node, valid, history.state)
        return Seen(node, events.of_entry(valid))

    def report(self, report: Progress) -> Seen | None:
        """Take a progress report in; None when it is of another run, comes after the end, or says nothing new."""
        node = self.nodes.get(report.task)
        if node is None or node.ended is not None:
            return None
        node.state = "running"
        node.agent = report.writer or node.agent
        before = (node.fraction, node.message)
        node.fraction = report.fraction
        node.message = report.message
        return (
            None
            if before == (node.fraction, node.message)
            else Seen(node, events.of_progress(report))
        )

    def _opened(self, valid: Valid) -> Node | None:
        entry, subject = valid.entry, valid.subject
        if not isinstance(entry, Submitted) or self.root not in (subject.task, entry.root):
            return None
        parent = entry.parent.task if entry.parent else ""
        node = Node(subject.task, subject.capability, parent, valid.stored.time)
        self.nodes[subject.task] = node
        return node


def _apply(node: Node, valid: Valid, state: str) -> None:
    event = valid.subject.event
    node.attempt = valid.entry.status.attempt or node.attempt
    if event == "dispatched":
        node.state, node.agent, node.fraction = "dispatched", "", None
        return
    if getattr(valid.entry, "hold", 0):
        node.agent = valid.entry.writer
    if event in subjects.TERMINAL:
        node.state, node.ended = event, valid.stored.time
        node.fraction = 1.0 if event == "completed" else node.fraction
        if event != "completed":
            node.message = events.detail(valid)
    elif event in ("checkpoint", "taken-over"):
        node.state = "running"
    else:
        node.state = state
        node.message = events.detail(valid) or node.message
