"""What must be true of every decision of a coordinator, told from the task's entries alone, not from its fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from switchgear.contract import entries
from switchgear.contract.values import Awaited
from switchgear.lifecycle import retrying
from switchgear.lifecycle.coordination import Decision, View
from switchgear.lifecycle.history import History
from tests.unit.lifecycle.script import TASK


def over(
    waits: tuple[Awaited, ...],
    signals: list[str],
    children: Mapping[str, str],
    now: datetime,
) -> bool:
    """Whether any wait is over that goes on alone, or all or a failed one of those that go on together."""
    left = list(signals)
    groups: dict[str, list[str]] = {}
    for wait in waits:
        late = wait.until is not None and wait.until <= now
        if wait.kind == "timer":
            how = "done" if late else "open"
        elif wait.kind == "signal" and wait.signal in left:
            left.remove(wait.signal)
            how = "done"
        else:
            how = children.get(wait.key, "open") if wait.kind == "child" else "open"
            how = "failed" if how == "open" and late else how
        groups.setdefault(wait.together or f"only {wait.key}", []).append(how)
    return any("failed" in group or "open" not in group for group in groups.values())


@dataclass
class Judge:
    """Keeps what the checks need of the entries that count."""

    start: datetime | None = None
    deadline: datetime | None = None
    waiting: entries.Waiting | None = None
    failed: entries.AttemptFailed | None = None
    failed_at: datetime | None = None
    failures: int = 0
    retry: object = None
    signals: dict[int, str] = field(default_factory=dict[int, str])
    undo_begun: bool = False
    """The holder said that the undos begin, or an undo run was dispatched: the handler is over."""
    undo_over: bool = False
    """The attempt failed after that."""
    undo_runs: int = 0
    undo_failed: bool = False
    """An undo run ended as a failure."""
    cancelled_at: datetime | None = None
    dispatch: entries.Dispatched | None = None
    clean_from: datetime | None = None

    def stored(self, entry: entries.Entry, sequence: int, now: datetime) -> None:
        """Take in an entry that counts."""
        if isinstance(entry, entries.Submitted):
            self.start, self.deadline = entry.start, entry.deadline
        elif isinstance(entry, entries.Dispatched):
            self.waiting = self.failed = None
            self.dispatch = entry
            self.undo_runs += entry.undoing
            if self.cancelled_at is not None:
                self.clean_from = now
        elif isinstance(entry, entries.Waiting):
            self.waiting = entry
        elif isinstance(entry, entries.AttemptFailed):
            self.failed, self.failed_at = entry, now
            self.failures += 1
            self.undo_over = self.undo_over or self.undo_begun
            self.undo_failed = self.dispatch is not None and self.dispatch.undoing
        elif isinstance(entry, entries.CancelRequested):
            if self.cancelled_at is None:
                self.cancelled_at = self.clean_from = now
        elif isinstance(entry, entries.Signalled):
            self.signals[sequence] = entry.name
        elif isinstance(entry, entries.Checkpoint):
            self.signals.pop(entry.signal, None)
            self.undo_begun = self.undo_begun or (
                entry.kind == "undo-begun" and entry.error is not None
            )

    def decided(self, decision: Decision, history: History, view: View, now: datetime) -> None:
        """Check one decision."""
        entry = decision.entry
        if isinstance(entry, entries.Dispatched):
            if entry.undoing:
                self._may_undo(history)
            else:
                self._may_start(view, now)
                self._may_retry(view, now)
                self._may_resume(view, now)
        elif isinstance(entry, entries.Dead | entries.Cancelled | entries.Expired):
            self._may_end(entry, history, now)

    def _may_undo(self, history: History) -> None:
        """Only what failed for good or is cancelled, and once, but that its lane or its slot may be lost."""
        assert history.undos or (self.dispatch is not None and self.dispatch.undoing)
        assert not self.undo_failed
        if self.cancelled_at is None and not (self.dispatch is not None and self.dispatch.undoing):
            assert self.failed is not None
            retry = history.dispatched.retry if history.dispatched is not None else None
            assert retry is not None
            final = retrying.why_final(self.failed.error, retry, self.failures)
            assert final or self.undo_over or self.deadline is not None

    def _may_start(self, view: View, now: datetime) -> None:
        """Nothing starts after its deadline, before its time or turn, or once its undos are over."""
        assert self.cancelled_at is None
        assert self.deadline is None or now < self.deadline
        assert not self.undo_over
        assert self.undo_runs == 0
        if self.dispatch is None:
            forced = view.due == "now"
            assert forced or self.start is None or self.start <= now or self._was_forced()
            assert not view.before_open

    def _was_forced(self) -> bool:
        return self.waiting is not None and self.waiting.reason in ("capacity", "turn")

    def _may_retry(self, view: View, now: datetime) -> None:
        """Not before its pause is over, nor beyond the budget; an operator may overrule both."""
        if self.failed is None or view.due == "now":
            return
        assert self.failed_at is not None
        assert self.dispatch is not None
        assert view.over_budget is None
        assert not retrying.why_final(self.failed.error, self.dispatch.retry, self.failures)
        if self.waiting is None or self.waiting.reason == "retry":
            pause = retrying.pause(self.failed.error, self.dispatch.retry, TASK, self.failures)
            assert now >= self.failed_at + pause

    def _may_resume(self, view: View, now: datetime) -> None:
        """A suspended handler goes on when what it waits for is over; one that names nothing, at its time."""
        waiting = self.waiting
        if waiting is None or waiting.reason not in ("timer", "signal", "child"):
            return
        if waiting.waits:
            assert over(waiting.waits, list(self.signals.values()), view.children, now)
        elif waiting.until is not None:
            assert waiting.until <= now

    def _may_end(
        self,
        entry: entries.Dead | entries.Cancelled | entries.Expired,
        history: History,
        now: datetime,
    ) -> None:
        """With undos left only after they were tried or their time was up; and then it says so."""
        if not history.undos:
            return
        assert entry.status.reason.startswith(f"{history.undos} undos were not run")
        if isinstance(entry, entries.Dead):
            assert self.undo_failed
            return
        assert self.clean_from is not None
        assert self.dispatch is not None
        late = now >= self.clean_from + self.dispatch.cleanup + timedelta(seconds=1)
        assert late or self.undo_failed
