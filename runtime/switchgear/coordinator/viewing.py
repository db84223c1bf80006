"""What a coordinator sees when it decides about a task: read only where the decision depends on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import entries, subjects
from switchgear.coordinator import schemas
from switchgear.coordinator.children import Children
from switchgear.coordinator.endings import Endings
from switchgear.coordinator.reading import Histories, Waits
from switchgear.errors import NotFound, ProtocolError
from switchgear.lifecycle import admission, suspension
from switchgear.lifecycle.coordination import Decision, View
from switchgear.lifecycle.history import History
from switchgear.registry.watch import RegistryWatch
from switchgear.resilience.budget import RetryBudget
from switchgear.tasks import payload

log = logging.getLogger(__name__)


class Occasion(NamedTuple):
    """What led to a task."""

    due: str = ""
    """Kind of the timer or wake; `now` for somebody's order; empty for an entry."""
    rechecks: int = 0
    """Re-checks so far, as the timer tells."""
    at: datetime | None = None
    """When the broker stored what led here: the time of the decision, whatever the own clock says (rule 11)."""
    lost: int = 0
    """The dispatch at this sequence cannot be pulled: place the task anew, if it is the live one."""


ENTRY = Occasion()
"""An entry of the task was consumed."""


class Viewing:
    """Makes the views of all tasks, on one replica."""

    def __init__(self, bus: Bus, clock: Clock, registry: RegistryWatch) -> None:
        self.histories = Histories(bus.ledger)
        self.endings = Endings(bus.ledger)
        self.children = Children(self.endings)
        self.waits = Waits(bus.blobs)
        self.overload: Callable[[History], admission.Refusal | None] = _welcome
        """Why a new task is not admitted now."""
        self._blobs = bus.blobs
        self._clock = clock
        self._registry = registry
        self._budget = RetryBudget()
        bus.on_reconnect(self._forget)

    def now(self, occasion: Occasion = ENTRY) -> datetime:
        """The time of the decision."""
        return self._clock.now() if occasion.at is None else occasion.at

    def fresh(self, history: History) -> View:
        """Of a plain submission: reads nothing."""
        submission = history.submitted
        data = bytes(submission.input) if submission is not None else b"null"
        return self._basic(history, ENTRY, data)

    async def of(self, history: History, occasion: Occasion) -> View:
        """Of any task. Raises Unavailable."""
        view = self._basic(history, occasion, await self._input(history))
        if not history.is_open:
            return view
        submission, waiting = history.submitted, history.waiting
        if submission is not None and not history.attempt:
            view = await self._queue(history, submission, view)
        if history.position != "waiting" or waiting is None:
            return self._budgeted(history, view)
        waits = await self.waits.of(waiting)
        if suspension.waits_children(waits):
            self.histories.keep(history)
            conditions = await self.children.conditions(history, waits)
            return view._replace(waits=waits, children=conditions)
        return self._budgeted(history, view._replace(waits=waits))

    def decided(self, history: History, decision: Decision) -> None:
        """Count a dispatch, for the retries of its capability."""
        entry = decision.entry
        if not isinstance(entry, entries.Dispatched) or entry.undoing:
            return
        capability = history.capability
        if entry.attempt == 1:
            self._budget.deposit(capability, self._share(decision.subject, capability))
        elif _retries(history):
            self._budget.take(capability, _seconds())

    def _basic(self, history: History, occasion: Occasion, data: bytes | None) -> View:
        table = self._registry.table
        capability = history.capability
        return View(
            pools=table.pools(capability),
            check=schemas.check,
            input=data,
            due=occasion.due,
            rechecks=occasion.rechecks,
            last_offered=table.last_offered(capability),
            lane_gone=occasion.lost > 0,
            settling_until=table.settling_until and table.is_settling(self.now(occasion)),
            overload=None if history.attempt else self.overload(history),
        )

    async def _queue(self, history: History, submission: entries.Submitted, view: View) -> View:
        """What holds a task back that has not run yet."""
        parent = history.parent
        if parent is not None and not submission.detached:
            # A parent that is not in this ledger is nobody's end.
            end = await self.endings.of(parent)
            view = view._replace(parent_ended=end is not None and end != "missing")
        if submission.after is not None:
            before = subjects.scope(history.capability, history.owner, submission.after)
            view = view._replace(before_open=await self.endings.of(before) is None)
        return view

    async def _input(self, history: History) -> bytes | None:
        """The submission's input, fetched only where it will be checked; None where its blob is not there."""
        submission = history.submitted
        if submission is None or history.attempt or history.ended:
            return b"null"
        try:
            return await payload.load(self._blobs, submission.input, submission.input_blob)
        except (NotFound, ProtocolError) as error:
            log.warning("coordinator.input-missing %s: %s", history.scope, error)
            return None

    def _budgeted(self, history: History, view: View) -> View:
        if not _retries(history) or view.due == "now":
            return view
        wait: timedelta | None = self._budget.wait(history.capability, _seconds())
        return view._replace(over_budget=wait)

    def _share(self, subject: str, capability: str) -> float:
        """Retries that a first dispatch to this pool allows."""
        name = subject.rsplit(".", 2)[1]
        pools = self._registry.table.pools(capability)
        return next((pool.offer.retry.budget for pool in pools if pool.offer.pool == name), 0.0)

    def _forget(self) -> None:
        self.histories.clear()
        self.endings.clear()
        self.children.clear()


def _retries(history: History) -> bool:
    """Whether a dispatch of the task now would repeat a failed attempt."""
    return history.failed_time is not None and history.position in ("failed", "waiting")


def _seconds() -> float:
    return asyncio.get_running_loop().time()


def _welcome(_history: History) -> None:
    """Everybody is admitted."""
