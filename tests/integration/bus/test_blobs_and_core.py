"""Blobs by digest, core messages, and what the `nats` CLI asks."""

# Some faults can only be set up, and seen, from inside.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from switchgear.bus import blobs
from switchgear.bus.connection import NatsBus
from switchgear.bus.micro import serve_micro
from switchgear.bus.port import Message
from switchgear.contract import subjects
from switchgear.errors import NotFound, ProtocolError, Unavailable
from switchgear.server import EmbeddedServer
from tests.integration.bus.faults import Cut, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


async def pieces(bus: NatsBus) -> int:
    """Messages in the object store."""
    return (await bus.link.asking.api("STREAM.INFO.OBJ_SG_BLOBS"))["state"]["messages"]


@pytest.mark.parametrize("size", [0, 1, blobs.CHUNK, blobs.CHUNK + 1, 1_000_000])
async def test_blob_comes_back_whole(bus: NatsBus, size: int) -> None:
    data = os.urandom(size)
    digest = await bus.blobs.put(data)
    assert hashlib.sha256(data).hexdigest() == digest
    assert data == await bus.blobs.get(digest)


async def test_blob_is_stored_once(own_bus: NatsBus) -> None:
    data = os.urandom(300_000)
    await own_bus.blobs.put(data)
    before = await pieces(own_bus)
    await own_bus.blobs.put(data)
    assert 4 == before == await pieces(own_bus)


async def test_racing_puts_of_one_blob_leave_no_rest(own_bus: NatsBus) -> None:
    data = os.urandom(300_000)
    digests = await asyncio.gather(*[own_bus.blobs.put(data) for _ in range(6)])
    assert len(set(digests)) == 1
    assert data == await own_bus.blobs.get(digests[0])
    async with asyncio.timeout(PATIENCE):
        while await pieces(own_bus) != 4:
            pass


class Later:
    """A clock that is ahead."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        """The time it shows."""
        return datetime.now(UTC) + self._by


async def test_old_blob_is_stored_anew(own_bus: NatsBus) -> None:
    """So that the janitor, who takes blobs last put a day ago, does not take it."""
    data = os.urandom(300_000)
    digest = await own_bus.blobs.put(data)
    before = (await own_bus.link.asking.api("STREAM.INFO.OBJ_SG_BLOBS"))["state"]["last_seq"]
    late = blobs.ObjectBlobs(own_bus.link, Later(timedelta(hours=13)))
    assert digest == await late.put(data)
    info = await own_bus.link.asking.api("STREAM.INFO.OBJ_SG_BLOBS")
    assert before + 4 == info["state"]["last_seq"]
    async with asyncio.timeout(PATIENCE):
        while await pieces(own_bus) != 4:
            pass
    assert data == await own_bus.blobs.get(digest)


async def test_changed_content_is_noticed(own_bus: NatsBus) -> None:
    digest = await own_bus.blobs.put(b"right")
    _, described = await own_bus.blobs._look(digest)
    assert described is not None
    await own_bus.link.publisher.publish(
        f"$O.SG_BLOBS.C.{described['nuid']}", "NATS/1.0\r\n\r\n", b"wrong"
    )
    with pytest.raises(ProtocolError) as raised:
        await own_bus.blobs.get(digest)
    assert raised.value.code == "SG1109"


async def store(bus: NatsBus, subject: str, data: bytes) -> None:
    """As a raw writer does."""
    await bus.link.publisher.publish(subject, "NATS/1.0\r\n\r\n", data)


async def test_pieces_without_a_blob_are_tidied_up_when_they_are_old(own_bus: NatsBus) -> None:
    """Of a put that was cut short; those of blobs and of foreign objects stay."""
    data = os.urandom(300_000)
    digest = await own_bus.blobs.put(data)
    await store(own_bus, "$O.SG_BLOBS.C.foreign", b"piece")
    await store(own_bus, "$O.SG_BLOBS.M.bmFtZQ==", b'{"name":"name","nuid":"foreign"}')
    for _ in range(2):
        await store(own_bus, "$O.SG_BLOBS.C.cut", b"piece")
    now = datetime.now(UTC)
    assert await own_bus.blobs.tidy(now - timedelta(minutes=1)) == 0
    assert await own_bus.blobs.tidy(now + timedelta(minutes=1)) == 2
    assert await pieces(own_bus) == 4 + 2
    assert await own_bus.blobs.get(digest) == data
    assert [one.digest for one in await own_bus.blobs.list()] == [digest]


async def test_tidying_up_takes_many_uploads_in_parts(
    own_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what it holds in memory is bounded."""
    monkeypatch.setattr(blobs, "AT_ONCE", 2)
    digest = await own_bus.blobs.put(b"kept")
    for number in range(5):
        await store(own_bus, f"$O.SG_BLOBS.C.cut{number}", b"piece")
    assert await own_bus.blobs.tidy(datetime.now(UTC) + timedelta(minutes=1)) == 5
    assert await own_bus.blobs.get(digest) == b"kept"


@pytest.mark.parametrize("nuid", ["*", ">", "a.b"])
async def test_raw_wildcard_costs_nobody_a_piece(own_bus: NatsBus, nuid: str) -> None:
    """Neither as the name of pieces nor in a description."""
    digest = await own_bus.blobs.put(b"kept")
    hostile = await own_bus.blobs.put(b"hostile")
    subject = blobs._meta(hostile)
    await own_bus.link.publisher.publish(
        subject, "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n", b'{"nuid":"%s"}' % nuid.encode()
    )
    await store(own_bus, f"$O.SG_BLOBS.C.{nuid}", b"piece")
    (described,) = [one for one in await own_bus.blobs.list() if one.digest == hostile]
    assert await own_bus.blobs.remove(hostile, expect=described.sequence)
    await own_bus.blobs.tidy(datetime.now(UTC) + timedelta(minutes=1))
    assert await own_bus.blobs.get(digest) == b"kept"
    assert await own_bus.blobs.put(b"hostile") == hostile
    assert await own_bus.blobs.get(hostile) == b"hostile"


async def test_pieces_of_a_removed_blob_go_and_anothers_that_it_claimed_stay(
    own_bus: NatsBus,
) -> None:
    """Nobody checks who wrote a description."""
    digest = await own_bus.blobs.put(b"kept")
    claimer = await own_bus.blobs.put(b"claimer")
    _, described = await own_bus.blobs._look(digest)
    assert described is not None
    await own_bus.link.publisher.publish(
        blobs._meta(claimer),
        "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n",
        msgspec.json.encode({"nuid": described["nuid"]}),
    )
    found = {one.digest: one.sequence for one in await own_bus.blobs.list()}
    assert await own_bus.blobs.remove(claimer, expect=found[claimer])
    assert await own_bus.blobs.tidy(datetime.now(UTC) + timedelta(minutes=1)) == 1
    assert await own_bus.blobs.get(digest) == b"kept"
    assert await pieces(own_bus) == 2


async def test_unknown_blob_is_not_found(bus: NatsBus) -> None:
    with pytest.raises(NotFound):
        await bus.blobs.get(hashlib.sha256(os.urandom(9)).hexdigest())
    with pytest.raises(ProtocolError):
        await bus.blobs.get("../../x")


async def test_standard_clients_read_our_blobs(nats_server: EmbeddedServer, bus: NatsBus) -> None:
    data = os.urandom(300_000)
    digest = await bus.blobs.put(data)
    client = Client()
    await client.connect(nats_server.url)
    try:
        store = await JetStreamContext(client).object_store("SG_BLOBS")
        assert data == (await store.get(digest)).data
    finally:
        await client.close()


async def test_request_without_a_listener_fails_at_once(bus: NatsBus, capability: str) -> None:
    with pytest.raises(Unavailable, match="nobody listens"):
        await asyncio.wait_for(
            bus.core.request(f"x.{capability}", b"", timeout=timedelta(hours=1)), PATIENCE
        )


async def test_unanswered_request_ends_in_time(bus: NatsBus, capability: str) -> None:
    await bus.core.subscribe(f"x.{capability}", lambda _: None)
    with pytest.raises(Unavailable, match="within"):
        await bus.core.request(f"x.{capability}", b"", timeout=timedelta(seconds=0.05))


@pytest.mark.faults
async def test_request_over_a_line_that_breaks_fails_at_once(
    cut_bus: NatsBus, cut: Cut, capability: str
) -> None:
    """nats-py alone would wait for the whole timeout."""
    await cut_bus.core.subscribe(f"x.{capability}", lambda _: cut.cut())
    with pytest.raises(Unavailable):
        await asyncio.wait_for(
            cut_bus.core.request(f"x.{capability}", b"", timeout=timedelta(hours=1)), PATIENCE
        )


@pytest.mark.faults
async def test_subscription_survives_a_cut_and_ends_when_told(
    cut_bus: NatsBus, cut: Cut, capability: str
) -> None:
    heard: list[Message] = []
    back = asyncio.Event()
    cut_bus.on_reconnect(back.set)
    subscription = await cut_bus.core.subscribe(f"x.{capability}", heard.append, queue="q")
    cut.cut()
    await asyncio.wait_for(back.wait(), PATIENCE)
    cut_bus.core.publish(f"x.{capability}", b"1")
    await until(lambda: [one.data for one in heard] == [b"1"])
    await subscription.unsubscribe()
    cut_bus.core.publish(f"x.{capability}", b"2")
    await cut_bus.facts()
    assert len(heard) == 1


@pytest.mark.faults
async def test_publishes_during_an_outage_wait_within_a_bound(
    cut_bus: NatsBus, cut: Cut, nats_server: EmbeddedServer, capability: str
) -> None:
    heard: list[int] = []
    await cut_bus.core.subscribe(f"x.{capability}", lambda message: heard.append(len(message.data)))
    cut.closed = True
    cut.cut()
    await until(lambda: not cut_bus.link.client.ready)
    for _ in range(3):
        cut_bus.core.publish(f"x.{capability}", bytes(900_000))
    assert cut_bus.link.client.dropped == 1
    cut.closed = False
    await until(lambda: heard == [900_000] * 2)


async def test_live_feed_carries_the_entry(bus: NatsBus, scope: str) -> None:
    heard: list[Message] = []
    await bus.core.subscribe(subjects.live_task(scope), heard.append)
    subject = subjects.task_event(scope, "submitted")
    await bus.ledger.append(subject, b"{}", scope=scope, expect=0)
    await until(lambda: len(heard) == 1)
    assert f"sg.live.{subject[len('sg.task.') :]}" == heard[0].subject
    assert b"\r\nNats-Sequence: " in heard[0].headers


async def test_micro_answers_what_the_cli_asks(bus: NatsBus, capability: str) -> None:
    told: dict[str, Any] = {
        "name": capability,
        "id": "i1",
        "version": "1.2.3",
        "description": "lints",
        "metadata": {"labels": "x"},
        "endpoints": [{"name": "lint", "subject": "sg.x", "num_requests": 2, "processing_time": 9}],
    }
    service = await serve_micro(bus.core, lambda: told)

    async def ask(verb: str, *tokens: str) -> dict[str, Any]:
        subject = ".".join(("$SRV", verb, capability, *tokens))
        return msgspec.json.decode(
            await bus.core.request(subject, b"", timeout=timedelta(seconds=PATIENCE))
        )

    ping = await ask("PING", "i1")
    assert (ping["type"], ping["id"]) == ("io.nats.micro.v1.ping_response", "i1")
    info = await ask("INFO")
    assert (info["description"], info["endpoints"][0]["subject"]) == ("lints", "sg.x")
    stats = await ask("STATS", "i1")
    assert (
        stats["endpoints"][0]["num_requests"],
        stats["endpoints"][0]["average_processing_time"],
    ) == (2, 4)
    assert stats["started"].endswith("Z")
    await service.unsubscribe()
    with pytest.raises(Unavailable):
        await ask("PING")
