"""Fixtures that all tests share: real NATS servers, started here and stopped by process id."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from switchgear import errors
from switchgear.server import Durability, EmbeddedServer, find_binary

StartServer = Callable[..., Awaitable[EmbeddedServer]]
"""Starts a server for one test: `await private_server(durability="durable", settings="…")`."""


# The time that an example takes is that of the machine, and fails no test.
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """Say that there is no event loop yet: asyncio would make one up that nobody closes; and how steps run."""
    asyncio.set_event_loop(None)
    # Where the tests run in a sandbox themselves, their steps cannot have one; tests of isolation ask for it.
    os.environ.setdefault("SWITCHGEAR_ISOLATION", "preferred")


@pytest.fixture(scope="session")
def nats_binary() -> Path:
    """Skip where no nats-server is installed, but never in CI: a green run must have tested it."""
    try:
        return find_binary()
    except errors.ServerMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(
    nats_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedServer]:
    """One server for the whole session; a test that uses it neither kills it nor owns its streams.

    Tests keep apart by names of their own: streams, subjects and buckets carry a fresh id.
    """
    async with EmbeddedServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest_asyncio.fixture
async def private_server(nats_binary: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Start servers that one test may kill and restart; they end with it in any case."""
    async with AsyncExitStack() as stack:
        started = 0

        async def start(
            *, durability: Durability = "standard", port: int | None = None, settings: str = ""
        ) -> EmbeddedServer:
            nonlocal started
            started += 1
            server = EmbeddedServer(
                tmp_path / f"nats-{started}", durability=durability, port=port, settings=settings
            )
            return await stack.enter_async_context(server)

        yield start
