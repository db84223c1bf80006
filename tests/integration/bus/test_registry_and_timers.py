"""The registry's watch, and timers: what the server does by itself, seen in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from switchgear.bus import port
from switchgear.bus.connection import NatsBus, connect
from switchgear.bus.port import Announced
from switchgear.contract import subjects
from switchgear.errors import UsageError
from switchgear.server import EmbeddedServer
from tests.integration.bus.faults import until

pytestmark = pytest.mark.integration

LONG = timedelta(seconds=30)


def seen(heard: list[Announced]) -> list[tuple[str, bytes | None]]:
    """Subjects' last tokens and data."""
    return [(one.subject.rpartition(".")[2], one.data) for one in heard]


async def test_watch_tells_what_is_there_then_every_change(own_bus: NatsBus) -> None:
    put = own_bus.announcements.put
    await put("sg.announce.a.one", b"1", ttl=LONG)
    await put("sg.announce.a.one", b"2", ttl=LONG)
    await put("sg.announce.a.two", b"1", ttl=LONG)
    await own_bus.announcements.remove("sg.announce.a.two")
    heard: list[Announced] = []
    watch = await own_bus.announcements.watch(heard.append)
    assert seen(heard) == [("one", b"2")]
    await put("sg.announce.a.three", b"1", ttl=LONG)
    await until(lambda: len(heard) == 2)  # else the removal may be all that is left to hear of it
    await own_bus.announcements.remove("sg.announce.a.three")
    await until(lambda: len(heard) == 3)
    assert seen(heard) == [("one", b"2"), ("three", b"1"), ("three", None)]
    assert sorted(one.sequence for one in heard) == [one.sequence for one in heard]
    await watch.end()


async def test_end_by_ttl_is_heard(own_bus: NatsBus) -> None:
    """TTLs are whole seconds, rounded up; the store time of the end tells how long it lived."""
    heard: list[Announced] = []
    watch = await own_bus.announcements.watch(heard.append)
    await own_bus.announcements.put("sg.announce.a.one", b"1", ttl=timedelta(milliseconds=1300))
    await until(lambda: len(heard) == 2)
    assert seen(heard) == [("one", b"1"), ("one", None)]
    lived = (heard[1].time_ns - heard[0].time_ns) / 1e9
    assert 1.9 < lived < LONG.total_seconds()
    await watch.end()


async def test_announcement_without_data_is_refused(bus: NatsBus) -> None:
    with pytest.raises(UsageError):
        await bus.announcements.put("sg.announce.a.one", b"", ttl=LONG)


@pytest.mark.faults
async def test_watch_catches_up_after_a_restart(own_bus: NatsBus, server: EmbeddedServer) -> None:
    """Also with ends whose marks are gone: what it knew and is not there any more has ended."""
    heard: list[Announced] = []
    watch = await own_bus.announcements.watch(heard.append)
    for name in ("stays", "goes"):
        await own_bus.announcements.put(f"sg.announce.a.{name}", b"1", ttl=LONG)
    await until(lambda: len(heard) == 2)
    server.kill()
    await server.start()
    other = await connect(server.url)
    await other.link.asking.api("STREAM.PURGE.SG_REGISTRY", {"filter": "sg.announce.a.goes"})
    await other.announcements.put("sg.announce.a.new", b"1", ttl=LONG)
    await until(lambda: {("goes", None), ("new", b"1")} <= set(seen(heard)))
    assert seen(heard).count(("stays", b"1")) == 1
    await watch.end()
    await other.close()


@pytest.mark.faults
async def test_watch_survives_the_loss_of_its_consumer(own_bus: NatsBus) -> None:
    heard: list[Announced] = []
    watch = await own_bus.announcements.watch(heard.append)
    asking = own_bus.link.asking
    names = (await asking.api("CONSUMER.NAMES.SG_REGISTRY"))["consumers"]
    for name in names:
        await asking.api(f"CONSUMER.DELETE.SG_REGISTRY.{name}")
    await own_bus.announcements.put("sg.announce.a.one", b"1", ttl=LONG)
    await until(lambda: seen(heard) == [("one", b"1")])
    await watch.end()


async def test_ended_watch_hears_nothing_more(own_bus: NatsBus) -> None:
    heard: list[Announced] = []
    watch = await own_bus.announcements.watch(heard.append)
    await watch.end()
    await own_bus.announcements.put("sg.announce.a.one", b"1", ttl=LONG)
    await own_bus.facts()
    assert heard == []


async def due(bus: NatsBus) -> tuple[list[port.Delivery], port.Consuming]:
    """What becomes due, acked."""
    await bus.work.ensure_intake("due", ["sg.due.>"], source="timers")
    heard: list[port.Delivery] = []

    def take(delivery: port.Delivery) -> None:
        heard.append(delivery)
        delivery.ack()

    return heard, bus.work.consume("due", take, in_flight=50, source="timers")


async def test_timer_comes_at_its_time_and_never_early(own_bus: NatsBus, scope: str) -> None:
    heard, consuming = await due(own_bus)
    timer = subjects.timer(scope, "retry")
    later = datetime.now(UTC) + timedelta(hours=1)
    await own_bus.timers.arm(timer, subjects.due(scope, "retry"), later)
    assert [timer] == await own_bus.timers.armed("sg.timer.>")
    at = datetime.now(UTC) + timedelta(seconds=0.35)
    await own_bus.timers.arm(timer, subjects.due(scope, "retry"), at, b'{"n":1}')
    await until(lambda: len(heard) == 1)
    assert (subjects.due(scope, "retry"), b'{"n":1}') == (
        heard[0].stored.subject,
        heard[0].stored.data,
    )
    assert heard[0].stored.time >= at
    assert await own_bus.timers.armed("sg.timer.>") == []
    await consuming.end()


async def test_wake_is_due_now_and_a_disarmed_timer_never(own_bus: NatsBus, scope: str) -> None:
    heard, consuming = await due(own_bus)
    timer = subjects.timer(scope, "deadline")
    soon = datetime.now(UTC) + timedelta(hours=1)
    await own_bus.timers.arm(timer, subjects.due(scope, "deadline"), soon)
    await own_bus.timers.disarm(timer)
    assert await own_bus.timers.armed("sg.timer.>") == []
    await own_bus.timers.wake(subjects.due(scope, "child"), b'{"child":"x"}')
    await until(lambda: len(heard) == 1)
    assert heard[0].stored.data == b'{"child":"x"}'
    await consuming.end()


@pytest.mark.faults
async def test_timer_survives_a_kill_of_the_server(
    own_bus: NatsBus, server: EmbeddedServer, scope: str
) -> None:
    """One that became due meanwhile comes after the start."""
    heard, consuming = await due(own_bus)
    at = datetime.now(UTC) + timedelta(seconds=0.2)
    await own_bus.timers.arm(subjects.timer(scope, "retry"), subjects.due(scope, "retry"), at)
    server.kill()
    await until(lambda: datetime.now(UTC) >= at)
    await server.start()
    await until(lambda: len(heard) >= 1)
    await consuming.end()
