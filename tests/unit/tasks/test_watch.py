"""Following tasks: live entries, gaps, and what is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from switchgear.bus.port import Message
from switchgear.contract import entries
from switchgear.tasks.live import stored_of
from switchgear.tasks.watch import Watch
from switchgear.testing.memory import MemoryBus
from switchgear.testing.site import Site
from tests.unit.agent.stage import NULL, Stage

SCOPE = "sg.task.work.alice.t1.>"
DIGEST = "0" * 64


class Scene:
    """A watch on one connection, and a writer on another."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.bus: MemoryBus = site.bus("watcher")
        self.watch = Watch(self.bus)
        self.on = Stage(site)

    def submitted(self) -> None:
        self.on.append(SCOPE, "submitted", honest=True, input=NULL, digest=DIGEST)

    def cancelled(self, *, honest: bool = True) -> None:
        self.on.append(SCOPE, "cancelled", honest=honest, reason="over")


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    """Nothing but a broker, in virtual time."""
    async with Site() as site:
        made = Scene(site)
        yield made
        await made.watch.close()


async def test_end_is_told_without_a_read(scene: Scene) -> None:
    """Who follows from the beginning needs the live feed only."""
    await scene.watch.open("sg.live.*.alice.>")
    followed = scene.watch.follow(SCOPE, fresh=False)
    await asyncio.sleep(0.1)
    scene.submitted()
    scene.cancelled()
    history = await followed.ended
    assert isinstance(history.end, entries.Cancelled)


async def test_end_before_the_watch_is_read(scene: Scene) -> None:
    """A task that had ended is told as well."""
    scene.submitted()
    scene.cancelled()
    history = await scene.watch.follow(SCOPE, fresh=False).ended
    assert history.ended == "cancelled"


async def test_void_end_is_no_end(scene: Scene) -> None:
    """A terminal entry that proves nothing is not believed; the real one is."""
    await scene.watch.open("sg.live.*.alice.>")
    followed = scene.watch.follow(SCOPE, fresh=False)
    scene.submitted()
    scene.cancelled(honest=False)
    await asyncio.sleep(100)
    assert not followed.ended.done()
    scene.cancelled()
    history = await followed.ended
    assert len(history.voids) == 1


async def test_entry_whose_headers_leave_doubt_is_read_from_the_ledger(scene: Scene) -> None:
    """A writer may send the broker's own headers: then the live copy proves nothing."""
    await scene.watch.open("sg.live.*.alice.>")
    followed = scene.watch.follow(SCOPE, fresh=False)
    scene.submitted()
    forged = b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
    scene.site.broker.store("sg.task.work.alice.t1.completed", forged, b"{}")
    scene.cancelled()
    history = await followed.ended
    assert history.ended == "cancelled"
    assert [void.stored.sequence for void in history.voids] == [2]


async def test_forgetting_ends_the_wait_of_the_last_follower_only(scene: Scene) -> None:
    """Two wait for one task: one leaves, the other still hears the end."""
    await scene.watch.open("sg.live.*.alice.>")
    first = scene.watch.follow(SCOPE, fresh=False)
    second = scene.watch.follow(SCOPE, fresh=False)
    assert first is second
    scene.watch.forget(SCOPE)
    scene.submitted()
    scene.cancelled()
    assert (await second.ended).ended == "cancelled"
    third = scene.watch.follow("sg.task.work.alice.t2.>", fresh=False)
    scene.watch.forget("sg.task.work.alice.t2.>")
    scene.watch.forget("sg.task.work.alice.t2.>")
    with pytest.raises(asyncio.CancelledError):
        await third.ended


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"NATS/1.0\r\nNats-Sequence: 3\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 3\r\nNats-Time-Stamp: yesterday\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 3\r\nNats-Time-Stamp: \xff\r\n\r\n",
        b"NATS/1.0\r\nX: Nats-Sequence: 3\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n",
    ],
)
def test_live_message_with_other_headers_is_doubted(headers: bytes) -> None:
    """Never an exception: the ledger is read instead."""
    assert stored_of(Message("sg.live.a.b.c.completed", b"", "", headers)) is None


def test_live_message_gives_sequence_and_time_to_the_nanosecond() -> None:
    """As the ledger's own copy would."""
    headers = (
        b"NATS/1.0\r\nNats-Stream: SG_LEDGER\r\nNats-Subject: sg.task.a.b.c.completed\r\n"
        b"Nats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00.1234567Z\r\n\r\n"
    )
    stored = stored_of(Message("sg.live.a.b.c.completed", b"x", "", headers))
    assert stored is not None
    assert (stored.subject, stored.sequence) == ("sg.task.a.b.c.completed", 7)
    assert stored.time_ns == 1_767_225_600_123_456_700


def test_live_message_of_a_cut_off_block_proves_as_little_as_the_ledgers_copy() -> None:
    """The server's headers must not complete what the writer left open, or watchers alone would believe it."""
    headers = (
        b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 6\r\n"
        b"Nats-Expected-Last-Subject-Sequence-Subject: sg.task.a.b.c.>Nats-Stream: SG_LEDGER\r\n"
        b"Nats-Subject: sg.task.a.b.c.completed\r\nNats-Sequence: 7\r\n"
        b"Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
    )
    stored = stored_of(Message("sg.live.a.b.c.completed", b"x", "", headers))
    assert stored is not None
    assert stored.headers == b""
