"""The observe service against real servers: what is appended is listed, come what may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from switchgear import errors
from switchgear.bus.connection import connect
from switchgear.bus.port import Appended, Bus
from switchgear.clock import SYSTEM, milliseconds
from switchgear.contract import codec, queries
from switchgear.ids import new_id
from switchgear.projections import service
from switchgear.projections.service import observe
from switchgear.server import EmbeddedServer
from tests.patience import PATIENCE
from tests.unit.projections.feed import Feed, Scope

pytestmark = pytest.mark.integration

StartServer = Callable[..., Awaitable[EmbeddedServer]]
T = TypeVar("T")
SOON = timedelta(seconds=PATIENCE)
TIMEOUT = timedelta(seconds=5)


@asynccontextmanager
async def observing(url: str, path: Path) -> AsyncGenerator[Bus]:
    """A client's connection to a mesh that is observed."""
    service, client = await connect(url, name="observer"), await connect(url, name="client")
    await service.ensure_streams()
    ready = asyncio.Event()
    running = asyncio.create_task(observe(service, path, ready=ready.set))
    try:
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        yield client
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})
        await client.close()
        await service.close()


class Writer:
    """Puts a task of its own owner into the ledger, entry by entry."""

    def __init__(self, bus: Bus, owner: str) -> None:
        self.bus, self.owner = bus, owner

    async def finish(self, name: str) -> None:
        """The usual life of a task."""
        scope = Feed().task(name, owner=self.owner)
        last = 0
        for event in ("submitted", "dispatched", "checkpoint", "completed"):
            last = await self.append(scope, event, last)

    async def append(self, scope: Scope, event: str, expect: int) -> int:
        """Append what the factory makes, with the sequences of the real stream."""
        stored = scope.add(event)
        answer = await self.bus.ledger.append(
            stored.subject, stored.data, scope=scope.scope, expect=expect
        )
        assert isinstance(answer, Appended)
        if event == "dispatched":
            scope.hold = answer.sequence
        return answer.sequence


async def ask(bus: Bus, verb: str, owner: str, data: bytes, kind: type[T]) -> T:
    answer = await bus.core.request(f"sg.api.{verb}.{owner}", data, timeout=TIMEOUT)
    return codec.decode(answer, kind, limit=2**20)


async def listed(
    bus: Bus, owner: str, wanted: Callable[[queries.TaskList], bool]
) -> queries.TaskList:
    """The owner's list, as soon as it is as wanted."""
    found: object = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    found = await ask(bus, "list", owner, b"{}", queries.TaskList)
                    if wanted(found):
                        return found
                except errors.SwitchgearError as error:  # an outage, or a Problem
                    found = error
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"last answer: {found}") from None


@pytest.fixture
def owner() -> str:
    """A principal that no other test uses."""
    return f"own-{new_id(milliseconds(SYSTEM.now()))}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "observe" / "history.sqlite"


async def test_what_is_appended_is_listed_and_told(
    nats_server: EmbeddedServer, path: Path, owner: str
) -> None:
    async with observing(nats_server.url, path) as bus:
        await Writer(bus, owner).finish("t1")
        (row,) = (await listed(bus, owner, lambda page: page.lag == 0)).tasks
        assert (row.id, row.state, row.attempt, row.agent) == ("t1", "completed", 1, "agent-1")
        query = codec.encode(queries.TimelineQuery(root="t1"))
        told = await ask(bus, "timeline", owner, query, queries.Timeline)
        assert [moment.event for moment in told.moments] == [
            "submitted",
            "dispatched",
            "checkpoint",
            "completed",
        ]
        assert {moment.void for moment in told.moments} == {""}


async def test_a_raw_end_changes_no_row(
    nats_server: EmbeddedServer, path: Path, owner: str
) -> None:
    async with observing(nats_server.url, path) as bus:
        scope = Feed().task("t1", owner=owner)
        await Writer(bus, owner).append(scope, "submitted", 0)
        bus.core.publish(f"{scope.scope[:-1]}cancelled", scope.add("cancelled").data)
        query = codec.encode(queries.TimelineQuery(root="t1"))
        async with asyncio.timeout(PATIENCE):
            told = await ask(bus, "timeline", owner, query, queries.Timeline)
            while len(told.moments) < 2:
                told = await ask(bus, "timeline", owner, query, queries.Timeline)
        assert told.moments[1].void
        (row,) = (await listed(bus, owner, lambda page: page.lag == 0)).tasks
        assert row.state == "queued"


async def test_any_bytes_are_answered(nats_server: EmbeddedServer, path: Path, owner: str) -> None:
    async with observing(nats_server.url, path) as bus:
        for data, code in (
            (b"\xff\x00", "SG1104"),
            (b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "SG1106"),
            (b"x" * 500_000, "SG1103"),
        ):
            for verb in ("list", "timeline"):
                answer = await ask(bus, verb, owner, data, queries.Problem)
                assert answer.code == code
        await listed(bus, owner, lambda page: page.lag == 0)


async def test_replicas_share_the_queries(
    nats_server: EmbeddedServer, tmp_path: Path, owner: str
) -> None:
    async with (
        observing(nats_server.url, tmp_path / "1.sqlite") as bus,
        observing(nats_server.url, tmp_path / "2.sqlite"),
    ):
        await Writer(bus, owner).finish("t1")
        for _ in range(20):
            await listed(bus, owner, lambda page: page.lag == 0 and len(page.tasks) == 1)


@pytest.mark.faults
async def test_a_restart_of_the_service_goes_on(
    nats_server: EmbeddedServer, path: Path, owner: str
) -> None:
    async with observing(nats_server.url, path) as bus:
        await Writer(bus, owner).finish("t1")
        await listed(bus, owner, lambda page: page.lag == 0)
    async with observing(nats_server.url, path) as bus:
        await Writer(bus, owner).finish("t2")
        found = await listed(bus, owner, lambda page: page.lag == 0 and len(page.tasks) == 2)
        assert {row.state for row in found.tasks} == {"completed"}


@pytest.mark.faults
async def test_a_killed_broker_that_comes_back_is_followed_on(
    private_server: StartServer, path: Path, owner: str
) -> None:
    server = await private_server()
    async with observing(server.url, path) as bus:
        await Writer(bus, owner).finish("t1")
        await listed(bus, owner, lambda page: page.lag == 0)
        server.kill()
        await server.restart()
        await Writer(bus, owner).finish("t2")
        found = await listed(bus, owner, lambda page: page.lag == 0 and len(page.tasks) == 2)
        assert [row.id for row in found.tasks] == ["t2", "t1"]


@pytest.mark.faults
async def test_a_broker_with_an_empty_store_is_read_anew(
    private_server: StartServer, path: Path, owner: str
) -> None:
    server = await private_server()
    async with observing(server.url, path) as bus:
        await Writer(bus, owner).finish("old-1")
        await Writer(bus, owner).finish("old-2")
        await listed(bus, owner, lambda page: page.lag == 0)
        port = int(server.url.rpartition(":")[2])
        await server.stop()
        await private_server(port=port)
        await bus.ensure_streams()
        await Writer(bus, owner).finish("new")
        found = await listed(
            bus, owner, lambda page: page.lag == 0 and [one.id for one in page.tasks] == ["new"]
        )
        assert found.tasks[0].state == "completed"


async def test_a_task_that_retention_deleted_is_listed_no_more(
    nats_server: EmbeddedServer, path: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "EVERY", timedelta(milliseconds=20))
    async with observing(nats_server.url, path) as bus:
        writer = Writer(bus, owner)
        await writer.finish("t1")
        await writer.finish("t2")
        await listed(bus, owner, lambda page: len(page.tasks) == 2)
        for entry in await bus.ledger.history(Feed().task("t1", owner=owner).scope):
            await bus.ledger.delete(entry.sequence)
        found = await listed(bus, owner, lambda page: len(page.tasks) == 1)
        assert [row.id for row in found.tasks] == ["t2"]
