"""A server, a coordinator in this process with short leases, and processes around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest_asyncio

from switchgear.client.mesh import Mesh
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.faults.processes import Children, Gate
from tests.integration.spine.rawwriter import Raw, raw_client
from tests.integration.spine.stage import Stage

LEASE = timedelta(seconds=1)
"""Of the lanes: how long a dead holder keeps its task."""


@pytest_asyncio.fixture
async def server(private_server: StartServer) -> EmbeddedServer:
    """A server of the test's own."""
    return await private_server()


@pytest_asyncio.fixture
async def stage(server: EmbeddedServer) -> AsyncIterator[Stage]:
    """A mesh whose lanes have short leases; nobody has joined it."""
    async with Stage(server.url, lane_ack_wait=LEASE) as made:
        yield made


@pytest_asyncio.fixture
async def mesh(stage: Stage) -> Mesh:
    """A client of a mesh with one coordinator."""
    await stage.coordinate()
    return await stage.client()


@pytest_asyncio.fixture
async def children(stage: Stage, tmp_path: Path) -> AsyncIterator[Children]:
    """Processes that end with the test."""
    made = Children(stage.url, tmp_path)
    yield made
    await made.end()


@pytest_asyncio.fixture
async def gate(stage: Stage) -> AsyncIterator[Gate]:
    """The gate at which the agents' handlers wait."""
    async with Gate(stage.url) as made:
        yield made


@pytest_asyncio.fixture
async def raw(stage: Stage) -> AsyncIterator[Raw]:
    """A raw client."""
    made = await raw_client(stage.url)
    yield made
    await made.client.close()
