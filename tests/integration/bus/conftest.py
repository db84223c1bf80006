"""Connections, names and faults that the tests of the bus share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from switchgear.bus.connection import NatsBus, connect
from switchgear.clock import SYSTEM, milliseconds
from switchgear.contract import subjects
from switchgear.ids import new_id
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.integration.bus.faults import Cut


@pytest.fixture
def capability() -> str:
    """A capability that no other test uses."""
    return f"cap-{new_id(milliseconds(SYSTEM.now()))}"


@pytest.fixture
def scope(capability: str) -> str:
    """The scope of a task that no other test uses."""
    return subjects.scope(capability, "own", "task")


@pytest_asyncio.fixture
async def bus(nats_server: EmbeddedServer) -> AsyncIterator[NatsBus]:
    """A bus on the shared server."""
    bus = await connect(nats_server.url)
    await bus.ensure_streams()
    yield bus
    await bus.close()


@pytest_asyncio.fixture
async def server(private_server: StartServer) -> EmbeddedServer:
    """A server that the test may kill."""
    return await private_server()


@pytest_asyncio.fixture
async def own_bus(server: EmbeddedServer) -> AsyncIterator[NatsBus]:
    """A bus on the test's own server."""
    bus = await connect(server.url)
    await bus.ensure_streams()
    yield bus
    await bus.close()


@pytest_asyncio.fixture
async def cut(nats_server: EmbeddedServer) -> AsyncIterator[Cut]:
    """A line to the shared server that the test may cut or make deaf."""
    async with Cut(nats_server.url) as line:
        yield line


@pytest_asyncio.fixture
async def cut_bus(cut: Cut) -> AsyncIterator[NatsBus]:
    """A bus over that line."""
    bus = await connect(cut.url)
    await bus.ensure_streams()
    yield bus
    await bus.close()
