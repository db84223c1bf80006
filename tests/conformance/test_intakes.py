"""Intakes: durable consumers that coordinators share, on the ledger and on the timers' stream."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from switchgear.bus.port import Bus, Delivery
from switchgear.contract import subjects
from tests.conformance.support import MakeBus, Names, Received

SHORT = timedelta(milliseconds=800)
"""A lease that ends within a test."""


async def submit(bus: Bus, names: Names, *tasks: str) -> None:
    """Append a submission for each task."""
    for task in tasks:
        scope = names.scope(task)
        await bus.ledger.append(f"{scope[:-1]}submitted", task.encode(), scope=scope, expect=0)


async def intake(bus: Bus, names: Names) -> str:
    """An intake of this test's submissions."""
    name = f"intake={names.capability}"
    await bus.work.ensure_intake(name, [f"sg.task.{names.capability}.*.*.submitted"])
    return name


def data(deliveries: list[Delivery]) -> list[bytes]:
    """The bodies."""
    return [delivery.stored.data for delivery in deliveries]


async def exchanges(bus: Bus, count: int = 20) -> None:
    """Ask the broker a few times: what it had to send meanwhile has been received."""
    for _ in range(count):
        await bus.ledger.last_sequence()


async def test_consumption_gives_what_was_there_and_what_comes(bus: Bus, names: Names) -> None:
    """Older and newer entries come in order, each once, as first deliveries."""
    await submit(bus, names, "t1", "t2")
    got = Received[Delivery]()
    consuming = bus.work.consume(await intake(bus, names), got, in_flight=10)
    await got.reach(2)
    await submit(bus, names, "t3")
    assert data(await got.reach(3)) == [b"t1", b"t2", b"t3"]
    assert [delivery.deliveries for delivery in got.items] == [1, 1, 1]
    await consuming.end()


async def test_intake_takes_what_any_of_its_filters_covers(bus: Bus, names: Names) -> None:
    """Several filters make one intake, in the order of the ledger; other events stay out."""
    scope = names.scope()
    filters = [
        subjects.task_event(scope, "waiting"),
        subjects.task_event(scope, "signalled"),
    ]
    await bus.work.ensure_intake(f"intake={names.capability}", filters)
    await submit(bus, names, "t1")
    last = await bus.ledger.last_sequence()
    tail = await bus.ledger.leader_tail(scope)
    assert tail is not None
    last = tail.sequence
    for event in ("signalled", "cancel-requested", "waiting"):
        subject = subjects.task_event(scope, event)
        await bus.ledger.append(subject, event.encode(), scope=scope, expect=last)
        tail = await bus.ledger.leader_tail(scope)
        assert tail is not None
        last = tail.sequence
    got = Received[Delivery]()
    consuming = bus.work.consume(f"intake={names.capability}", got, in_flight=10)
    assert data(await got.reach(2)) == [b"signalled", b"waiting"]
    await consuming.end()


async def test_ensuring_an_intake_again_changes_nothing(bus: Bus, names: Names) -> None:
    """What was acked stays acked."""
    name = await intake(bus, names)
    await submit(bus, names, "t1", "t2")
    got = Received[Delivery]()
    consuming = bus.work.consume(name, got, in_flight=1)
    (first, *_) = await got.reach(1)
    first.ack()
    await got.reach(2)
    await intake(bus, names)
    await submit(bus, names, "t3")
    got.items[1].ack()
    assert data(await got.reach(3)) == [b"t1", b"t2", b"t3"]
    await consuming.end()


async def test_no_more_than_in_flight_are_unsettled(bus: Bus, names: Names) -> None:
    """Two of five come; each one that is settled lets one more come."""
    name = await intake(bus, names)
    await submit(bus, names, "t1", "t2", "t3", "t4", "t5")
    got = Received[Delivery]()
    consuming = bus.work.consume(name, got, in_flight=2)
    await got.reach(2)
    await exchanges(bus)
    assert data(got.items) == [b"t1", b"t2"]
    got.items[0].ack()
    await got.reach(3)
    await exchanges(bus)
    assert data(got.items) == [b"t1", b"t2", b"t3"]
    got.items[1].term()
    got.items[2].ack()
    assert data(await got.reach(5)) == [b"t1", b"t2", b"t3", b"t4", b"t5"]
    await consuming.end()


async def test_everything_flows_when_each_delivery_is_settled(bus: Bus, names: Names) -> None:
    """Two hundred entries pass through a window of eight, each once, in order."""
    name = await intake(bus, names)
    tasks = [f"t{n}" for n in range(200)]
    got = Received[Delivery]()

    def receive(delivery: Delivery) -> None:
        delivery.ack()
        got(delivery)

    consuming = bus.work.consume(name, receive, in_flight=8)
    await submit(bus, names, *tasks)
    assert tasks == [body.decode() for body in data(await got.reach(200))]
    await consuming.end()


async def test_nak_comes_back_to_the_consumption(bus: Bus, names: Names) -> None:
    """A handed-back entry comes again, as the second delivery, though the window is one."""
    name = await intake(bus, names)
    await submit(bus, names, "t1")
    got = Received[Delivery]()
    consuming = bus.work.consume(name, got, in_flight=1)
    (first, *_) = await got.reach(1)
    first.nak()
    second = (await got.reach(2))[1]
    assert (first.stored, 2) == (second.stored, second.deliveries)
    await consuming.end()


async def test_replicas_share_an_intake(make_bus: MakeBus, names: Names) -> None:
    """Each entry goes to one of two consumptions."""
    one, two = await make_bus("a"), await make_bus("b")
    name = await intake(one, names)
    got = Received[Delivery]()

    def receive(delivery: Delivery) -> None:
        delivery.ack()
        got(delivery)

    consuming = [bus.work.consume(name, receive, in_flight=4) for bus in (one, two)]
    tasks = [f"t{n}" for n in range(40)]
    await submit(one, names, *tasks)
    await got.reach(40)
    await exchanges(one)
    assert sorted(tasks) == sorted(body.decode() for body in data(got.items))
    for each in consuming:
        await each.end()


async def test_what_a_dead_replica_held_goes_to_the_next(make_bus: MakeBus, names: Names) -> None:
    """After the intake's `ack_wait` another connection gets it as second delivery."""
    one, two = (
        await make_bus("a", intake_ack_wait=SHORT),
        await make_bus("b", intake_ack_wait=SHORT),
    )
    name = await intake(one, names)
    await submit(one, names, "t1")
    held, got = Received[Delivery](), Received[Delivery]()
    one.work.consume(name, held, in_flight=5)
    await held.reach(1)
    await one.close()
    consuming = two.work.consume(name, got, in_flight=5)
    (second,) = await got.reach(1)
    assert (second.stored.data, second.deliveries) == (b"t1", 2)
    await consuming.end()


async def test_what_an_ended_consumption_left_unsettled_comes_again(
    make_bus: MakeBus, names: Names
) -> None:
    """Whoever consumes next gets it, and what was settled does not come."""
    bus = await make_bus(intake_ack_wait=SHORT)
    name = await intake(bus, names)
    await submit(bus, names, "t1", "t2")
    first, second = Received[Delivery](), Received[Delivery]()
    consuming = bus.work.consume(name, first, in_flight=5)
    await first.reach(2)
    first.items[0].ack()
    await consuming.end()
    consuming = bus.work.consume(name, second, in_flight=5)
    assert data(await second.reach(1)) == [b"t2"]
    await consuming.end()


async def test_nothing_arrives_after_the_end(bus: Bus, names: Names) -> None:
    """What is stored after the end of one consumption goes to the next."""
    name = await intake(bus, names)
    ended, got = Received[Delivery](), Received[Delivery]()
    await bus.work.consume(name, ended, in_flight=5).end()
    await submit(bus, names, "t1")
    consuming = bus.work.consume(name, got, in_flight=5)
    assert data(await got.reach(1)) == [b"t1"]
    assert ended.items == []
    await consuming.end()


async def test_entries_of_racing_writers_are_all_consumed(make_bus: MakeBus, names: Names) -> None:
    """Entries that two connections append at the same time come in the order of their sequences."""
    one, two = await make_bus("a"), await make_bus("b")
    name = await intake(one, names)
    got = Received[Delivery]()
    consuming = one.work.consume(name, got, in_flight=100)
    await asyncio.gather(
        submit(one, names, *[f"a{n}" for n in range(20)]),
        submit(two, names, *[f"b{n}" for n in range(20)]),
    )
    sequences = [delivery.stored.sequence for delivery in await got.reach(40)]
    assert sorted(sequences) == sequences
    await consuming.end()
