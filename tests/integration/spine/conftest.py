"""A mesh on a server of its own, and a raw client beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from switchgear.client.mesh import Mesh
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.integration.spine.rawwriter import Raw, raw_client
from tests.integration.spine.stage import Gate, Stage


@pytest_asyncio.fixture
async def server(private_server: StartServer) -> EmbeddedServer:
    """A server without a past: coordinators work on everything that a ledger holds."""
    return await private_server()


@pytest_asyncio.fixture
async def stage(server: EmbeddedServer) -> AsyncIterator[Stage]:
    """An empty mesh."""
    async with Stage(server.url) as made:
        yield made


@pytest_asyncio.fixture
async def mesh(stage: Stage) -> Mesh:
    """A client of a mesh with one coordinator."""
    await stage.coordinate()
    return await stage.client()


@pytest_asyncio.fixture
async def raw(stage: Stage) -> AsyncIterator[Raw]:
    """A raw client."""
    made = await raw_client(stage.url)
    yield made
    await made.client.close()


@pytest.fixture
def gate() -> Gate:
    """A closed gate."""
    return Gate()
