"""Why a task is where it is: the history and the live table, told in sentences."""

from __future__ import annotations

from switchgear.contract import entries
from switchgear.contract.queries import Explanation
from switchgear.lifecycle.history import History
from switchgear.registry.table import Table


def explain(history: History, table: Table, runner: str = "") -> Explanation:
    """What a person who asks "why is it not running" needs to know; `runner` announces to run it."""
    return Explanation(
        task=history.task,
        capability=history.capability,
        state=history.state,
        sentences=tuple(_sentences(history, table, runner)),
        route=history.dispatched.route if history.dispatched else None,
        voids=tuple(f"entry {void.stored.sequence}: {void.reason}" for void in history.voids),
    )


def _sentences(history: History, table: Table, runner: str) -> list[str]:
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
    told.extend(_now(history, table, runner))
    return told


def _now(history: History, table: Table, runner: str) -> list[str]:
    if history.ended is not None:
        return [_ended(history)]
    if history.position == "waiting" and history.waiting is not None:
        return [_waiting(history, history.waiting, table)]
    if history.position == "held":
        return [_held(history, table, runner)]
    if history.position == "loose":
        return ["Handed back by its holder; its lane offers it to the next free instance."]
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


def _waiting(history: History, waiting: entries.Waiting, table: Table) -> str:
    if waiting.reason != "capacity":
        until = f" until {waiting.until:%H:%M:%S} UTC" if waiting.until else ""
        return f"Waiting for {waiting.reason}{until}."
    pools = table.pools(history.capability)
    if pools:
        return f"Waiting: {waiting.detail}."
    last = table.last_offered(history.capability)
    if last:
        return f"Waiting: nobody offers {history.capability} (last offered by {last})."
    return f"Waiting: {waiting.detail}."


def _held(history: History, table: Table, runner: str) -> str:
    if runner:
        return f"Running on {runner}."
    if history.holder:
        return f"Running on {history.holder}."
    pool = next(
        (one for one in table.pools(history.capability) if one.offer.pool == history.pool), None
    )
    if pool is None:
        return f"In the lane of {history.pool}, whose instances are gone."
    if not pool.free:
        return f"In the lane of {history.pool}: all {pool.slots} slots are busy."
    return f"In the lane of {history.pool}: {pool.free} of {pool.slots} slots are free."
