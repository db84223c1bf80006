"""Documents, topics and losses on a real server: lost answers, restarts, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from switchgear.bus.connection import NatsBus, Options, connect
from switchgear.bus.port import Appended, Kept, Refused
from switchgear.bus.streams import StreamSettings
from switchgear.contract import subjects
from switchgear.errors import ServerUnfit, Unavailable
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.integration.bus.faults import Cut, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

TOPIC_BYTES = 4096


@pytest_asyncio.fixture
async def small(private_server: StartServer) -> AsyncIterator[NatsBus]:
    """A bus whose topics have little room, and whose messages soon grow old."""
    streams = StreamSettings(topic_bytes=TOPIC_BYTES, topic_age=timedelta(hours=1))
    bus = await connect((await private_server()).url, options=Options(streams=streams))
    await bus.ensure_streams()
    yield bus
    await bus.close()


def seen(heard: list[Kept]) -> list[tuple[str, bytes | None]]:
    """Subjects' last tokens and data."""
    return [(one.subject.rpartition(".")[2], one.data) for one in heard]


@pytest.mark.faults
@pytest.mark.parametrize("expect", [0, None], ids=["expecting", "unconditional"])
async def test_document_whose_answer_was_lost_is_stored_once_and_known_as_ours(
    cut_bus: NatsBus, cut: Cut, capability: str, expect: int | None
) -> None:
    """The repeat is refused for its own first send, or is a duplicate: both are a success."""
    subject = subjects.lease(capability)
    cut.deaf = True
    call = asyncio.ensure_future(cut_bus.documents.put(subject, b"mine", expect=expect))
    await until(lambda: b"SG_CONFIG" in cut.swallowed)
    cut.cut()
    cut.deaf = False
    outcome = await asyncio.wait_for(call, PATIENCE)
    assert cut.sent.count(f"HPUB {subject} ".encode()) == 2
    found = await cut_bus.documents.get(subject)
    assert found is not None
    assert outcome == Appended(found.sequence)
    assert isinstance(outcome, Appended)


async def test_of_racing_replicas_only_one_is_told_that_it_stored(
    bus: NatsBus, nats_server: EmbeddedServer, capability: str
) -> None:
    """Also where the mark of a removal stands, which takes a second look."""
    other = await connect(nats_server.url)
    subject = subjects.lease(capability)
    await bus.documents.remove(subject)
    outcomes = await asyncio.gather(
        *((bus, other)[n % 2].documents.put(subject, b"%d" % n, expect=0) for n in range(30))
    )
    assert len([one for one in outcomes if isinstance(one, Appended)]) == 1
    assert len([one for one in outcomes if isinstance(one, Refused)]) == 29
    await other.close()


@pytest.mark.faults
async def test_watch_of_documents_catches_up_after_a_restart(
    own_bus: NatsBus, server: EmbeddedServer
) -> None:
    """Also with one that was purged meanwhile, of which no mark is left."""
    heard: list[Kept] = []
    watching = await own_bus.documents.watch("sg.config.lease.*", heard.append)
    for name in ("stays", "goes", "purged"):
        await own_bus.documents.put(subjects.lease(name), b"1")
    await own_bus.documents.put(subjects.trigger("other"), b"1")
    await until(lambda: len(heard) == 3)
    store = server.store_dir
    await server.stop()
    # at another address, so that the watch is not back before all this has happened
    async with EmbeddedServer(store) as elsewhere:
        other = await connect(elsewhere.url)
        await other.link.asking.api("STREAM.PURGE.SG_CONFIG", {"filter": subjects.lease("purged")})
        await other.documents.remove(subjects.lease("goes"))
        await other.documents.put(subjects.lease("new"), b"1")
        await other.close()
    await server.start()
    wanted = {("goes", None), ("purged", None), ("new", b"1")}
    await until(lambda: wanted <= set(seen(heard)))
    assert seen(heard).count(("stays", b"1")) == 1
    assert "other" not in dict(seen(heard))
    await watching.end()


async def test_mark_of_a_removal_ends_by_itself(bus: NatsBus, capability: str) -> None:
    """The broker is told to forget it after a minute."""
    await bus.documents.remove(subjects.lease(capability))
    found = await bus.link.asking.read(f"$JS.API.DIRECT.GET.SG_CONFIG.{subjects.lease(capability)}")
    assert b"\r\nNats-TTL: 60s\r\n" in found.headers
    assert found.data == b""


async def test_full_topics_say_when_to_retry(small: NatsBus) -> None:
    """A refused message is not remembered: it may be published again once there is room."""
    subject = subjects.topic("full")
    for n in range(3):
        assert await small.topics.publish(subject, bytes(1000), id=f"{n}")
    with pytest.raises(Unavailable) as raised:
        await small.topics.publish(subject, bytes(1000), id="3")
    assert raised.value.retry_after
    await small.link.asking.api("STREAM.PURGE.SG_TOPICS")
    assert await small.topics.publish(subject, bytes(1000), id="3")


async def test_topic_settings_are_those_given(small: NatsBus) -> None:
    info = await small.link.asking.api("STREAM.INFO.SG_TOPICS")
    assert (info["config"]["max_bytes"], info["config"]["max_age"]) == (TOPIC_BYTES, 3600 * 10**9)


@pytest.mark.faults
async def test_message_whose_answer_was_lost_is_stored_once(
    cut_bus: NatsBus, cut: Cut, capability: str
) -> None:
    subject = subjects.topic(capability)
    cut.deaf = True
    call = asyncio.ensure_future(cut_bus.topics.publish(subject, b"1", id=capability))
    await until(lambda: b"SG_TOPICS" in cut.swallowed)
    cut.cut()
    cut.deaf = False
    assert not await asyncio.wait_for(call, PATIENCE)
    await cut_bus.work.ensure_intake(f"count={capability}", [subject], source="topics")
    found = await cut_bus.work.backlog(f"count={capability}", source="topics")
    assert found is not None
    assert found.pending == 1


@pytest.mark.faults
async def test_broken_connection_is_heard_by_its_name(
    bus: NatsBus, cut_bus: NatsBus, cut: Cut
) -> None:
    """As that of a killed process; it comes back by itself, which is why this is no proof."""
    heard: list[str] = []
    subscription = await bus.watch_losses(heard.append)
    cut.cut()
    await until(lambda: cut_bus.name in heard)
    await subscription.unsubscribe()


async def test_ledger_beyond_the_store_is_refused(own_bus: NatsBus) -> None:
    before = await own_bus.ledger.room()
    with pytest.raises(ServerUnfit, match="no room"):
        await own_bus.ledger.enlarge(2**44)
    assert await own_bus.ledger.room() == before


@pytest.mark.faults
async def test_filtered_follow_goes_on_after_a_restart(
    own_bus: NatsBus, server: EmbeddedServer, capability: str
) -> None:
    """With the same filters, without bodies, each entry once."""

    async def append(task: str) -> int:
        scope = subjects.scope(capability, "own", task)
        subject = subjects.task_event(scope, "submitted")
        outcome = await own_bus.ledger.append(subject, b"body", scope=scope, expect=0)
        assert isinstance(outcome, Appended)
        return outcome.sequence

    wanted = [f"sg.task.{capability}.own.{task}.submitted" for task in ("a", "b")]
    batches = own_bus.ledger.follow(0, filters=wanted, bodies=False)
    found: list[tuple[int, bytes]] = []
    sequences = [await append("a")]
    async with asyncio.timeout(PATIENCE):
        while len(found) < 1:
            found += [(one.sequence, one.data) for one in await anext(batches)]
        server.kill()
        await server.start()
        await append("c")
        sequences.append(await append("b"))
        while len(found) < 2:
            found += [(one.sequence, one.data) for one in await anext(batches)]
    assert found == [(sequence, b"") for sequence in sequences]
