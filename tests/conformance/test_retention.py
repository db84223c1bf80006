"""What the janitor and the projections ask of the ledger: what is kept, how much, and reading some of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from switchgear.bus.port import Appended, Bus, Refused
from switchgear.contract import limits, subjects
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.errors import Unavailable
from switchgear.server import EmbeddedServer
from switchgear.testing.memory import MemoryBroker, MemoryBus
from tests.conformance.nats_backend import NatsBackend
from tests.conformance.support import Backend, Names
from tests.patience import PATIENCE

ROOM = 256 * limits.KIB
BODY = bytes(16 * limits.KIB)


async def memory_bus() -> Bus:
    """The twin, with little room."""
    return MemoryBus(MemoryBroker(ledger_max_bytes=ROOM), "bus-a")


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
def connect(request: pytest.FixtureRequest) -> Callable[[], Awaitable[Bus]]:
    """Each implementation in turn, on a broker of its own."""
    if request.param == "memory":
        return memory_bus
    start: Callable[[], Awaitable[EmbeddedServer]] = request.getfixturevalue("private_server")

    async def nats_bus() -> Bus:
        server = await start()
        return await NatsBackend(server.url, ledger_bytes=ROOM).bus(
            "bus-a",
            lane_ack_wait=limits.LANE_ACK_WAIT,
            intake_ack_wait=limits.INTAKE_ACK_WAIT,
        )

    return nats_bus


@pytest.fixture
async def own(connect: Callable[[], Awaitable[Bus]]) -> AsyncIterator[Bus]:
    """A bus on a broker of its own, whose ledger has little room."""
    bus = await connect()
    await bus.ensure_streams()
    yield bus
    await bus.close()


async def append(
    bus: Bus, scope: str, event: subjects.Event, expect: int, body: bytes = b"{}"
) -> int:
    """Append an entry; returns its sequence."""
    subject = subjects.task_event(scope, event)
    outcome = await bus.ledger.append(subject, body, scope=scope, expect=expect)
    assert isinstance(outcome, Appended)
    return outcome.sequence


async def caught_up(batches: AsyncIterator[list[Stored]]) -> list[Stored]:
    """What comes until the reader says that there is no more."""
    found: list[Stored] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in batches:
            if not batch:
                return found
            found += batch
    return found


async def test_deleted_entry_is_gone(bus: Bus, names: Names) -> None:
    scope = names.scope()
    first = await append(bus, scope, "submitted", 0)
    second = await append(bus, scope, "released", first)
    assert await bus.ledger.delete(first)
    assert await bus.ledger.entry(first) is None
    assert [entry.sequence for entry in await bus.ledger.history(scope)] == [second]
    assert not await bus.ledger.delete(first)


async def test_entry_that_never_was_cannot_be_deleted(bus: Bus) -> None:
    assert not await bus.ledger.delete(await bus.ledger.last_sequence() + 1000)


async def test_last_sequence_of_a_scope_falls_back_with_its_newest_entry(
    bus: Bus, names: Names
) -> None:
    """Why the janitor deletes a task's terminal entry last: an old expectation would fit again."""
    scope = names.scope()
    first = await append(bus, scope, "submitted", 0)
    second = await append(bus, scope, "released", first)
    await bus.ledger.delete(second)
    subject = subjects.task_event(scope, "completed")
    outcome = await bus.ledger.append(subject, b"", scope=scope, expect=second)
    assert outcome == Refused(first)
    third = await append(bus, scope, "completed", first)
    for sequence in (first, third):
        await bus.ledger.delete(sequence)
    assert await bus.ledger.tail(scope) is None
    assert await append(bus, scope, "submitted", 0) > third


async def test_first_sequence_is_that_of_the_oldest_entry(own: Bus, names: Names) -> None:
    """Of an empty ledger, new or not, it is the next one."""
    assert await own.ledger.first_sequence() == 1
    for n in range(3):
        await append(own, names.scope(f"t{n}"), "submitted", 0)
    assert await own.ledger.first_sequence() == 1
    await own.ledger.delete(2)
    assert await own.ledger.first_sequence() == 1
    await own.ledger.delete(1)
    assert await own.ledger.first_sequence() == 3
    await own.ledger.delete(3)
    assert await own.ledger.first_sequence() == 4
    assert await own.ledger.last_sequence() == 3


async def test_count_is_of_subjects_that_match(bus: Bus, names: Names) -> None:
    """An entry more under the same subject makes no difference, one that was deleted does."""
    last = 0
    for n in range(5):
        last = await append(bus, names.scope(f"t{n}"), "submitted", 0)
    again = await append(bus, names.scope("t4"), "released", last)
    await append(bus, names.scope("t4"), "released", again)
    count = bus.ledger.count
    every = f"sg.task.{names.capability}.*.*"
    assert await count(f"{every}.submitted") == 5
    assert await count(f"{every}.released") == 1
    assert await count(f"{every}.completed") == 0
    assert await count(f"sg.task.{names.capability}.>") == 6
    await bus.ledger.delete(last)
    assert await count(f"{every}.submitted") == 4


async def test_room_tells_use_and_limit(own: Bus, names: Names) -> None:
    """It grows with what is stored, and shrinks with what is deleted."""
    assert await own.ledger.room() == (0, ROOM)
    first = await append(own, names.scope(), "submitted", 0, BODY)
    used, limit = await own.ledger.room()
    assert len(BODY) < used < 2 * len(BODY)
    assert limit == ROOM
    await own.ledger.delete(first)
    assert await own.ledger.room() == (0, ROOM)


async def filled(bus: Bus, names: Names, prefix: str) -> int:
    """Append until the ledger refuses; returns how many it took."""
    for n in range(100):
        try:
            await append(bus, names.scope(f"{prefix}{n}"), "submitted", 0, BODY)
        except Unavailable:
            return n
    pytest.fail("the ledger never filled up")


async def test_full_ledger_takes_entries_once_it_is_enlarged(own: Bus, names: Names) -> None:
    stored = await filled(own, names, "a")
    await own.ledger.enlarge(2 * ROOM)
    assert (await own.ledger.room()).limit == 2 * ROOM
    assert 0 < await filled(own, names, "b") <= stored + 2


async def test_lowered_limit_deletes_nothing_and_refuses_more(own: Bus, names: Names) -> None:
    stored = await filled(own, names, "a")
    before = await own.ledger.room()
    await own.ledger.enlarge(ROOM // 4)
    assert await own.ledger.room() == (before.used, ROOM // 4)
    assert await own.ledger.count("sg.task.>") == stored
    assert await filled(own, names, "b") == 0
    await own.ledger.enlarge(0)
    assert (await own.ledger.room()).limit == 0
    await append(own, names.scope("c"), "submitted", 0, BODY)


async def test_followed_entries_are_those_of_the_filters(bus: Bus, names: Names) -> None:
    """Several filters make one order; an entry of none of them is not heard of later either."""
    after = await bus.ledger.last_sequence()
    scopes = [names.scope(f"t{n}") for n in range(3)]
    sequences = [await append(bus, scope, "submitted", 0) for scope in scopes]
    ended = await append(bus, scopes[0], "completed", sequences[0])
    filters = [
        f"sg.task.{names.capability}.*.*.completed",
        subjects.task_event(scopes[1], "submitted"),
    ]
    batches = bus.ledger.follow(after, filters=filters)
    assert [one.sequence for one in await caught_up(batches)] == [sequences[1], ended]
    await append(bus, scopes[2], "released", sequences[2])
    last = await append(bus, scopes[1], "completed", sequences[1])
    async with asyncio.timeout(PATIENCE):
        found = await anext(batches)
    assert [one.sequence for one in found] == [last]


async def test_followed_entry_without_body_keeps_everything_else(bus: Bus, names: Names) -> None:
    """Subject, sequence, time and headers are those of the whole entry; what has none has none."""
    after = await bus.ledger.last_sequence()
    await append(bus, names.scope(), "submitted", 0, BODY)
    only = [f"sg.task.{names.capability}.>"]
    (whole,) = await caught_up(bus.ledger.follow(after, filters=only))
    (bare,) = await caught_up(bus.ledger.follow(after, filters=only, bodies=False))
    assert whole.data == BODY
    assert whole._replace(data=b"") == bare


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Size: 7\r\n\r\n",
        header_block({"Nats-Msg-Size": "7", **expect_headers(0, "sg.task.none.o.t.>")}),
    ],
    ids=["none", "empty", "same name", "same name first"],
)
async def test_what_the_broker_adds_for_a_missing_body_is_not_seen(
    bus: Bus, names: Names, backend: Backend, headers: bytes
) -> None:
    """A writer's own header of the same name is."""
    after = await bus.ledger.last_sequence()
    subject = subjects.task_event(names.scope(), "submitted")
    await backend.raw(subject, headers, b"body")
    only = [f"sg.task.{names.capability}.>"]
    (bare,) = await caught_up(bus.ledger.follow(after, filters=only, bodies=False))
    (whole,) = await caught_up(bus.ledger.follow(after, filters=only))
    assert whole.data == b"body"
    assert whole._replace(data=b"").headers in {bare.headers, b"NATS/1.0\r\n\r\n"}
    assert bare.headers in {headers, b""}
