"""How other tasks stand: whether a child, a parent or a task before another has ended."""

from __future__ import annotations

from typing import Literal

from switchgear.bus.port import Ledger
from switchgear.contract import subjects
from switchgear.contract.stored import Stored, expectation
from switchgear.contract.values import State
from switchgear.coordinator import reading
from switchgear.coordinator.recent import Recent

KEPT = 50_000
"""Ended tasks that are remembered."""

Ending = State | Literal["missing", "remnant"]
"""How a task ended. `missing`: nothing was submitted under its id; `remnant`: it ended long ago."""

_CLIENTS = frozenset({"signalled", "cancel-requested"})
"""What somebody may try to append behind an end."""


class Endings:
    """Looks whether tasks have ended; what it knows to have ended costs no further read."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ended: Recent[str, Ending] = Recent(KEPT)

    async def of(self, scope: str) -> Ending | None:
        """How the task of this scope has ended; None while it is open. Raises Unavailable.

        One read of its newest entry; only where that speaks of an end, its history is read and believed.
        """
        known = self._ended.get(scope)
        if known is not None:
            return known
        newest = await self._ledger.leader_tail(scope)
        if newest is None:
            return "missing"
        if not _tells_an_end(newest, scope):
            return None
        history = await reading.history_up_to(self._ledger, scope, newest)
        if not history.remnant and history.position == "none":
            return "missing"
        ended: Ending | None = "remnant" if history.remnant else history.ended
        if ended is not None:
            self._ended.put(scope, ended)
        return ended

    def clear(self) -> None:
        """Forget all: a broker that was away may have lost its newest entries."""
        self._ended.clear()


def _tells_an_end(newest: Stored, scope: str) -> bool:
    """Whether the task may have ended: by an end, or by an entry that may be void and stand behind one."""
    event = newest.subject[len(scope) - 1 :]
    if event in subjects.TERMINAL or event in _CLIENTS:
        return True
    return expectation(newest.headers, scope) is None
