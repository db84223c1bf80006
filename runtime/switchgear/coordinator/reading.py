"""Histories as coordinators read them: backwards, along what the broker checked.

Each entry's header names the entry before it in the scope, and the broker refused it otherwise: unlike `prev`,
which is only its writer's claim. An entry without that proof ends the walk; then the whole scope is read.
"""

from __future__ import annotations

from switchgear.bus.port import Ledger
from switchgear.contract.stored import Stored, expectation
from switchgear.lifecycle.history import History, fold

MAX_STEPS = 64
"""Entries read one by one before reading the scope as a whole is cheaper."""


async def history_up_to(ledger: Ledger, scope: str, newest: Stored) -> History:
    """The history of the scope up to this entry."""
    found = [newest]
    for _ in range(MAX_STEPS):
        expected = expectation(found[-1].headers, scope)
        if expected is None:
            break
        if expected == 0:
            return fold(scope, reversed(found))
        earlier = await ledger.entry(expected)
        if earlier is None or not earlier.subject.startswith(scope[:-1]):
            break
        found.append(earlier)
    stored = await ledger.history(scope)
    return fold(scope, (one for one in stored if one.sequence <= newest.sequence))


async def history_now(ledger: Ledger, scope: str) -> History:
    """The history of the scope as the stream's leader has it now."""
    newest = await ledger.leader_tail(scope)
    return History(scope) if newest is None else await history_up_to(ledger, scope, newest)
