"""Reads: the server's word is told from a writer's, whatever headers the writer made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from switchgear.bus import pulling, reading
from switchgear.bus.connection import NatsBus, connect
from switchgear.bus.port import Appended
from switchgear.bus.pulling import Link
from switchgear.contract import subjects
from switchgear.contract.stored import Stored, expectation
from switchgear.errors import Unavailable
from switchgear.server import EmbeddedServer
from tests.integration.bus.faults import Cut, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


async def raw(bus: NatsBus, subject: str, headers: bytes, body: bytes = b"raw") -> int:
    """Store with this very header block."""
    outcome = await bus.link.publisher.publish(subject, headers.decode("latin-1"), body)
    assert isinstance(outcome, Appended)
    return outcome.sequence


FORGED = {
    "all four": b"NATS/1.0\r\nNats-Stream: SG_LEDGER\r\nNats-Subject: sg.task.x.y.z.completed\r\n"
    b"Nats-Sequence: 999\r\nNats-Time-Stamp: 2020-01-01T00:00:00Z\r\n\r\n",
    "lower case": b"NATS/1.0\r\nnats-sequence: 999\r\nnats-subject: sg.task.x.y.z.completed\r\n\r\n",
    "last first": b"NATS/1.0\r\nNats-Time-Stamp: 2020-01-01T00:00:00Z\r\nNats-Stream: x\r\n\r\n",
    "block in a value": b"NATS/1.0\r\nX: Nats-Stream: SG_LEDGER\r\n\r\n",
    "two ends": b"NATS/1.0\r\nX: a\r\n\r\nNats-Sequence: 999\r\n\r\n",
    "garbage": b"garbage\r\n\r\n\r\n\r\n",
}


@pytest.mark.parametrize("case", FORGED)
async def test_forged_metadata_is_only_a_writers_bytes(bus: NatsBus, scope: str, case: str) -> None:
    """All ways to read give the server's subject, sequence and time, and the writer's own block."""
    subject = subjects.task_event(scope, "submitted")
    sequence = await raw(bus, subject, FORGED[case])
    entry = await bus.ledger.entry(sequence)
    assert entry is not None
    assert (subject, sequence, FORGED[case]) == (entry.subject, entry.sequence, entry.headers)
    assert entry.time.year > 2024
    assert entry == await bus.ledger.tail(scope)
    assert entry == await bus.ledger.leader_tail(scope)
    assert [entry] == await bus.ledger.history(scope)


EXPECTS = (
    b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"
    b"Nats-Expected-Last-Subject-Sequence-Subject: SCOPE"
)

CUT_OFF = {
    "two bytes more": b">ZZ",
    "no line end": b">",
    "one line end": b">\r\n",
    "half a line behind": b">\r\nX",
    "a line end and two bytes": b">\r\nXX",
    "a carriage return": b">\r",
}


@pytest.mark.parametrize("case", CUT_OFF)
async def test_all_reads_of_a_cut_off_block_prove_the_same(
    bus: NatsBus, scope: str, case: str
) -> None:
    """The server overwrites a block's last two bytes with its own headers: no verdict hangs on them."""
    block = EXPECTS.replace(b"SCOPE", scope[:-1].encode()) + CUT_OFF[case]
    sequence = await raw(bus, subjects.task_event(scope, "submitted"), block)
    entry = await bus.ledger.entry(sequence)
    assert entry is not None
    assert entry == await bus.ledger.tail(scope)
    assert [entry] == await bus.ledger.history(scope)
    wanted = 0 if case == "a line end and two bytes" else None
    assert wanted == expectation(entry.headers, scope)


async def test_tail_takes_a_wildcard_for_the_capability(bus: NatsBus, capability: str) -> None:
    scope = subjects.scope(capability, capability, "task")
    await raw(bus, subjects.task_event(scope, "submitted"), b"NATS/1.0\r\n\r\n")
    found = await bus.ledger.tail(f"sg.task.*.{capability}.task.>")
    assert found is not None
    assert subjects.task_event(scope, "submitted") == found.subject


async def test_long_history_is_read_whole_and_in_order(bus: NatsBus, scope: str) -> None:
    publish = bus.link.publisher.publish
    calls = [publish(f"{scope[:-1]}x", "NATS/1.0\r\n\r\n", b"%d" % n) for n in range(1200)]
    await asyncio.gather(*calls)
    found = await bus.ledger.history(scope)
    assert [b"%d" % n for n in range(1200)] == [one.data for one in found]


@pytest.mark.faults
async def test_history_outlives_a_cut(cut_bus: NatsBus, cut: Cut, scope: str) -> None:
    publish = cut_bus.link.publisher.publish
    await asyncio.gather(*[publish(f"{scope[:-1]}x", "NATS/1.0\r\n\r\n", b"") for _ in range(600)])
    reading = asyncio.create_task(cut_bus.ledger.history(scope))
    mark = len(cut.sent)
    async with asyncio.timeout(PATIENCE):
        while b"MSG.NEXT" not in cut.sent[mark:]:
            await asyncio.sleep(0)
    cut.cut()
    assert len(await asyncio.wait_for(reading, PATIENCE)) == 600


async def next_of(batches: AsyncIterator[list[Stored]], count: int) -> list[Stored]:
    """So many entries."""
    found: list[Stored] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in batches:
            found += batch
            if len(found) >= count:
                return found
    return found


@pytest.mark.faults
async def test_follow_survives_a_restart_without_gap_or_repeat(
    own_bus: NatsBus, server: EmbeddedServer
) -> None:
    publish = own_bus.link.publisher.publish

    async def store(count: int) -> None:
        calls = [publish("sg.task.a.b.c.x", "NATS/1.0\r\n\r\n", b"") for _ in range(count)]
        await asyncio.gather(*calls)

    await store(1500)
    batches = own_bus.ledger.follow(10)
    found = await next_of(batches, 1490)
    server.kill()
    await server.start()
    await store(50)
    found += await next_of(batches, 50)
    assert list(range(11, 1551)) == [one.sequence for one in found]


@pytest.mark.faults
async def test_follow_misses_nothing_that_a_cut_swallowed(
    cut_bus: NatsBus, cut: Cut, nats_server: EmbeddedServer, scope: str
) -> None:
    """Without acks nobody sends it again, and nothing later need ever show the gap."""
    last = await cut_bus.ledger.last_sequence()
    batches = cut_bus.ledger.follow(last)
    async with asyncio.timeout(PATIENCE):
        assert await anext(batches) == []
    cut.deaf = True
    other = await connect(nats_server.url)
    for _ in range(3):
        await other.link.publisher.publish(f"{scope[:-1]}x", "NATS/1.0\r\n\r\n", b"")
    cut.cut()
    cut.deaf = False
    found = await next_of(batches, 3)
    assert len([one for one in found if one.subject == f"{scope[:-1]}x"]) == 3
    await other.close()


@pytest.mark.faults
async def test_follow_that_begins_in_an_outage_goes_on_after_it(
    bus: NatsBus, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An election, say: nobody creates the reader's consumer for longer than a call waits."""
    create = reading.ensure_consumer
    failures = 2

    async def failing(link: Link, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise Unavailable("no leader")
        return await create(link, stream, config)

    monkeypatch.setattr(reading, "ensure_consumer", failing)
    last = await bus.ledger.last_sequence()
    await raw(bus, subjects.task_event(scope, "submitted"), b"NATS/1.0\r\n\r\n")
    found = await next_of(bus.ledger.follow(last), 1)
    assert last + 1 == found[0].sequence


@pytest.mark.faults
async def test_heartbeat_tells_of_what_was_swallowed(
    cut_bus: NatsBus,
    cut: Cut,
    nats_server: EmbeddedServer,
    scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No cut, no later message, no ack: only the heartbeat's count shows the gap."""
    monkeypatch.setattr(pulling, "_EXPIRY", '"expires":30000000000,"idle_heartbeat":100000000}')
    batches = cut_bus.ledger.follow(await cut_bus.ledger.last_sequence())
    async with asyncio.timeout(PATIENCE):
        assert await anext(batches) == []
    cut.deaf = True
    other = await connect(nats_server.url)
    await other.link.publisher.publish(f"{scope[:-1]}x", "NATS/1.0\r\n\r\n", b"")
    await until(lambda: cut.swallowed.count(scope[:-1].encode()) > 0)
    cut.deaf = False
    found = await next_of(batches, 1)
    assert f"{scope[:-1]}x" in {one.subject for one in found}
    assert cut.connections == 1
    await other.close()


async def test_follow_of_a_closed_bus_ends_with_unavailable(nats_server: EmbeddedServer) -> None:
    bus = await connect(nats_server.url)
    batches = bus.ledger.follow(await bus.ledger.last_sequence())
    async with asyncio.timeout(PATIENCE):
        while await anext(batches):
            pass
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await bus.close()
        with pytest.raises(Unavailable):
            await waiting


@pytest.mark.faults
async def test_read_waits_for_a_server_that_restarts(
    own_bus: NatsBus, server: EmbeddedServer, scope: str
) -> None:
    sequence = await raw(own_bus, subjects.task_event(scope, "submitted"), b"NATS/1.0\r\n\r\n")
    server.kill()
    reading = asyncio.create_task(own_bus.ledger.tail(scope))
    await server.start()
    found = await asyncio.wait_for(reading, PATIENCE)
    assert found is not None
    assert sequence == found.sequence


async def test_no_reader_stays_on_the_server(bus: NatsBus, scope: str) -> None:
    before = await consumers(bus)
    for _ in range(5):
        await bus.ledger.history(scope)
    following = bus.ledger.follow(0)
    async for batch in following:
        if not batch:
            break
    assert isinstance(following, AsyncGenerator)
    await following.aclose()
    await bus.facts()
    assert before >= await consumers(bus)


async def consumers(bus: NatsBus) -> int:
    """How many consumers the ledger has."""
    info = await bus.link.asking.api("STREAM.INFO.SG_LEDGER")
    return info["state"]["consumer_count"]
