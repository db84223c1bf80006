"""What consumers have before them, where they begin, and their end."""

from __future__ import annotations

import asyncio

import pytest

from switchgear.bus.port import Appended, Backlog, Bus, Delivery, Source
from switchgear.contract import subjects
from switchgear.errors import NotFound, UsageError
from tests.conformance.support import MakeBus, Names, Received
from tests.patience import PATIENCE


async def dispatched(bus: Bus, names: Names, *tasks: str) -> list[int]:
    """Work items of this test's lane; returns their sequences."""
    found: list[int] = []
    for task in tasks:
        scope = names.scope(task)
        subject = subjects.dispatched(scope, "p", "normal")
        outcome = await bus.ledger.append(subject, task.encode(), scope=scope, expect=0)
        assert isinstance(outcome, Appended)
        found.append(outcome.sequence)
    return found


async def reaches(bus: Bus, name: str, pending: int, unsettled: int) -> Backlog:
    """Wait until the broker tells these numbers."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await bus.work.backlog(name)
            assert found is not None
            if (pending, unsettled) == found[:2]:
                return found


async def fetched(bus: Bus, lane: str, count: int) -> list[Delivery]:
    """So many deliveries."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await bus.work.fetch(lane, count - len(found))
    return found


def data(deliveries: list[Delivery]) -> list[bytes]:
    """What they carry."""
    return [delivery.stored.data for delivery in deliveries]


async def test_backlog_counts_what_waits_and_what_is_held(bus: Bus, names: Names) -> None:
    lane = names.lane()
    await bus.work.ensure_lane(names.capability, "p", "normal")
    assert (await reaches(bus, lane, 0, 0)).floor >= 0
    sequences = await dispatched(bus, names, "a", "b", "c", "d")
    await reaches(bus, lane, 4, 0)
    assert (await reaches(bus, lane, 4, 0)).reached < sequences[0]
    first, second, third = await fetched(bus, lane, 3)
    assert (await reaches(bus, lane, 1, 3)).floor < sequences[0]
    second.ack()
    assert (await reaches(bus, lane, 1, 2)).floor < sequences[0]
    assert sequences[2] <= (await reaches(bus, lane, 1, 2)).reached < sequences[3]
    first.ack()
    assert sequences[1] <= (await reaches(bus, lane, 1, 1)).floor < sequences[2]
    third.term()
    assert sequences[2] <= (await reaches(bus, lane, 1, 0)).floor < sequences[3]
    (fourth,) = await fetched(bus, lane, 1)
    fourth.ack()
    assert (await reaches(bus, lane, 0, 0)).floor >= sequences[3]
    assert (await reaches(bus, lane, 0, 0)).reached >= sequences[3]


async def test_delivery_that_was_given_back_is_still_unsettled(bus: Bus, names: Names) -> None:
    lane = names.lane()
    await bus.work.ensure_lane(names.capability, "p", "normal")
    (sequence,) = await dispatched(bus, names, "a")
    (delivery,) = await fetched(bus, lane, 1)
    delivery.nak()
    assert (await reaches(bus, lane, 0, 1)).floor < sequence


async def test_deleted_entry_leaves_the_backlog(bus: Bus, names: Names) -> None:
    """Whether it waited or was held."""
    lane = names.lane()
    await bus.work.ensure_lane(names.capability, "p", "normal")
    sequences = await dispatched(bus, names, "a", "b", "c")
    await fetched(bus, lane, 1)
    await reaches(bus, lane, 2, 1)
    await bus.ledger.delete(sequences[0])
    await bus.ledger.delete(sequences[2])
    await reaches(bus, lane, 1, 0)
    assert data(await fetched(bus, lane, 1)) == [b"b"]


@pytest.mark.parametrize("source", ["ledger", "timers", "topics"])
async def test_consumer_that_is_not_there_has_no_backlog(
    bus: Bus, names: Names, source: Source
) -> None:
    """And its removal is no error."""
    assert await bus.work.backlog(names.lane(), source=source) is None
    await bus.work.remove(names.lane(), source=source)


async def test_backlog_is_that_of_the_source(bus: Bus, names: Names) -> None:
    """A name is a consumer's of one stream only."""
    name = f"one={names.owner}"
    await bus.work.ensure_intake(name, [subjects.topic(names.capability)], source="topics")
    assert await bus.work.backlog(name) is None
    assert await bus.work.backlog(name, source="topics") is not None


async def test_removed_lane_is_gone(make_bus: MakeBus, names: Names) -> None:
    """Another of its name begins anew: what was acked comes again."""
    one, two = await make_bus("a"), await make_bus("b")
    lane = names.lane()
    await one.work.ensure_lane(names.capability, "p", "normal")
    await dispatched(one, names, "a")
    (delivery,) = await fetched(two, lane, 1)
    delivery.ack()
    await reaches(one, lane, 0, 0)
    await one.work.remove(lane)
    assert await one.work.backlog(lane) is None
    assert lane not in await one.work.lanes()
    with pytest.raises(NotFound):
        await two.work.fetch(lane, 1)
    await one.work.ensure_lane(names.capability, "p", "normal")
    (again,) = await fetched(two, lane, 1)
    assert (again.stored.data, again.deliveries) == (b"a", 1)


async def test_removed_intake_is_not_made_again_by_who_removed_it(bus: Bus, names: Names) -> None:
    """Though it is consumed; who consumes it goes on with the next one of its name."""
    name = f"one={names.owner}"
    submitted = f"sg.task.{names.capability}.*.*.submitted"
    await bus.work.ensure_intake(name, [submitted])
    heard = Received[Delivery]()
    consuming = bus.work.consume(name, heard, in_flight=1)
    scope = names.scope("a")
    await bus.ledger.append(f"{scope[:-1]}submitted", b"a", scope=scope, expect=0)
    (held,) = await heard.reach(1)
    await bus.work.remove(name)
    assert await bus.work.backlog(name) is None
    held.ack()
    await bus.work.ensure_intake(name, [submitted])
    await heard.reach(2)
    assert data(heard.items) == [b"a", b"a"]
    await consuming.end()


async def test_lane_begins_at_its_start(bus: Bus, names: Names) -> None:
    sequences = await dispatched(bus, names, "a", "b", "c")
    await bus.work.ensure_lane(names.capability, "p", "normal", start=sequences[1])
    assert (await reaches(bus, names.lane(), 2, 0)).floor < sequences[1]
    assert data(await fetched(bus, names.lane(), 2)) == [b"b", b"c"]


async def test_lane_that_begins_in_the_future_gets_what_comes(bus: Bus, names: Names) -> None:
    await dispatched(bus, names, "a")
    start = await bus.ledger.last_sequence() + 1
    await bus.work.ensure_lane(names.capability, "p", "normal", start=start)
    await dispatched(bus, names, "b")
    assert data(await fetched(bus, names.lane(), 1)) == [b"b"]


async def test_consumer_that_is_there_keeps_its_place(bus: Bus, names: Names) -> None:
    """Whatever start another replica asks for."""
    sequences = await dispatched(bus, names, "a", "b", "c")
    lane = names.lane()
    await bus.work.ensure_lane(names.capability, "p", "normal", start=sequences[1])
    (delivery,) = await fetched(bus, lane, 1)
    delivery.ack()
    await reaches(bus, lane, 1, 0)
    for start in (sequences[0], sequences[2], None):
        await bus.work.ensure_lane(names.capability, "p", "normal", start=start)
    assert data(await fetched(bus, lane, 1)) == [b"c"]


async def test_intake_begins_at_its_start(bus: Bus, names: Names) -> None:
    """Several filters, and other settings given to it later, leave the beginning alone."""
    sequences = await dispatched(bus, names, "a", "b", "c")
    name = f"one={names.owner}"
    mine = f"sg.task.{names.capability}.*.*.dispatched.p"
    await bus.work.ensure_intake(name, [f"{mine}.high", f"{mine}.normal"], start=sequences[2])
    await bus.work.ensure_intake(name, [f"{mine}.normal", f"{mine}.low"])
    heard = Received[Delivery]()
    consuming = bus.work.consume(name, heard, in_flight=5)
    await heard.reach(1)
    assert data(heard.items) == [b"c"]
    await consuming.end()


async def test_intake_of_the_timers_has_no_start(bus: Bus, names: Names) -> None:
    """All that is there is to be done."""
    due = [f"sg.due.{names.capability}.>"]
    with pytest.raises(UsageError):
        await bus.work.ensure_intake(f"due={names.owner}", due, source="timers", start=1)
