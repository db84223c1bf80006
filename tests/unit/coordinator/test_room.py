"""The ledger's room: refusing what is new, and letting a full ledger grow so that tasks can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from switchgear.bus.port import Room
from switchgear.contract import codec, subjects
from switchgear.coordinator.room import Raised, RoomWatch, next_limit
from switchgear.errors import Unavailable
from switchgear.testing import virtual_time
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus

LIMIT = 100_000


@pytest.mark.parametrize(
    ("used", "limit", "refused", "wanted"),
    [
        (50_000, 100_000, False, 100_000),
        (95_000, 100_000, False, 100_000),
        (98_000, 100_000, False, 105_000),
        (80_000, 100_000, True, 105_000),
        (104_000, 105_000, True, 110_000),
        (109_900, 110_000, True, 110_000),
        (95_000, 110_000, False, 110_000),
        (89_000, 110_000, False, 100_000),
    ],
)
def test_limit_grows_while_full_and_falls_back_when_there_is_room(
    used: int, limit: int, *, refused: bool, wanted: int
) -> None:
    """In steps of 5 %, never beyond the hard limit; back at once when the usual limit has room again."""
    assert next_limit(Room(used, limit), 100_000, 110_000, refused=refused) == wanted


def test_hard_limit_below_the_usual_one_raises_nothing() -> None:
    """Nor does it lower: that is the operator's."""
    assert next_limit(Room(100_000, 100_000), 100_000, 50_000, refused=True) == 100_000


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    """On a small ledger, in virtual time."""
    time = virtual_time.of_running_loop()
    time.enter()
    clock = LoopClock()
    yield MemoryBus(MemoryBroker(clock=clock, ledger_max_bytes=LIMIT), "coordinator-1")
    time.leave()


async def fill(bus: MemoryBus, upto: int) -> list[int]:
    """Store entries until so many bytes are used. Returns their sequences."""
    stored: list[int] = []
    while (await bus.ledger.room()).used + 1200 <= upto:
        scope = subjects.scope("c", "o", f"t{await bus.ledger.last_sequence()}")
        subject = subjects.task_event(scope, "submitted")
        await bus.ledger.append(subject, bytes(900), scope=scope, expect=0)
        stored.append(await bus.ledger.last_sequence())
    return stored


async def test_new_tasks_are_refused_from_nine_tenths_on(bus: MemoryBus) -> None:
    """SG1212 with a time; and admitted again when there is room."""
    room = RoomWatch(bus)
    await room.start()
    assert room.overload is None
    stored = await fill(bus, int(0.93 * LIMIT))
    await asyncio.sleep(6)
    assert room.overload is not None
    assert (room.overload.code, room.overload.retry_after) == ("SG1212", 30)
    for sequence in stored[:20]:
        await bus.ledger.delete(sequence)
    await asyncio.sleep(6)
    assert room.overload is None
    await room.stop()


async def test_full_ledger_grows_at_once_and_shrinks_when_there_is_room(bus: MemoryBus) -> None:
    """By one step beyond its usual limit; what it was is written down as long as it is raised."""
    room = RoomWatch(bus)
    await room.start()
    stored = await fill(bus, LIMIT)
    room.note(Unavailable("full", full=True))
    await asyncio.sleep(0.1)
    assert (await bus.ledger.room()).limit == LIMIT * 1.05
    kept = await bus.documents.get(subjects.LEDGER_ROOM)
    assert kept is not None
    assert codec.decode(kept.data or b"", Raised) == Raised(LIMIT, 105_000)
    for sequence in stored[:40]:
        await bus.ledger.delete(sequence)
    await asyncio.sleep(6)
    assert (await bus.ledger.room()).limit == LIMIT
    assert await bus.documents.get(subjects.LEDGER_ROOM) is None
    await room.stop()


async def test_other_failures_are_no_reason_to_look(bus: MemoryBus) -> None:
    """A broker that is away is not full."""
    room = RoomWatch(bus)
    await room.start()
    await fill(bus, int(0.95 * LIMIT))
    room.note(Unavailable("nobody answers", retry_after=1))
    await asyncio.sleep(1)
    assert (await bus.ledger.room()).limit == LIMIT
    await room.stop()


@pytest.mark.parametrize("written", [(LIMIT, 110_000), (LIMIT, 105_000)])
async def test_raise_of_a_replica_that_died_is_not_the_usual_limit(
    bus: MemoryBus, written: tuple[int, int]
) -> None:
    """Whether it died before or after it raised the limit: the next one does not start from there."""
    await bus.documents.put(subjects.LEDGER_ROOM, codec.encode(Raised(*written)))
    await bus.ledger.enlarge(105_000)
    await fill(bus, 105_000)
    room = RoomWatch(bus)
    await room.look(refused=True)
    assert (await bus.ledger.room()).limit == 105_000
    assert room.overload is not None


async def test_limit_that_an_operator_set_is_the_usual_one(bus: MemoryBus) -> None:
    """What was written down about another limit counts no more."""
    await bus.documents.put(subjects.LEDGER_ROOM, codec.encode(Raised(50_000, 52_500)))
    room = RoomWatch(bus)
    await fill(bus, LIMIT)
    await room.look(refused=True)
    assert (await bus.ledger.room()).limit == LIMIT * 1.05
