"""What only the twin has: a model of its compare-and-set, crashes, virtual time, order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.bus.port import Announced, Appended, Bus, Delivery, Message, Refused
from switchgear.contract import subjects
from switchgear.contract.stored import expect_headers, expectation, header_block
from switchgear.errors import OutcomeUnknown, ProtocolError, Unavailable
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from tests.conformance.support import Names, Received

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = [subjects.scope(capability, "o", task) for capability in "ab" for task in ("t1", "t2")]
SCOPES = [*TASKS, "sg.task.*.o.t1.>", "sg.task.a.o.*.submitted", "sg.task.>", "sg.other.>"]
ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from(TASKS),
        st.sampled_from(["submitted", "completed"]),
        st.sampled_from(SCOPES),
        st.integers(0, 10),
    ),
    max_size=40,
)
"""Appends: a task's scope, an event, the scope that the headers name, the sequence they expect."""


class Standing:
    """A clock that stands."""

    def now(self) -> datetime:
        """Always the same time."""
        return START


def covers(scope: str, subject: str) -> bool:
    """Whether a filter covers a subject, spelled out token by token."""
    wanted, have = scope.split("."), subject.split(".")
    if wanted[-1] == ">" and len(have) >= len(wanted):
        have = [*have[: len(wanted) - 1], ">"]
    return len(wanted) == len(have) and all(
        want in {"*", got} for want, got in zip(wanted, have, strict=True)
    )


@given(ATTEMPTS)
def test_compare_and_set_agrees_with_a_list(attempts: list[tuple[str, str, str, int]]) -> None:
    """A list of subjects, searched from its end, decides every append as the broker does."""
    broker = MemoryBroker(clock=Standing())
    model: list[str] = []
    for task, event, scope, expect in attempts:
        subject = f"{task[:-1]}{event}"
        last = max((n for n, each in enumerate(model, 1) if covers(scope, each)), default=0)
        outcome = broker.store(subject, header_block(expect_headers(expect, scope)), b"")
        if last == expect:
            model.append(subject)
            assert outcome == Appended(len(model))
        else:
            assert outcome == Refused(last)
    stored = list(broker.ledger.beyond(0))
    assert [entry.subject for entry in stored] == model
    for task in TASKS:
        assert [entry.subject for entry in broker.ledger.under(task)] == [
            subject for subject in model if covers(task, subject)
        ]


@given(ATTEMPTS)
def test_honest_entries_of_a_task_form_a_chain(attempts: list[tuple[str, str, str, int]]) -> None:
    """Whatever else was stored, each entry that names its own scope expects the one before it."""
    broker = MemoryBroker(clock=Standing())
    for task, event, scope, expect in attempts:
        broker.store(f"{task[:-1]}{event}", header_block(expect_headers(expect, scope)), b"")
    for task in TASKS:
        before = 0
        for entry in broker.ledger.under(task):
            assert expectation(entry.headers, task) in {None, before}
            before = entry.sequence


def test_broker_can_be_filled_without_an_event_loop() -> None:
    """Histories for tests of pure code need no loop where a clock is given."""
    broker = MemoryBroker(clock=Standing())
    assert broker.store(f"{TASKS[0][:-1]}submitted", b"", b"{}") == Appended(1)
    (entry,) = broker.ledger.under(TASKS[0])
    assert entry.time == START


async def dispatched(broker: MemoryBroker, names: Names, count: int) -> Bus:
    """A connection, a lane, and so many work items in it."""
    bus = MemoryBus(broker, "maker")
    await bus.work.ensure_lane(names.capability, "p", "normal")
    for n in range(count):
        broker.store(subjects.dispatched(names.scope(f"t{n}"), "p", "normal"), b"", b"%d" % n)
    return bus


@pytest.mark.looptime
async def test_lease_ends_in_virtual_time(names: Names) -> None:
    """Thirty seconds of lease pass without waiting, to the very moment."""
    broker = MemoryBroker(clock=LoopClock(START))
    bus = await dispatched(broker, names, 1)
    began = asyncio.get_running_loop().time()
    await bus.work.fetch(names.lane(), 1)
    got = Received[Delivery]()
    bus.work.wait([names.lane()], 1, got)
    await asyncio.sleep(31)
    (second,) = got.items
    assert second.deliveries == 2
    assert asyncio.get_running_loop().time() - began == pytest.approx(31)


@pytest.mark.looptime
async def test_timer_and_store_times_follow_virtual_time(names: Names) -> None:
    """A timer of ten days is due at exactly its time, by the clock that stamps what is stored."""
    broker = MemoryBroker(clock=LoopClock(START))
    bus = MemoryBus(broker, "bus-a")
    got = Received[Delivery]()
    await bus.work.ensure_intake("due", ["sg.due.>"], source="timers")
    bus.work.consume("due", got, in_flight=1, source="timers")
    at = START + timedelta(days=10)
    due = subjects.due(names.scope(), "deadline")
    await bus.timers.arm(subjects.timer(names.scope(), "deadline"), due, at)
    await asyncio.sleep(timedelta(days=10, seconds=1).total_seconds())
    (message,) = got.items
    assert message.stored.subject == due
    assert timedelta() <= message.stored.time - at < timedelta(milliseconds=1)
    assert b"Nats-Schedule-Next: purge\r\n" in message.stored.headers


@pytest.mark.looptime
async def test_mark_of_an_ended_announcement_goes_too(names: Names) -> None:
    """After the TTL there is a mark, a minute later the registry has forgotten the subject."""
    broker = MemoryBroker(clock=LoopClock(START))
    bus = MemoryBus(broker, "bus-a")
    heard = Received[Announced]()
    await bus.announcements.watch(heard)
    subject = f"sg.announce.{names.capability}.i1"
    await bus.announcements.put(subject, b"1", ttl=timedelta(seconds=30))
    await asyncio.sleep(31)
    assert [item.data for item in heard.items] == [b"1", None]
    assert broker.registry.last_of(subject) == 2
    await asyncio.sleep(60)
    assert broker.registry.last_of(subject) == 0


@pytest.mark.looptime
async def test_crashed_bus_gets_nothing_more_and_its_work_waits_for_the_lease(
    names: Names,
) -> None:
    """What it held, and what was on its way to it, comes to another after `ack_wait`."""
    broker = MemoryBroker(clock=LoopClock(START))
    maker = await dispatched(broker, names, 1)
    dead, other = MemoryBus(broker, "dead"), MemoryBus(broker, "other")
    (held,) = await dead.work.fetch(names.lane(), 1)
    on_its_way, heard, got = Received[Delivery](), Received[Message](), Received[Delivery]()
    dead.work.wait([names.lane()], 5, on_its_way)
    await dead.core.subscribe("sg.chunk.>", heard)
    await maker.ledger.append(
        subjects.dispatched(names.scope("late"), "p", "normal"),
        b"late",
        scope=names.scope("late"),
        expect=0,
    )
    maker.core.publish("sg.chunk.x", b"hello")
    received = len(on_its_way.items)
    broker.crash(dead)
    held.ack()
    other.work.wait([names.lane()], 5, got)
    await asyncio.sleep(29)
    assert got.items == []
    await asyncio.sleep(2)
    assert sorted(delivery.stored.data for delivery in got.items) == [b"0", b"late"]
    assert (len(on_its_way.items), heard.items) == (received, [])


async def test_append_under_way_at_a_crash_has_an_unknown_outcome(names: Names) -> None:
    """It is stored, but its writer never hears so; what the dead bus appends then goes nowhere."""
    broker = MemoryBroker()
    dead, alive = MemoryBus(broker, "dead"), MemoryBus(broker, "alive")
    scope = names.scope()
    call = dead.ledger.append(f"{scope[:-1]}submitted", b"{}", scope=scope, expect=0)
    broker.crash(dead)
    late = dead.ledger.append(f"{scope[:-1]}cancelled", b"{}", scope=scope, expect=1)
    with pytest.raises(OutcomeUnknown):
        await call
    with pytest.raises(Unavailable):
        await late
    assert [entry.sequence for entry in await alive.ledger.history(scope)] == [1]


async def test_waits_of_a_crashed_bus_end(names: Names) -> None:
    """A request, a projection and a read that hang in it are told that it is gone."""
    broker = MemoryBroker()
    dead, alive = MemoryBus(broker, "dead"), MemoryBus(broker, "alive")
    asked = Received[Message]()
    await alive.core.subscribe("sg.api.x", asked)

    async def read_on() -> None:
        async for _ in dead.ledger.follow(0):
            pass

    waits: list[asyncio.Task[Any]] = [
        asyncio.create_task(dead.core.request("sg.api.x", b"", timeout=timedelta(seconds=60))),
        asyncio.create_task(read_on()),
    ]
    await asked.reach(1)
    broker.crash(dead)
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    with pytest.raises(Unavailable):
        await dead.ledger.tail(names.scope())


async def test_lane_hands_out_no_more_than_may_be_pending(names: Names) -> None:
    """New messages wait at `max_ack_pending`; an ack, or a redelivery, passes."""
    broker = MemoryBroker(max_ack_pending=2)
    bus = await dispatched(broker, names, 4)
    first, second = await bus.work.fetch(names.lane(), 4)
    assert await bus.work.fetch(names.lane(), 4) == []
    first.ack()
    assert [each.stored.data for each in await bus.work.fetch(names.lane(), 4)] == [b"2"]
    second.nak()
    again = await bus.work.fetch(names.lane(), 4)
    assert [(each.stored.data, each.deliveries) for each in again] == [(b"1", 2)]


async def test_waiting_pulls_take_turns(names: Names) -> None:
    """Three idle instances get one message each before anybody gets a second one."""
    broker = MemoryBroker()
    buses = [MemoryBus(broker, f"bus-{n}") for n in range(3)]
    await buses[0].work.ensure_lane(names.capability, "p", "normal")
    got = Received[tuple[int, bytes]]()

    def note(who: int, delivery: Delivery) -> None:
        got((who, delivery.stored.data))

    pulls = [
        bus.work.wait([names.lane()], 2, lambda delivery, who=who: note(who, delivery))
        for who, bus in enumerate(buses)
    ]
    await dispatched(broker, names, 6)
    assert await got.reach(6) == [(n % 3, b"%d" % n) for n in range(6)]
    for pull in pulls:
        await pull.end()


async def shared_by_group(seed: int) -> list[int]:
    """Who of a queue group got each of twenty messages."""
    broker = MemoryBroker(seed=seed)
    bus = MemoryBus(broker, "bus-a")
    got: list[int] = []

    def note(who: int, _message: Message) -> None:
        got.append(who)

    for who in range(3):
        await bus.core.subscribe("sg.api.x", lambda m, who=who: note(who, m), queue="q")
    for _ in range(20):
        bus.core.publish("sg.api.x", b"")
    await bus.facts()
    return got


async def test_same_seed_gives_the_same_order() -> None:
    """Choices repeat with the seed, and differ between seeds."""
    one, same, other = [await shared_by_group(seed) for seed in (1, 1, 2)]
    assert len(one) == 20
    assert one == same
    assert one != other


async def test_newest_progress_of_a_task_is_kept(names: Names) -> None:
    """Published by core message, stored once per subject."""
    broker = MemoryBroker()
    bus = MemoryBus(broker, "bus-a")
    subject = subjects.progress(names.scope())
    bus.core.publish(subject, b"1")
    bus.core.publish(subject, b"2")
    assert [stored.data for stored in broker.progress.under(subject)] == [b"2"]


async def test_blob_with_other_content_is_refused(names: Names) -> None:
    """Bytes that do not have the digest that names them are an error, not a result."""
    broker = MemoryBroker()
    bus = MemoryBus(broker, "bus-a")
    digest = await bus.blobs.put(names.owner.encode())
    broker.blobs[digest] = b"forged"
    with pytest.raises(ProtocolError) as caught:
        await bus.blobs.get(digest)
    assert caught.value.code == "SG1109"


@pytest.mark.looptime
async def test_topic_forgets_ids_after_two_minutes_and_messages_after_their_ttl(
    names: Names,
) -> None:
    """In virtual time, to the second."""
    broker = MemoryBroker(clock=LoopClock(START))
    bus = MemoryBus(broker, "a")
    subject = subjects.topic(names.capability)
    assert await bus.topics.publish(subject, b"1", id="one", ttl=timedelta(seconds=119.5))
    await asyncio.sleep(119)
    assert len(broker.topics.under(subject)) == 1
    assert not await bus.topics.publish(subject, b"2", id="one")
    await asyncio.sleep(1.5)
    assert broker.topics.under(subject) == []
    assert await bus.topics.publish(subject, b"3", id="one")
    assert [stored.data for stored in broker.topics.under(subject)] == [b"3"]


async def test_full_topics_are_unavailable(names: Names) -> None:
    """As a full ledger is; the refused message may be published again under its id."""
    broker = MemoryBroker(clock=LoopClock(START), topics_max_bytes=1000)
    bus = MemoryBus(broker, "a")
    subject = subjects.topic(names.capability)
    await bus.topics.publish(subject, bytes(700), id="one")
    with pytest.raises(Unavailable) as raised:
        await bus.topics.publish(subject, bytes(700), id="two")
    assert raised.value.retry_after
    broker.topics.purge(subject)
    assert await bus.topics.publish(subject, bytes(700), id="two")


@pytest.mark.looptime
async def test_mark_of_a_removed_document_ends_by_itself(names: Names) -> None:
    """After a minute nothing is left of it; one that was stored again in that minute stays."""
    broker = MemoryBroker(clock=LoopClock(START))
    bus = MemoryBus(broker, "a")
    gone, back = (subjects.schedule(names.owner, name) for name in ("gone", "back"))
    for subject in (gone, back):
        await bus.documents.put(subject, b"1")
        await bus.documents.remove(subject)
    await bus.documents.put(back, b"2", expect=0)
    assert len(broker.config.under("sg.config.>")) == 2
    await asyncio.sleep(61)
    assert [stored.data for stored in broker.config.under("sg.config.>")] == [b"2"]


async def test_crash_and_close_are_heard_once() -> None:
    """Whoever died hears nothing itself, and closing what has crashed tells nobody again."""
    broker = MemoryBroker()
    crashed, closed, listening = (MemoryBus(broker, name) for name in ("x", "y", "z"))
    heard, own = Received[str](), Received[str]()
    await listening.watch_losses(heard)
    await crashed.watch_losses(own)
    broker.crash(crashed)
    await crashed.close()
    await closed.close()
    await heard.reach(2)
    await listening.ledger.last_sequence()
    assert (heard.items, own.items) == (["x", "y"], [])
