"""Core messages: listeners, queue groups, requests."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.bus.port import Bus, Message
from switchgear.contract import subjects
from switchgear.errors import Unavailable
from tests.conformance.support import MakeBus, Names, Received
from tests.patience import PATIENCE

BRIEFLY = timedelta(milliseconds=200)
"""A limit that is to be reached."""
LONG = timedelta(seconds=60)
"""A limit that is not to be reached."""


async def test_message_reaches_every_listener(make_bus: MakeBus, names: Names) -> None:
    """Exact subjects and both wildcards match, on the own connection and on another."""
    one, two = await make_bus("a"), await make_bus("b")
    root = f"sg.chunk.{names.capability}"
    heard: dict[str, Received[Message]] = {}
    for bus, subject in ((one, f"{root}.x.y"), (two, f"{root}.*.y"), (two, f"{root}.>")):
        heard[subject] = Received()
        await bus.core.subscribe(subject, heard[subject])
    one.core.publish(f"{root}.x.y", b"hello")
    expected = Message(f"{root}.x.y", b"hello", "", b"")
    for received in heard.values():
        assert [expected] == await received.reach(1)


async def test_messages_of_one_publisher_come_in_order(bus: Bus, names: Names) -> None:
    """A hundred messages keep their order, and others' subjects stay out."""
    heard = Received[Message]()
    await bus.core.subscribe(f"sg.chunk.{names.capability}.*", heard)
    for n in range(100):
        bus.core.publish(f"sg.chunk.{names.capability}.t", b"%d" % n)
        bus.core.publish(f"sg.chunk.{names.capability}.t.deeper", b"no")
    assert [b"%d" % n for n in range(100)] == [m.data for m in await heard.reach(100)]


async def test_nothing_comes_after_unsubscribing(bus: Bus, names: Names) -> None:
    """Of two listeners only the one that stays hears the next message."""
    subject = f"sg.chunk.{names.capability}"
    left, stays = Received[Message](), Received[Message]()
    subscription = await bus.core.subscribe(subject, left)
    await bus.core.subscribe(subject, stays)
    await subscription.unsubscribe()
    bus.core.publish(subject, b"hello")
    assert [message.data for message in await stays.reach(1)] == [b"hello"]
    assert left.items == []


async def test_one_member_of_a_queue_group_gets_each_message(
    make_bus: MakeBus, names: Names
) -> None:
    """Two members share sixty messages and both get some; who is in no group gets all."""
    one, two = await make_bus("a"), await make_bus("b")
    subject = f"sg.chunk.{names.capability}"
    members = [Received[Message](), Received[Message]()]
    for bus, member in zip((one, two), members, strict=True):
        await bus.core.subscribe(subject, member, queue="group")
    everything = Received[Message]()
    await one.core.subscribe(subject, everything)
    for n in range(60):
        one.core.publish(subject, b"%d" % n)
    await everything.reach(60)
    for member in members:
        await member.reach(1)
    async with asyncio.timeout(PATIENCE):
        while sum(len(member.items) for member in members) < 60:
            await two.ledger.last_sequence()
    shared = [int(message.data) for member in members for message in member.items]
    assert list(range(60)) == sorted(shared)


async def test_request_gets_the_answer(make_bus: MakeBus, names: Names) -> None:
    """Whoever listens answers on the reply subject."""
    asking, answering = await make_bus("a"), await make_bus("b")
    subject = f"sg.api.{names.capability}.who"

    def answer(message: Message) -> None:
        answering.core.publish(message.reply, message.data.upper())

    await answering.core.subscribe(subject, answer, queue="api")
    assert await asking.core.request(subject, b"hello", timeout=LONG) == b"HELLO"


async def test_requests_at_the_same_time_get_their_own_answers(bus: Bus, names: Names) -> None:
    """Answers in the opposite order still reach who asked."""
    subject = f"sg.api.{names.capability}.who"
    asked = Received[Message]()
    await bus.core.subscribe(subject, asked)
    requests = [
        asyncio.create_task(bus.core.request(subject, b"%d" % n, timeout=LONG)) for n in range(10)
    ]
    for message in reversed(await asked.reach(10)):
        bus.core.publish(message.reply, message.data)
    assert [b"%d" % n for n in range(10)] == await asyncio.gather(*requests)


async def test_request_that_nobody_listens_to_fails_at_once(bus: Bus, names: Names) -> None:
    """Without a listener it is unavailable long before its timeout."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await bus.core.request(f"sg.api.{names.capability}.who", b"", timeout=LONG)


async def test_request_that_nobody_answers_ends_with_its_timeout(bus: Bus, names: Names) -> None:
    """A listener that keeps silent makes it unavailable after the timeout."""
    silent = Received[Message]()
    await bus.core.subscribe(f"sg.api.{names.capability}.who", silent)
    with pytest.raises(Unavailable):
        await bus.core.request(f"sg.api.{names.capability}.who", b"?", timeout=BRIEFLY)
    assert [message.data for message in silent.items] == [b"?"]


async def test_closed_connection_hears_nothing(make_bus: MakeBus, names: Names) -> None:
    """What it published before is delivered; a request to it gets no answer."""
    leaving, staying = await make_bus("a"), await make_bus("b")
    subject = f"sg.api.{names.capability}.who"
    heard = Received[Message]()
    await staying.core.subscribe(f"sg.chunk.{names.capability}", heard)
    await leaving.core.subscribe(subject, Received[Message]())
    leaving.core.publish(f"sg.chunk.{names.capability}", b"bye")
    await leaving.close()
    assert [message.data for message in await heard.reach(1)] == [b"bye"]
    with pytest.raises(Unavailable):
        await staying.core.request(subject, b"", timeout=BRIEFLY)


async def test_facts_name_the_server_and_its_limits(bus: Bus) -> None:
    """A broker that has the streams has JetStream, and takes messages of at least 512 KiB."""
    facts = await bus.facts()
    assert facts.jetstream
    assert facts.max_payload >= 512 * 1024
    assert facts.version
    assert facts.rtt >= timedelta()


@pytest.mark.parametrize("kind", ["progress", "crash report"])
async def test_newest_progress_or_crash_report_is_kept(
    make_bus: MakeBus, names: Names, kind: str
) -> None:
    """The last one that was published on the subject; none where there was none."""
    one, two = await make_bus("a"), await make_bus("b")
    is_progress = kind == "progress"
    subject = subjects.progress(names.scope()) if is_progress else subjects.crash("a", names.owner)
    for n in range(3):
        one.core.publish(subject, b"%d" % n)
    async with asyncio.timeout(PATIENCE):
        while await two.core.newest(subject) != b"2":
            await asyncio.sleep(0)
    assert await two.core.newest(subjects.progress(names.scope("other"))) is None


async def test_end_of_a_connection_is_heard(make_bus: MakeBus) -> None:
    """By its name, which is the bus'; one that goes on is not."""
    leaving, staying, listening = await make_bus("a"), await make_bus("b"), await make_bus("c")
    heard = Received[str]()
    await listening.watch_losses(heard)
    await leaving.close()
    await heard.until(lambda names: leaving.name in names)
    assert staying.name not in heard.items


async def test_one_of_a_queue_group_hears_each_end(make_bus: MakeBus) -> None:
    """Three replicas share the ends of twenty connections."""
    replicas = [await make_bus(f"r{n}") for n in range(3)]
    heard = [Received[str]() for _ in replicas]
    for bus, receive in zip(replicas, heard, strict=True):
        await bus.watch_losses(receive, queue="group")
    everything = Received[str]()
    await replicas[0].watch_losses(everything)
    gone: set[str] = set()
    for n in range(20):
        leaving = await make_bus(f"g{n}")
        gone.add(leaving.name)
        await leaving.close()
    await everything.until(lambda names: gone <= set(names))
    async with asyncio.timeout(PATIENCE):
        while len(shared := [name for one in heard for name in one.items if name in gone]) < 20:
            await replicas[1].ledger.last_sequence()
            await replicas[2].ledger.last_sequence()
    assert sorted(gone) == sorted(shared)


async def test_unreadable_loss_is_ignored(make_bus: MakeBus) -> None:
    """Whoever may publish there can be wrong; the next one is heard."""
    leaving, listening = await make_bus("a"), await make_bus("b")
    heard = Received[str]()
    await listening.watch_losses(heard)
    for data in (b"", b"{", b"[]", b"{}", b'{"client":{"name":7}}', b'{"client":{}}', b"\xff"):
        listening.core.publish(subjects.LOSSES, data)
    await leaving.close()
    await heard.until(lambda names: leaving.name in names)
    assert "" not in heard.items
