"""The ledger's room: what is new is refused before it is full, and a full one is let grow so that tasks can end.

One stream has no reserve by itself: a full one refuses the end of a running task like anything else (rule 19). So its
limit stands below what the disk allows, and a coordinator raises it for a while. What it was before is kept in a
document, so that a replica which dies meanwhile does not leave the higher limit as the usual one.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import msgspec

from switchgear.bus.port import Bus, Room
from switchgear.contract import codec, subjects
from switchgear.errors import ProtocolError, SwitchgearError, Unavailable
from switchgear.lifecycle import admission
from switchgear.loop import supervised

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=5)
TIGHT = 0.9
"""Part of the limit from which on new root tasks are rejected."""
FULL = 0.98
"""Part of the limit from which on it is raised, though nobody told of a refusal."""
STEP = 0.05
"""By what part of the usual limit it is raised at a time, and at most unless the settings say otherwise."""
RETRY = 30.0
"""Seconds after which a refused submission may be tried again: the janitor needs its time."""
_AT_ONCE = timedelta(milliseconds=250)


class Raised(msgspec.Struct, frozen=True):
    """The document: the limit was raised."""

    usual: int
    limit: int


def next_limit(room: Room, usual: int, hard: int, *, refused: bool) -> int:
    """The limit in bytes that the ledger should have now.

    `usual`: its limit without a raise; `hard`: the highest one; `refused`: it has just refused an entry.
    """
    if refused or room.used >= FULL * room.limit:
        return min(max(hard, room.limit), room.limit + max(1, int(STEP * usual)))
    return usual if room.used < TIGHT * usual else room.limit


class RoomWatch:
    """One replica's. `start`, then `stop`."""

    def __init__(self, bus: Bus, hard_limit: int | None = None) -> None:
        """`hard_limit`: bytes up to which the ledger may grow; None: a step beyond its usual limit."""
        self._bus = bus
        self._hard = hard_limit
        self.overload: admission.Refusal | None = None
        """Why nothing new is admitted now; None where it is."""
        self._refused = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then again and again."""
        await self._try()
        self._looking = asyncio.create_task(supervised("room", self._look_on), name="room")

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def note(self, error: BaseException) -> None:
        """An append has failed: if the ledger was full, look at once."""
        if isinstance(error, Unavailable) and error.full:
            self._refused.set()

    async def look(self, *, refused: bool = False) -> None:
        """See how full it is, and set its limit. Raises ServerUnfit (no room on the disk), Unavailable."""
        room = await self._bus.ledger.room()
        if not room.limit:
            self.overload = None
            return
        kept = await self._bus.documents.get(subjects.LEDGER_ROOM)
        usual = room.limit
        if kept is not None and kept.data is not None:
            raised = _raised(kept.data)
            if raised is not None and raised.usual <= room.limit <= raised.limit:
                usual = raised.usual
        share = room.used / usual
        detail = f"{share:.0%} of {usual} bytes"
        tight = share >= TIGHT
        self.overload = admission.refusal("SG1212", detail, retry_after=RETRY) if tight else None
        hard = self._hard or int(usual * (1 + STEP))
        wanted = next_limit(room, usual, hard, refused=refused)
        if wanted == room.limit:
            return
        log.warning("coordinator.ledger-limit %d -> %d (%s)", room.limit, wanted, detail)
        if wanted > usual:  # written down first: a replica may die in between
            document = codec.encode(Raised(usual, wanted))
            await self._bus.documents.put(subjects.LEDGER_ROOM, document)
        await self._bus.ledger.enlarge(wanted)
        if wanted == usual:
            await self._bus.documents.remove(subjects.LEDGER_ROOM)

    async def _look_on(self) -> None:
        while True:
            refused = False
            try:
                async with asyncio.timeout(LOOK_EVERY.total_seconds()):
                    refused = await self._refused.wait()
            except TimeoutError:
                pass
            self._refused.clear()
            await self._try(refused=refused)
            if refused:
                await asyncio.sleep(_AT_ONCE.total_seconds())

    async def _try(self, *, refused: bool = False) -> None:
        try:
            await self.look(refused=refused)
        except SwitchgearError as error:
            log.warning("coordinator.room-unknown %s", error)


def _raised(data: bytes) -> Raised | None:
    try:
        return codec.decode(data, Raised)
    except ProtocolError:
        return None
