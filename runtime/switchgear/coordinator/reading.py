"""Histories as coordinators read them: backwards, along what the broker checked.

Each entry's header names the entry before it in the scope, and the broker refused it otherwise: unlike `prev`,
which is only its writer's claim. An entry without that proof ends the walk; then the whole scope is read.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from switchgear.bus.port import Blobs, Ledger
from switchgear.contract import codec, entries, limits
from switchgear.contract.stored import Stored, expectation
from switchgear.contract.values import Awaited
from switchgear.coordinator.recent import Recent
from switchgear.errors import NotFound, ProtocolError
from switchgear.lifecycle.history import History, fold

log = logging.getLogger(__name__)

MAX_STEPS = 64
"""Entries read one by one before reading the scope as a whole is cheaper."""
MAX_KEPT = 64 << 20
"""Bytes of the histories that are kept to be read on from."""
MAX_LISTS = 64
"""Lists of waits, fetched from the object store, that are kept."""


async def history_up_to(ledger: Ledger, scope: str, newest: Stored) -> History:
    """The history of the scope up to this entry. Raises Unavailable."""
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
    """The history of the scope as the stream's leader has it now. Raises Unavailable."""
    newest = await ledger.leader_tail(scope)
    return History(scope) if newest is None else await history_up_to(ledger, scope, newest)


class Histories:
    """Reads histories; those that were kept cost one read each, as long as the task stands still.

    A history that was handed out is never changed: what comes later is added to a copy.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kept: Recent[str, tuple[History, Stored]] = Recent(MAX_KEPT, _weight)

    async def now(self, scope: str) -> History:
        """The history as the stream's leader has it now. Raises Unavailable."""
        newest = await self._ledger.leader_tail(scope)
        return History(scope) if newest is None else await self.up_to(scope, newest)

    async def up_to(self, scope: str, newest: Stored) -> History:
        """The history up to this entry, or further where more is known already. Raises Unavailable."""
        kept = self._kept.get(scope)
        if kept is None:
            return await history_up_to(self._ledger, scope, newest)
        history, last = kept
        if newest.sequence < last.sequence:
            return history
        if newest[:3] == last[:3]:
            return history
        if expectation(newest.headers, scope) == history.last:
            longer = _copy(history)
            longer.add(newest)
            self._kept.put(scope, (longer, newest))
            return longer
        self._kept.drop(scope)
        return await history_up_to(self._ledger, scope, newest)

    def keep(self, history: History) -> None:
        """Keep this one: it will be asked for again soon."""
        if history.valid and history.valid[-1].stored.sequence == history.last:
            self._kept.put(history.scope, (history, history.valid[-1].stored))

    def clear(self) -> None:
        """Forget all: a broker that was away may have lost its newest entries."""
        self._kept.clear()


class Waits:
    """What suspended handlers wait for; long lists are in the object store."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._fetched: Recent[str, tuple[Awaited, ...]] = Recent(MAX_LISTS)

    async def of(self, waiting: entries.Waiting | None) -> tuple[Awaited, ...]:
        """The waits of this entry; none where their blob is missing or damaged. Raises Unavailable."""
        if waiting is None:
            return ()
        blob = waiting.waits_blob
        if blob is None:
            return waiting.waits
        found = self._fetched.get(blob.digest)
        if found is None:
            try:
                data = await self._blobs.get(blob.digest)
                found = codec.decode(data, tuple[Awaited, ...], limit=limits.MAX_BLOB)
            except (NotFound, ProtocolError) as error:
                log.warning("coordinator.waits-missing %s: %s", waiting.task, error)
                return ()
            self._fetched.put(blob.digest, found)
        return found


def _copy(history: History) -> History:
    return replace(
        history,
        open_undos=dict(history.open_undos),
        valid=list(history.valid),
        voids=list(history.voids),
    )


def _weight(kept: tuple[History, Stored]) -> int:
    return sum(len(valid.stored.data) for valid in kept[0].valid)
