"""Durable timers: armed, replaced, disarmed, woken, and consumed when due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from switchgear.bus.port import Bus, Delivery
from switchgear.clock import SYSTEM
from switchgear.contract import subjects
from tests.conformance.support import Names, Received


def soon(milliseconds: int = 300) -> datetime:
    """A time within the test."""
    return SYSTEM.now() + timedelta(milliseconds=milliseconds)


def far() -> datetime:
    """A time that no test sees."""
    return SYSTEM.now() + timedelta(hours=1)


@pytest.fixture
async def due(bus: Bus, names: Names) -> AsyncIterator[Received[Delivery]]:
    """The due messages of this test's capability, acked as they come."""
    received = Received[Delivery]()

    def receive(delivery: Delivery) -> None:
        delivery.ack()
        received(delivery)

    name = f"due={names.capability}"
    await bus.work.ensure_intake(name, [f"sg.due.{names.capability}.>"], source="timers")
    consuming = bus.work.consume(name, receive, in_flight=10, source="timers")
    yield received
    await consuming.end()


def place(names: Names, kind: str, task: str = "t1") -> tuple[str, str]:
    """A timer's subject and its due subject."""
    return subjects.timer(names.scope(task), kind), subjects.due(names.scope(task), kind)


async def test_timer_is_due_at_its_time_and_not_before(
    bus: Bus, names: Names, due: Received[Delivery]
) -> None:
    """The due message carries the timer's data, and its store time is not before the timer's."""
    timer, target = place(names, "retry")
    at = soon()
    await bus.timers.arm(timer, target, at, b'{"n":1}')
    (message,) = await due.reach(1)
    assert (target, b'{"n":1}') == (message.stored.subject, message.stored.data)
    assert message.stored.time >= at


async def test_timer_in_the_past_is_due_at_once(
    bus: Bus, names: Names, due: Received[Delivery]
) -> None:
    """A time that has gone by makes no difference but that it comes soon."""
    timer, target = place(names, "retry")
    await bus.timers.arm(timer, target, SYSTEM.now() - timedelta(hours=1))
    (message,) = await due.reach(1)
    assert (target, b"{}") == (message.stored.subject, message.stored.data)


async def test_later_timer_replaces_the_earlier_one(
    bus: Bus, names: Names, due: Received[Delivery]
) -> None:
    """Of one subject only the last timer fires, whether it was moved forward or back."""
    forward, back, other = (place(names, kind) for kind in ("forward", "back", "other"))
    await bus.timers.arm(*forward, far(), b"old")
    await bus.timers.arm(*forward, soon(), b"new")
    early = soon(1500)
    await bus.timers.arm(*back, early, b"old")
    await bus.timers.arm(*back, far(), b"new")
    await bus.timers.arm(*other, early + timedelta(milliseconds=400), b"other")
    got = await due.reach(2)
    assert [message.stored.data for message in got] == [b"new", b"other"]


async def test_disarmed_timer_does_not_fire(
    bus: Bus, names: Names, due: Received[Delivery]
) -> None:
    """A later timer fires, the disarmed one before it does not."""
    disarmed, other = place(names, "disarmed"), place(names, "other")
    early = soon(1500)
    await bus.timers.arm(*disarmed, early, b"disarmed")
    await bus.timers.disarm(disarmed[0])
    await bus.timers.arm(*other, early + timedelta(milliseconds=400), b"other")
    got = await due.reach(1)
    assert [message.stored.data for message in got] == [b"other"]


async def test_disarming_what_is_not_armed_is_no_error(bus: Bus, names: Names) -> None:
    """A timer that has fired, or never was, can be disarmed."""
    await bus.timers.disarm(place(names, "none")[0])
    assert await bus.timers.armed(f"sg.timer.{names.capability}.>") == []


async def test_wake_is_due_now(bus: Bus, names: Names, due: Received[Delivery]) -> None:
    """It leaves the timer of the same place armed."""
    timer, target = place(names, "child")
    await bus.timers.arm(timer, target, far())
    await bus.timers.wake(target, b"wake")
    (message,) = await due.reach(1)
    assert (target, b"wake") == (message.stored.subject, message.stored.data)
    assert [timer] == await bus.timers.armed(f"sg.timer.{names.capability}.>")


async def test_armed_timers_are_listed_by_filter(bus: Bus, names: Names) -> None:
    """Those under the filter, each once however often it was armed; disarmed ones are not."""
    capacity = [place(names, "capacity", task)[0] for task in ("t1", "t2", "t3")]
    for task in ("t1", "t2", "t3", "t1"):
        await bus.timers.arm(*place(names, "capacity", task), far())
        await bus.timers.arm(*place(names, "deadline", task), far())
    await bus.timers.disarm(capacity[1])
    armed = await bus.timers.armed(subjects.capacity_timers(names.capability))
    assert sorted([capacity[0], capacity[2]]) == sorted(armed)


async def test_fired_timer_is_no_longer_armed(
    bus: Bus, names: Names, due: Received[Delivery]
) -> None:
    """The list is empty once the due message has come."""
    await bus.timers.arm(*place(names, "retry"), soon(50))
    await due.reach(1)
    assert await bus.timers.armed(f"sg.timer.{names.capability}.>") == []


async def test_unsettled_due_message_comes_again(bus: Bus, names: Names) -> None:
    """What a replica hands back is delivered again, and an acked one is gone for good."""
    name, target = f"due={names.capability}", place(names, "retry")[1]
    await bus.work.ensure_intake(name, [f"sg.due.{names.capability}.>"], source="timers")
    await bus.timers.wake(target, b"1")
    await bus.timers.wake(target, b"2")
    got = Received[Delivery]()
    consuming = bus.work.consume(name, got, in_flight=5, source="timers")
    first, second = await got.reach(2)
    second.ack()
    first.nak()
    third = (await got.reach(3))[2]
    assert (third.stored.data, third.deliveries) == (b"1", 2)
    third.ack()
    await consuming.end()
