"""Why a task is where it is: the history and the live table, told in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from switchgear.contract import entries
from switchgear.contract.queries import Explanation
from switchgear.contract.values import Awaited
from switchgear.lifecycle.history import History
from switchgear.lifecycle.signalling import Groups
from switchgear.lifecycle.suspension import refuses
from switchgear.registry.table import Table
from switchgear.tasks import events

_SHOWN = 5
"""Waits of one task that are told one by one."""
_LATE = timedelta(seconds=2)
"""How long after its time a retry is dispatched at the latest, if nothing holds it back."""


class Known(NamedTuple):
    """What the explaining replica knows beside the history."""

    runner: str = ""
    """The instance that announces that it runs the task."""
    waits: tuple[Awaited, ...] = ()
    """What the suspended handler waits for."""
    ended: Mapping[str, int] = MappingProxyType({})
    """By key of a wait for children: how many of them have ended, as far as is known."""
    groups: Groups = MappingProxyType({})
    now: datetime | None = None


NOTHING = Known()


def explain(history: History, table: Table, known: Known = NOTHING) -> Explanation:
    """What a person who asks "why is it not running" needs to know."""
    return Explanation(
        task=history.task,
        capability=history.capability,
        state=history.state,
        sentences=tuple(_sentences(history, table, known)),
        route=history.dispatched.route if history.dispatched else None,
        voids=tuple(f"entry {void.stored.sequence}: {void.reason}" for void in history.voids),
    )


def _sentences(history: History, table: Table, known: Known) -> list[str]:
    if history.remnant:
        return ["Its oldest entries were deleted by retention; it ended long ago."]
    told: list[str] = []
    stored = history.submitted_stored
    if stored is not None:
        told.append(f"Submitted at {stored.time:%H:%M:%S} UTC by {history.owner}.")
    if history.dispatched is not None:
        told.append(
            f"Attempt {history.attempt} was routed to {history.pool}: "
            f"{history.dispatched.route.reason}."
        )
    if history.failure is not None:
        error = history.failure.error
        told.append(f"Attempts failed: {history.failures}; last: {error.code} {error.message}.")
    if history.cancelling is not None and history.ended is None:
        told.append(f"It is being cancelled: {history.cancelling.reason or 'no reason given'}.")
    told.extend(_now(history, table, known))
    return told


def _now(history: History, table: Table, known: Known) -> list[str]:
    if history.ended is not None:
        return [_ended(history)]
    if history.position == "waiting" and history.waiting is not None:
        return _waiting(history, history.waiting, table, known)
    if history.position == "held" and (runner := known.runner or history.holder):
        return [f"Running on {runner}."]
    if history.position == "held":
        return [_in_lane(history, table), *_breakers(history, table)]
    if history.position == "loose":
        handed = "Handed back by its holder; its lane offers it to the next free instance."
        return [handed, *_breakers(history, table)]
    if history.position == "queued":
        return ["A coordinator has not placed it yet."]
    if history.position == "failed":
        return ["A coordinator decides whether it is tried again."]
    return ["Nothing valid was ever submitted under this id."]


def _ended(history: History) -> str:
    end = history.end
    if isinstance(end, entries.Rejected):
        return f"Rejected: {end.code} {end.reason}. Fix: {end.fix or 'see the code'}."
    if isinstance(end, entries.Dead):
        return f"Dead: {end.reason}."
    return f"Ended: {history.ended}."


def _waiting(history: History, waiting: entries.Waiting, table: Table, known: Known) -> list[str]:
    if waiting.reason == "capacity":
        return [_no_capacity(history, waiting, table)]
    until = f"{waiting.until:%Y-%m-%d %H:%M:%S} UTC" if waiting.until else "a wake"
    if waiting.reason == "start":
        return [f"Waiting for its start at {until}."]
    if waiting.reason == "turn":
        after = history.submitted.after if history.submitted else None
        return [f"Waiting for its turn: it comes after task {after}."]
    if waiting.reason == "retry":
        attempts = _attempts(history)
        if (
            waiting.until is not None
            and known.now is not None
            and known.now > waiting.until + _LATE
        ):
            turns = f"retries of {history.capability} are over their budget, and take turns"
            return [f"It was to be tried again at {until}, {attempts}: {turns}."]
        return [f"Waiting to be tried again at {until}: {attempts}."]
    told = [_awaited(wait, history, known) for wait in known.waits[:_SHOWN]]
    more = len(known.waits) - len(told)
    if more > 0:
        told.append(f"And for {more} more.")
    return told or [f"Suspended: waiting for {waiting.reason} until {until}."]


def _no_capacity(history: History, waiting: entries.Waiting, table: Table) -> str:
    if table.pools(history.capability):
        return f"Waiting: {waiting.detail}."
    last = table.last_offered(history.capability)
    if last:
        return f"Waiting: nobody offers {history.capability} (last offered by {last})."
    return f"Waiting: {waiting.detail}."


def _attempts(history: History) -> str:
    failed, dispatched = history.failure, history.dispatched
    if failed is None or dispatched is None:
        return "an attempt failed"
    most = dispatched.retry.of(failed.error.error_class).max_attempts
    return f"attempt {history.failures + 1} of {most}, after {history.failures} failed"


def _awaited(wait: Awaited, history: History, known: Known) -> str:
    limit = f", until {wait.until:%Y-%m-%d %H:%M:%S} UTC" if wait.until else ""
    if wait.kind == "timer":
        return f"Sleeping ({wait.key}){limit}."
    if wait.kind == "child":
        return f"Suspended: waiting for its child {wait.capability} {wait.task}{limit}."
    if wait.kind == "children":
        still = wait.count - known.ended.get(wait.key, 0)
        return (
            f"Suspended: waiting for its children, at most {still} of {wait.count} "
            f"{wait.capability} are open{limit}."
        )
    return _signal(wait, history, known, limit)


def _signal(wait: Awaited, history: History, known: Known, limit: str) -> str:
    question = f' "{wait.question}"' if wait.question else ""
    if not wait.sender:
        who = f"{history.owner} may answer"
    else:
        members = ", ".join(sorted(known.groups.get(wait.sender, ())))
        who = f"{wait.sender} may answer ({members or 'nobody is in that group'})"
    refused = _refused(wait, history)
    return f"Suspended: waiting for the signal {wait.signal}{question}; {who}{limit}.{refused}"


def _refused(wait: Awaited, history: History) -> str:
    """What is wrong with the newest signal that this wait refused."""
    for _, _, entry in reversed(history.valid):
        if isinstance(entry, entries.Checkpoint) and entry.key == wait.key and refuses(entry):
            return f" It {events.of_refusal(entry)}"
    return ""


def _in_lane(history: History, table: Table) -> str:
    pool = next(
        (one for one in table.pools(history.capability) if one.offer.pool == history.pool), None
    )
    if pool is None:
        return f"In the lane of {history.pool}, whose instances are gone."
    if not pool.free:
        return f"In the lane of {history.pool}: all {pool.slots} slots are busy."
    return f"In the lane of {history.pool}: {pool.free} of {pool.slots} slots are free."


def _breakers(history: History, table: Table) -> list[str]:
    """Which breakers keep the instances of its pool from calls: they pull no task that needs one."""
    found = [
        f"{breaker.dependency} on {one.instance} ({breaker.state})"
        for one in (instance.announcement for instance in table.instances.values())
        if any((it.name, it.pool) == (history.capability, history.pool) for it in one.offers)
        for breaker in one.breakers
        if breaker.state in ("open", "half-open", "forced-open")
    ]
    if not found:
        return []
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    told = f"Breakers there that are not closed: {', '.join(found[:_SHOWN])}{more}."
    return [f"{told} What needs them is not pulled: `switchgear breaker ls`."]
