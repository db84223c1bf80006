"""Durable topics: stored once by id, heard at once, read by whoever has a consumer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.bus.port import Bus, Consuming, Delivery, Message
from switchgear.contract import subjects
from switchgear.errors import ProtocolError, UsageError
from tests.conformance.support import MakeBus, Names, Received

LONG = timedelta(hours=1)
SHORT = timedelta(seconds=1)


def everybody(names: Names) -> str:
    """Where this test's topic goes to all."""
    return subjects.topic(names.capability)


class Reader(Received[Delivery]):
    """Acks what it gets."""

    def __call__(self, item: Delivery) -> None:
        item.ack()
        super().__call__(item)

    def read(self) -> list[bytes]:
        """What it got so far."""
        return [item.stored.data for item in self.items]


async def reading(bus: Bus, name: str, *filters: str) -> tuple[Reader, Consuming]:
    """A consumer of its own, running."""
    await bus.work.ensure_intake(name, filters, source="topics")
    reader = Reader()
    return reader, bus.work.consume(name, reader, in_flight=10, source="topics")


async def test_each_consumer_gets_every_message(make_bus: MakeBus, names: Names) -> None:
    """What was published before the consumers were there included; what was acked stays for others."""
    one, two = await make_bus("a"), await make_bus("b")
    assert await one.topics.publish(everybody(names), b"1", id=f"{names.owner}-1")
    first, consuming = await reading(two, f"a={names.owner}", everybody(names))
    assert await one.topics.publish(everybody(names), b"2", id=f"{names.owner}-2")
    await first.reach(2)
    second, other = await reading(one, f"b={names.owner}", everybody(names))
    await second.reach(2)
    assert first.read() == second.read() == [b"1", b"2"]
    await consuming.end()
    await other.end()


async def test_consumer_may_be_made_by_one_and_read_by_another(
    make_bus: MakeBus, names: Names
) -> None:
    """A coordinator creates it, from a sequence on; an agent that only knows its name reads it."""
    coordinator, agent = await make_bus("a"), await make_bus("b")
    name = f"a={names.owner}"
    mine = subjects.topic(names.capability, "me")
    for n in range(3):
        await coordinator.topics.publish(mine, b"%d" % n, id=f"{names.owner}-{n}")
    probe, consuming = await reading(coordinator, f"probe={names.owner}", mine)
    sequence = (await probe.reach(3))[1].stored.sequence
    await consuming.end()
    await coordinator.work.ensure_intake(
        name, [everybody(names), mine], source="topics", start=sequence
    )
    reader = Reader()
    consuming = agent.work.consume(name, reader, in_flight=10, source="topics")
    await reader.reach(2)
    assert reader.read() == [b"1", b"2"]
    await consuming.end()


async def test_message_with_a_known_id_is_stored_once(make_bus: MakeBus, names: Names) -> None:
    """Whoever publishes it, and whatever it says."""
    one, two = await make_bus("a"), await make_bus("b")
    assert await one.topics.publish(everybody(names), b"1", id=names.owner)
    assert not await two.topics.publish(everybody(names), b"2", id=names.owner)
    assert await two.topics.publish(everybody(names), b"3", id=f"{names.owner}-other")
    reader, consuming = await reading(one, f"a={names.owner}", everybody(names))
    await reader.reach(2)
    assert reader.read() == [b"1", b"3"]
    await consuming.end()


async def test_subscriber_hears_a_durable_message_as_well(make_bus: MakeBus, names: Names) -> None:
    one, two = await make_bus("a"), await make_bus("b")
    heard = Received[Message]()
    await two.core.subscribe(everybody(names), heard)
    await one.topics.publish(everybody(names), b"1", id=names.owner)
    (message,) = await heard.reach(1)
    assert (everybody(names), b"1") == (message.subject, message.data)


async def test_message_is_gone_after_its_ttl(bus: Bus, names: Names) -> None:
    """One with a longer life stays, for who comes later."""
    counting = f"count={names.owner}"
    await bus.work.ensure_intake(counting, [everybody(names)], source="topics")
    await bus.topics.publish(everybody(names), b"1", id=f"{names.owner}-1", ttl=SHORT)
    await bus.topics.publish(everybody(names), b"2", id=f"{names.owner}-2", ttl=LONG)
    heard = Received[object]()
    watching = await bus.announcements.watch(heard)
    # An announcement of the same life, and one that is put afterwards, tell that the time has passed.
    for n in range(2):
        subject = f"sg.announce.{names.capability}.i{n}"
        await bus.announcements.put(subject, b"1", ttl=SHORT)
        await heard.until(lambda items, one=subject: ended(items, one))
    reader, consuming = await reading(bus, f"a={names.owner}", everybody(names))
    await reader.reach(1)
    assert reader.read() == [b"2"]
    await consuming.end()
    await watching.end()


def ended(items: list[object], subject: str) -> bool:
    """Whether a watcher heard this announcement's end."""
    return any(
        getattr(item, "subject", "") == subject and not getattr(item, "data", b"") for item in items
    )


@pytest.mark.parametrize("bad", ["", " a", "a\r\nb", "é", "x" * 257])
async def test_id_that_cannot_stand_in_a_header_is_refused(
    bus: Bus, names: Names, bad: str
) -> None:
    with pytest.raises(UsageError):
        await bus.topics.publish(everybody(names), b"1", id=bad)


@pytest.mark.parametrize("subject", ["sg.task.a.b.c.submitted", "sg.topic.a b", ""])
async def test_topic_elsewhere_is_refused(bus: Bus, subject: str) -> None:
    with pytest.raises(ProtocolError, match="SG1107"):
        await bus.topics.publish(subject, b"1", id="1")
