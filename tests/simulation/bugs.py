"""Bugs that can be planted one by one, to prove that the checkers see them.

Each replaces one decision of the runtime by a wrong one, as a careless change would.
"""

# Bugs replace what nobody else may touch.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from switchgear import ids
from switchgear.agent import attempt as attempts
from switchgear.agent import receiving
from switchgear.contract import limits
from switchgear.coordinator import sweep
from switchgear.lifecycle import (
    coordination,
    holding,
    recording,
    retrying,
    suspension,
    writing,
)
from switchgear.lifecycle.coordination import Decision, Stamp, View
from switchgear.lifecycle.history import History
from tests.simulation import chaos

Plant = Callable[[], None]


class Bug(NamedTuple):
    """A change for the worse."""

    plant: Plant
    seed: int
    """One that sees it soon; others do as well, should the runtime have changed since."""


BUGS: dict[str, Bug] = {}


def plant(name: str) -> None:
    """Switch a bug on in this process, and in those that it forks."""
    BUGS[name].plant()


def _bug(seed: int) -> Callable[[Plant], Plant]:
    def take(plant_it: Plant) -> Plant:
        BUGS[plant_it.__name__.replace("_", "-")] = Bug(plant_it, seed)
        return plant_it

    return take


def _decide_with(change: Callable[[History, View, Stamp], tuple[View, Stamp]]) -> None:
    """Let every decision be made on a changed view."""
    right = coordination.decide

    def wrong(history: History, view: View, stamp: Stamp) -> Decision:
        return right(history, *change(history, view, stamp))

    coordination.decide = wrong


@_bug(7)
def ack_before_append() -> None:
    """An agent acks what it received before anything of it is in the ledger; nothing sweeps, which would heal it."""
    right = receiving.Receiving.receive

    async def wrong(self: Any, delivery: Any, *given: Any, **more: Any) -> Any:
        found = await right(self, delivery, *given, **more)
        if found is not None:
            delivery.ack()
        return found

    receiving.Receiving.receive = wrong

    async def idle(self: Any) -> int:
        del self
        return 0

    sweep.Sweep.sweep = idle


@_bug(1)
def no_compare_and_set() -> None:
    """Appends expect whatever is there."""
    right = chaos.ChaosLedger.append

    def wrong(self: Any, subject: str, body: bytes, *, scope: str, expect: int) -> Any:
        del expect
        newest = self._broker.ledger.newest(scope)
        return right(self, subject, body, scope=scope, expect=newest.sequence if newest else 0)

    chaos.ChaosLedger.append = wrong


@_bug(2)
def checkpoint_ignored() -> None:
    """A re-run does not look at what was recorded."""
    right = recording.records

    def wrong(*given: Any, **more: Any) -> recording.Records:
        return right(*given, **more)._replace(ends={})

    recording.records = wrong


@_bug(3)
def timer_trusted_blindly() -> None:
    """A due timer is believed, whatever the time is."""

    def change(history: History, view: View, stamp: Stamp) -> tuple[View, Stamp]:
        until = history.waiting.until if history.waiting is not None else None
        if view.due in ("retry", "wait") and until is not None:
            return view, stamp._replace(now=max(stamp.now, until))
        return view, stamp

    _decide_with(change)


@_bug(9)
def no_fencing() -> None:
    """A refused holder appends again, whoever holds the task now."""
    right = holding.after_refusal

    def wrong(history: History, entry_id: str, hold: int, instance: str) -> holding.After:
        after = right(history, entry_id, hold, instance)
        return holding.After("again", history.last) if after.act == "lost" else after

    holding.after_refusal = wrong


@_bug(4)
def retried_for_ever() -> None:
    """No failure is final."""
    retrying.why_final = lambda error, retry, failures: ""  # noqa: ARG005


@_bug(1)
def retried_at_once() -> None:
    """No pause before the next attempt."""
    retrying.pause = lambda error, retry, task, failures: timedelta()  # noqa: ARG005


@_bug(2)
def dead_delivery_runs() -> None:
    """A delivery that is not live is run instead of acked."""
    right = holding.begin

    def wrong(*given: Any, **more: Any) -> holding.Begin:
        begin = right(*given, **more)
        return holding.Begin("run") if begin.act == "ack" else begin

    holding.begin = wrong


@_bug(49)
def redelivery_runs_blindly() -> None:
    """Every delivery is taken for a fresh one."""
    holding.receive = lambda stored, scope, deliveries, now: holding.Fresh.RUN  # noqa: ARG005


@_bug(7)
def take_over_without_entry() -> None:
    """The next holder begins without saying so in the ledger."""
    right = holding.begin

    def wrong(*given: Any, **more: Any) -> holding.Begin:
        begin = right(*given, **more)
        return holding.Begin("run") if begin.act == "take-over" else begin

    holding.begin = wrong


@_bug(5)
def children_forgotten() -> None:
    """A re-run starts its children anew."""
    right = ids.derived_id

    def wrong(*parts: str) -> str:
        return ids.new_id(0) if parts[0] == "child" else right(*parts)

    ids.derived_id = wrong


@_bug(1)
def signal_taken_twice() -> None:
    """A wait does not look whether another took the signal."""
    suspension.taken = lambda _: set()


@_bug(3)
def early_signal_forgotten() -> None:
    """A suspended handler is not resumed by a signal that came before its wait was stored."""
    right = suspension.met

    def wrong(history: History, waits: Any, children: Any, now: Any) -> str:
        return right(history, [one for one in waits if one.kind != "signal"], children, now)

    suspension.met = wrong


@_bug(1)
def undos_forgotten() -> None:
    """Nobody runs what was registered to be undone."""
    right = writing.dispatched

    def wrong(*given: Any, undoing: bool = False) -> Any:
        del undoing
        return right(*given)

    writing.dispatched = wrong
    right_history = History._checkpointed

    def blind(self: History, entry: Any) -> None:
        if entry.kind != "undo-registered":
            right_history(self, entry)

    History._checkpointed = blind


@_bug(26)
def poison_never_dies() -> None:
    """Crashes are not counted."""
    receiving.limits = _Limits(MAX_CRASHES=10**6)


@_bug(1)
def poison_dies_early() -> None:
    """One crash is enough."""
    receiving.limits = _Limits(MAX_CRASHES=0)


class _Limits:
    """The limits, with some of them wrong."""

    def __init__(self, **wrong: Any) -> None:
        self.__dict__.update(wrong)

    def __getattr__(self, name: str) -> Any:
        return getattr(limits, name)


@_bug(8)
def deadline_ignored() -> None:
    """Attempts begin after the deadline."""

    def late(history: History, stamp: Stamp) -> Decision:
        del history, stamp
        return Decision("never too late")

    coordination._past_deadline = late
    retrying.too_late = lambda at, deadline: ""  # noqa: ARG005


@_bug(2)
def unknown_outcome_repeated() -> None:
    """Who is refused sends its entry again without reading what was stored."""
    right = attempts.Attempt.read

    async def wrong(self: Any) -> History:
        history = await right(self)
        blind = History(history.scope)
        for stored in (one.stored for one in history.valid if one.entry.writer != self.bus.name):
            blind.add(stored)
        blind.last = history.last
        return blind

    attempts.Attempt.read = wrong
