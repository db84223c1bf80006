"""Lanes: what is there now, waiting pulls, and what becomes of a delivery."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.bus.port import Appended, Bus, Delivery
from switchgear.contract import subjects
from switchgear.contract.stored import expect_headers, header_block
from switchgear.errors import NotFound
from tests.conformance.support import MakeBus, Names, Received
from tests.patience import PATIENCE

SHORT = timedelta(milliseconds=800)
"""A lease that ends within a test."""
LONG = timedelta(seconds=60)
"""A delay that no test sees the end of."""


async def dispatch(bus: Bus, names: Names, *tasks: str, priority: str = "normal") -> list[int]:
    """Append a work item for each task; returns their sequences."""
    calls = [
        bus.ledger.append(
            subjects.dispatched(names.scope(task), "p", priority),
            task.encode(),
            scope=names.scope(task),
            expect=0,
        )
        for task in tasks
    ]
    outcomes = [await call for call in calls]
    return [outcome.sequence for outcome in outcomes if isinstance(outcome, Appended)]


async def take(bus: Bus, lane: str, count: int) -> list[Delivery]:
    """Fetch until so many have come: what was stored or settled is there a moment later."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await bus.work.fetch(lane, count - len(found))
    return found


async def take_any(bus: Bus, lane: str, batch: int) -> list[Delivery]:
    """Fetch until something is there; it may be less than the batch."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await bus.work.fetch(lane, batch)):
            continue
    return found


def data(deliveries: list[Delivery]) -> list[bytes]:
    """The bodies."""
    return [delivery.stored.data for delivery in deliveries]


@pytest.fixture
async def lane(bus: Bus, names: Names) -> str:
    """A lane of this test's capability."""
    await bus.work.ensure_lane(names.capability, "p", "normal")
    return names.lane()


async def test_fetch_gives_what_is_there_in_order(bus: Bus, names: Names, lane: str) -> None:
    """Messages come oldest first, up to the batch, each as its first delivery and as stored."""
    sequences = await dispatch(bus, names, "t1", "t2", "t3")
    got = await take(bus, lane, 2)
    assert data(got) == [b"t1", b"t2"]
    assert sequences[:2] == [delivery.stored.sequence for delivery in got]
    assert [delivery.deliveries for delivery in got] == [1, 1]
    assert header_block(expect_headers(0, names.scope("t1"))) == got[0].stored.headers
    assert await bus.ledger.entry(sequences[0]) == got[0].stored
    assert data(await take(bus, lane, 1)) == [b"t3"]


async def test_fetch_of_an_empty_lane_gives_nothing_at_once(bus: Bus, lane: str) -> None:
    """Nothing there is an empty list."""
    async with asyncio.timeout(PATIENCE):
        assert await bus.work.fetch(lane, 5) == []


async def test_fetch_from_a_missing_lane_is_not_found(bus: Bus, names: Names) -> None:
    """A lane that nobody created is an error that says so."""
    with pytest.raises(NotFound):
        await bus.work.fetch(names.lane("nowhere"), 1)


async def test_lane_created_later_has_what_was_stored_before(bus: Bus, names: Names) -> None:
    """A new lane begins with the first entry of the ledger."""
    await dispatch(bus, names, "t1")
    await bus.work.ensure_lane(names.capability, "p", "normal")
    assert data(await take(bus, names.lane(), 1)) == [b"t1"]


async def test_ensuring_a_lane_again_changes_nothing(bus: Bus, names: Names, lane: str) -> None:
    """What the lane has handed over stays handed over."""
    await dispatch(bus, names, "t1", "t2")
    assert data(await take(bus, lane, 1)) == [b"t1"]
    await bus.work.ensure_lane(names.capability, "p", "normal")
    assert data(await take_any(bus, lane, 5)) == [b"t2"]


async def test_lane_holds_its_own_priority_and_pool_only(bus: Bus, names: Names, lane: str) -> None:
    """Other lanes of the same capability keep their own work."""
    await bus.work.ensure_lane(names.capability, "p", "high")
    await dispatch(bus, names, "t1", priority="high")
    await dispatch(bus, names, "t2")
    assert data(await take_any(bus, lane, 5)) == [b"t2"]
    assert data(await take_any(bus, names.lane(priority="high"), 5)) == [b"t1"]


async def test_waiting_pull_receives_what_comes_later(bus: Bus, names: Names, lane: str) -> None:
    """A pull on an empty lane gets the next messages as they are stored."""
    got = Received[Delivery]()
    pulls = bus.work.wait([lane], 2, got)
    await dispatch(bus, names, "t1", "t2")
    assert data(await got.reach(2)) == [b"t1", b"t2"]
    await pulls.end()


async def test_waiting_pull_takes_no_more_than_its_batch(bus: Bus, names: Names, lane: str) -> None:
    """What a lane has beyond the batch stays for others."""
    got = Received[Delivery]()
    pulls = bus.work.wait([lane], 2, got)
    await dispatch(bus, names, "t1", "t2", "t3")
    await got.reach(2)
    assert data(await take_any(bus, lane, 5)) == [b"t3"]
    await pulls.end()
    assert data(got.items) == [b"t1", b"t2"]


async def test_waiting_pulls_cover_each_lane(bus: Bus, names: Names, lane: str) -> None:
    """One call waits on several lanes, a batch on each."""
    await bus.work.ensure_lane(names.capability, "p", "high")
    got = Received[Delivery]()
    pulls = bus.work.wait([names.lane(priority="high"), lane], 1, got)
    await dispatch(bus, names, "t1")
    await dispatch(bus, names, "t2", priority="high")
    assert sorted(data(await got.reach(2))) == [b"t1", b"t2"]
    await pulls.end()


async def test_waiting_pull_on_a_missing_lane_begins_with_its_creation(
    bus: Bus, names: Names
) -> None:
    """An instance may wait before any coordinator has created the lane."""
    got = Received[Delivery]()
    pulls = bus.work.wait([names.lane()], 1, got)
    await dispatch(bus, names, "t1")
    await bus.work.ensure_lane(names.capability, "p", "normal")
    assert data(await got.reach(1)) == [b"t1"]
    await pulls.end()


async def test_ended_pulls_have_received_all_that_they_were_sent(
    bus: Bus, names: Names, lane: str
) -> None:
    """What is stored while a pull ends is either received by then or still in the lane."""
    got = Received[Delivery]()
    pulls = bus.work.wait([lane], 10, got)
    await dispatch(bus, names, *[f"t{n}" for n in range(10)])
    await pulls.end()
    before = data(got.items)
    rest = data(await take(bus, lane, 10 - len(before)))
    assert [b"t%d" % n for n in range(10)] == before + rest
    assert before == data(got.items)


async def test_nothing_arrives_after_the_end(bus: Bus, names: Names, lane: str) -> None:
    """What is stored after the end goes to who asks then."""
    got = Received[Delivery]()
    pulls = bus.work.wait([lane], 5, got)
    await pulls.end()
    await dispatch(bus, names, "t1")
    assert data(await take_any(bus, lane, 5)) == [b"t1"]
    assert got.items == []


async def test_two_instances_share_a_lane(make_bus: MakeBus, names: Names) -> None:
    """Waiting pulls of two connections get each message once between them, and both get some."""
    one, two = await make_bus("bus-a"), await make_bus("bus-b")
    await one.work.ensure_lane(names.capability, "p", "normal")
    got_one, got_two = Received[Delivery](), Received[Delivery]()
    pulls = [
        one.work.wait([names.lane()], 5, got_one),
        two.work.wait([names.lane()], 5, got_two),
    ]
    tasks = [f"t{n}" for n in range(10)]
    await dispatch(one, names, *tasks)
    await asyncio.gather(got_one.reach(5), got_two.reach(5))
    for pull in pulls:
        await pull.end()
    assert sorted(tasks) == sorted(body.decode() for body in data(got_one.items + got_two.items))


async def test_acked_message_does_not_come_again(make_bus: MakeBus, names: Names) -> None:
    """After the lease only the unsettled one of two messages is redelivered."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    first, second = await take(bus, names.lane(), 2)
    first.ack()
    again = await take_any(bus, names.lane(), 5)
    assert [second.stored] == [delivery.stored for delivery in again]


async def test_unsettled_message_comes_again_after_its_lease(
    make_bus: MakeBus, names: Names
) -> None:
    """The same entry is handed to another connection, counted as its second delivery."""
    holder, other = (
        await make_bus("a", lane_ack_wait=SHORT),
        await make_bus("b", lane_ack_wait=SHORT),
    )
    await holder.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(holder, names, "t1")
    (first,) = await take(holder, names.lane(), 1)
    got = Received[Delivery]()
    pulls = other.work.wait([names.lane()], 1, got)
    (second,) = await got.reach(1)
    await pulls.end()
    assert (first.deliveries, second.deliveries) == (1, 2)
    assert first.stored == second.stored


async def test_nak_brings_a_message_back_at_once(bus: Bus, names: Names, lane: str) -> None:
    """A handed-back message is there again long before its lease ends, as the second delivery."""
    await dispatch(bus, names, "t1", "t2")
    (first,) = await take(bus, lane, 1)
    first.nak()
    got = await take(bus, lane, 2)
    assert sorted((delivery.stored.data, delivery.deliveries) for delivery in got) == [
        (b"t1", 2),
        (b"t2", 1),
    ]


async def test_delayed_nak_brings_a_message_back_after_the_delay(
    bus: Bus, names: Names, lane: str
) -> None:
    """Within the delay the lane has nothing; after it the message is there as second delivery."""
    await dispatch(bus, names, "t1")
    (first,) = await take(bus, lane, 1)
    first.nak(timedelta(seconds=1.5))
    assert await bus.work.fetch(lane, 1) == []
    (second,) = await take(bus, lane, 1)
    assert (second.stored.data, second.deliveries) == (b"t1", 2)


async def test_delayed_nak_outlasts_the_lease(make_bus: MakeBus, names: Names) -> None:
    """A delay longer than the lease holds the message back; the lease alone would not."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    delayed, left = await take(bus, names.lane(), 2)
    delayed.nak(LONG)
    again = await take_any(bus, names.lane(), 5)
    assert [left.stored.data] == data(again)


async def test_in_progress_extends_the_lease(make_bus: MakeBus, names: Names) -> None:
    """Of two held messages the one that is extended stays while the other comes again, twice."""
    bus = await make_bus(lane_ack_wait=timedelta(seconds=1.5))
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    held, _ = await take(bus, names.lane(), 2)
    came: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(came) < 2:
            held.in_progress()
            came += await bus.work.fetch(names.lane(), 5)
    assert data(came) == [b"t2", b"t2"]
    assert [delivery.deliveries for delivery in came] == [2, 3]


async def test_terminated_message_does_not_come_again(make_bus: MakeBus, names: Names) -> None:
    """After the lease only the other message is redelivered."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    first, _ = await take(bus, names.lane(), 2)
    first.term()
    assert data(await take_any(bus, names.lane(), 5)) == [b"t2"]


async def test_late_ack_of_a_former_holder_is_accepted(make_bus: MakeBus, names: Names) -> None:
    """It takes the message from the present holder: the third delivery never comes."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    former = (await take(bus, names.lane(), 2))[0]
    await take(bus, names.lane(), 2)
    former.ack()
    third = await take_any(bus, names.lane(), 5)
    assert [(delivery.stored.data, delivery.deliveries) for delivery in third] == [(b"t2", 3)]


async def test_late_nak_of_a_former_holder_takes_the_message_away(
    make_bus: MakeBus, names: Names
) -> None:
    """Though its lease is over, its nak brings the present holder's message back at once."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1")
    (former,) = await take(bus, names.lane(), 1)
    (present,) = await take(bus, names.lane(), 1)
    present.nak(LONG)
    former.nak()
    (third,) = await take(bus, names.lane(), 1)
    assert (present.deliveries, third.deliveries) == (2, 3)


async def test_only_the_first_verb_settles_a_delivery(make_bus: MakeBus, names: Names) -> None:
    """After a delayed nak neither a plain nak nor an ack goes out: the delay holds."""
    bus = await make_bus(lane_ack_wait=SHORT)
    await bus.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(bus, names, "t1", "t2")
    first, second = await take(bus, names.lane(), 2)
    first.nak(LONG)
    first.nak()
    first.ack()
    again = await take_any(bus, names.lane(), 5)
    assert [second.stored] == [delivery.stored for delivery in again]


async def test_nak_by_ack_subject_works_for_another_connection(
    make_bus: MakeBus, names: Names
) -> None:
    """A coordinator hands over a dead instance's work by what the instance announced."""
    holder, coordinator = await make_bus("a"), await make_bus("b")
    await holder.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(holder, names, "t1")
    (held,) = await take(holder, names.lane(), 1)
    coordinator.core.publish(held.ack_subject, b"-NAK")
    (second,) = await take(coordinator, names.lane(), 1)
    assert (held.stored, 2) == (second.stored, second.deliveries)


async def test_work_of_a_closed_connection_comes_again(make_bus: MakeBus, names: Names) -> None:
    """What it held unsettled is redelivered to others after the lease."""
    holder, other = (
        await make_bus("a", lane_ack_wait=SHORT),
        await make_bus("b", lane_ack_wait=SHORT),
    )
    await holder.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(holder, names, "t1")
    await take(holder, names.lane(), 1)
    await holder.close()
    (second,) = await take(other, names.lane(), 1)
    assert (second.stored.data, second.deliveries) == (b"t1", 2)


async def test_ack_sent_just_before_close_counts(make_bus: MakeBus, names: Names) -> None:
    """Closing flushes: of two messages only the one that was not acked comes again."""
    holder, other = (
        await make_bus("a", lane_ack_wait=SHORT),
        await make_bus("b", lane_ack_wait=SHORT),
    )
    await holder.work.ensure_lane(names.capability, "p", "normal")
    await dispatch(holder, names, "t1", "t2")
    first, _ = await take(holder, names.lane(), 2)
    first.ack()
    await holder.close()
    assert data(await take_any(other, names.lane(), 5)) == [b"t2"]
