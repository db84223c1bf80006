"""The blobs' janitor: what no entry names goes after a day, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from switchgear import crashpoint
from switchgear.contract import codec, subjects
from switchgear.contract.stored import expect_headers, header_block
from switchgear.contract.values import Blob
from switchgear.coordinator.blob_janitor import BlobJanitor
from switchgear.lifecycle import blob_names
from switchgear.testing import virtual_time
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from tests.unit.lifecycle import script

START = datetime.fromisoformat("2026-01-01T00:00:00Z")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PLACES = [(event, field) for event, fields in blob_names.FIELDS.items() for field in fields]


class Sometimes:
    """A lease that this replica holds, unless the test says otherwise."""

    def __init__(self) -> None:
        self.answer = True

    async def held(self) -> bool:
        return self.answer


class World:
    """A broker in memory, with blobs and entries that name them."""

    def __init__(self) -> None:
        self.clock = LoopClock(START)
        self.broker = MemoryBroker(clock=self.clock)
        self.bus = MemoryBus(self.broker, "coordinator-1")
        self.lease = Sometimes()

    def janitor(self, **more: Any) -> BlobJanitor:
        """A replica's, with the lease."""
        return BlobJanitor(self.bus, self.clock, self.lease, **more)

    async def put(self, text: str) -> str:
        return await self.bus.blobs.put(text.encode())

    def name(self, digest: str, event: str = "submitted", field: str = "input_blob") -> int:
        """Append an entry that names the blob, in a task of its own. Returns its sequence."""
        task = f"t{self.broker.ledger.last_sequence}"
        scope = subjects.scope("review", "alice", task)
        entry = script.entry(event, **{field: Blob(digest=digest, size=1)})
        subject = scope[:-1] + (event if event != "dispatched" else "dispatched.p1.normal")
        block = header_block(expect_headers(0, scope))
        self.broker.store(subject, block, codec.encode(msgspec.structs.replace(entry, task=task)))
        return self.broker.ledger.last_sequence

    @property
    def left(self) -> set[str]:
        """What is stored, as text."""
        return {data.decode() for data in self.broker.blobs.values()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """In virtual time."""
    time = virtual_time.of_running_loop()
    time.enter()
    yield World()
    time.leave()


async def after(wait: timedelta) -> None:
    await asyncio.sleep(wait.total_seconds())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, world: World) -> list[int]:
    """Where each read of the ledger began."""
    begun: list[int] = []
    follow = world.bus.ledger.follow

    def watched(after: int, **more: Any) -> Any:
        begun.append(after)
        return follow(after, **more)

    monkeypatch.setattr(world.bus.ledger, "follow", watched)
    return begun


async def test_blob_that_no_entry_names_goes_after_a_day(world: World) -> None:
    """A young one stays: an append may be about to name it."""
    await world.put("old")
    await after(HOUR)
    await world.put("young")
    await after(DAY - HOUR / 2)
    assert await world.janitor().clean() == 1
    assert world.left == {"young"}


@pytest.mark.parametrize(("event", "field"), PLACES)
async def test_blob_that_an_entry_names_stays_as_long_as_the_entry(
    world: World, event: str, field: str
) -> None:
    named = world.name(await world.put("named"), event, field)
    await after(2 * DAY)
    assert await world.janitor().clean() == 0
    world.broker.ledger.remove(named)
    await after(DAY)
    assert await world.janitor().clean() == 1
    assert world.left == set()


async def test_blob_stays_while_one_of_its_entries_does(world: World) -> None:
    digest = await world.put("shared")
    first = world.name(digest)
    world.name(digest, "completed", "output_blob")
    world.broker.ledger.remove(first)
    await after(2 * DAY)
    assert await world.janitor().clean() == 0
    assert world.left == {"shared"}


async def test_writer_that_finds_its_blob_half_a_day_old_puts_it_again(world: World) -> None:
    """So it has a day from then on for its append."""
    await world.put("used")
    await after(13 * HOUR)
    await world.put("used")
    await after(23 * HOUR)
    assert await world.janitor().clean() == 0
    assert world.left == {"used"}


async def test_blob_that_is_put_again_between_reading_and_deleting_survives(world: World) -> None:
    """Its new writer's entry comes behind what was read."""
    await world.put("back")
    await world.put("gone")
    await after(2 * DAY)
    janitor = world.janitor()
    put = world.bus.blobs.put
    remove = world.bus.blobs.remove

    async def late(digest: str, *, expect: int) -> bool:
        await put(b"back")
        return await remove(digest, expect=expect)

    world.bus.blobs.remove = late
    assert await janitor.clean() == 1
    assert world.left == {"back"}


async def test_ledger_is_read_once_a_day_at_most_whatever_replicas_come(
    world: World, reads: list[int]
) -> None:
    await world.put("one")
    await after(2 * DAY - 2 * HOUR)
    await world.put("two")
    await after(2 * HOUR)
    assert await world.janitor().clean() == 1
    await after(DAY - HOUR)
    other = BlobJanitor(MemoryBus(world.broker, "coordinator-2"), world.clock, world.lease)
    assert await other.clean() == 0
    assert await world.janitor().clean() == 0
    await after(2 * HOUR)
    assert await world.janitor().clean() == 1
    assert reads == [0, 0]


async def test_ledger_is_not_read_without_an_old_blob(world: World, reads: list[int]) -> None:
    world.name(await world.put("young"))
    await after(HOUR)
    await world.janitor().clean()
    assert reads == []


async def test_two_replicas_at_once_make_one_pass(world: World, reads: list[int]) -> None:
    await world.put("old")
    await after(2 * DAY)
    assert sum(await asyncio.gather(world.janitor().clean(), world.janitor().clean())) == 1
    assert reads == [0]


async def test_more_blobs_than_one_pass_holds_take_several_days(world: World) -> None:
    """Named ones at the front do not keep it from the rest."""
    for number in range(4):
        world.name(await world.put(f"named {number}"))
    for number in range(3):
        await world.put(f"old {number}")
    await after(2 * DAY)
    gone: list[int] = []
    for _ in range(4):
        gone.append(await world.janitor(most=3).clean())
        await after(DAY)
    assert gone == [0, 2, 1, 0]
    assert world.left == {f"named {number}" for number in range(4)}


@pytest.mark.parametrize(("point", "left"), [("blobs.marked", 3), ("blobs.deleted", 2)])
async def test_what_a_crash_leaves_undone_the_next_days_pass_does(
    world: World, point: str, left: int
) -> None:
    for number in range(3):
        await world.put(f"old {number}")
    kept = await world.put("kept")
    world.name(kept)
    await after(2 * DAY)

    class Killed(BaseException):
        pass

    def kill(reached: str) -> None:
        if reached == point:
            raise Killed

    crashpoint.hook = kill
    try:
        with pytest.raises(Killed):
            await world.janitor().clean()
    finally:
        crashpoint.hook = None
    assert len(world.left) == left + 1
    await after(DAY)
    assert await world.janitor().clean() == left
    assert world.left == {"kept"}


async def test_unreadable_claim_is_replaced_when_its_day_is_over(world: World) -> None:
    await world.put("old")
    await world.bus.documents.put(subjects.lease("blob-sweep"), b"garbage")
    await after(2 * DAY)
    assert await world.janitor().clean() == 1


async def test_clock_that_is_wrong_makes_no_blob_old(world: World) -> None:
    """Ages are by the broker's clock alone."""

    class Ahead:
        def now(self) -> datetime:
            return world.clock.now() + 3 * DAY

    await world.put("young")
    await after(HOUR)
    assert await BlobJanitor(world.bus, Ahead(), world.lease).clean() == 0
    assert world.left == {"young"}


async def test_it_works_by_itself_while_it_has_the_lease(world: World) -> None:
    """Without the lease it deletes nothing."""
    await world.put("old")
    world.lease.answer = False
    janitor = world.janitor()
    await janitor.start()
    await after(3 * DAY)
    assert world.left == {"old"}
    world.lease.answer = True
    await after(2 * HOUR)
    assert world.left == set()
    await world.put("next")
    await after(3 * DAY)
    assert world.left == set()
    await janitor.stop()
