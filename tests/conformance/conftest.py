"""One suite, three buses: the memory twin, the simulation's variant of it without faults, a real nats-server.

The server is shared by the whole session, so each test keeps to names of its own (`names`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random

import pytest
import pytest_asyncio

from switchgear.bus.port import Appended, Bus, Refused
from switchgear.clock import SYSTEM, milliseconds
from switchgear.contract import limits
from switchgear.errors import UsageError
from switchgear.ids import new_id
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from tests.conformance.nats_backend import NatsBackend
from tests.conformance.support import Backend, MakeBus, Names, RawError
from tests.simulation.chaos import ChaosBroker, ChaosBus, Troubles


class MemoryBackend:
    """The twin."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    async def bus(self, name: str, *, lane_ack_wait: timedelta, intake_ack_wait: timedelta) -> Bus:
        """A new connection to the broker of this test."""
        self.broker.lane_ack_wait = lane_ack_wait
        self.broker.intake_ack_wait = intake_ack_wait
        return MemoryBus(self.broker, name)

    async def raw(self, subject: str, headers: bytes, data: bytes) -> Appended | Refused:
        """Store in the broker directly."""
        try:
            return self.broker.store(subject, headers, data)
        except UsageError as error:
            raise RawError(str(error)) from error


class ChaosBackend(MemoryBackend):
    """The twin that can misbehave, while it does not: what the simulation proves rests on it."""

    def __init__(self) -> None:
        self._random = Random(0)  # noqa: S311 - repeatable on purpose
        troubles = Troubles(self._random, list[str]().append)
        self._chaos = ChaosBroker(LoopClock(), self._random, troubles)
        self.broker = self._chaos

    async def bus(self, name: str, *, lane_ack_wait: timedelta, intake_ack_wait: timedelta) -> Bus:
        """A new connection to the broker of this test, over two wires."""
        self.broker.lane_ack_wait = lane_ack_wait
        self.broker.intake_ack_wait = intake_ack_wait
        return ChaosBus(self._chaos, name, self._random)


BACKENDS = {"memory": MemoryBackend, "chaos": ChaosBackend}


@pytest.fixture
def names() -> Names:
    """Names that no other test uses."""
    fresh = new_id(milliseconds(SYSTEM.now()))
    return Names(f"cap-{fresh}", f"own-{fresh}")


@pytest.fixture(params=[*BACKENDS, pytest.param("nats", marks=pytest.mark.integration)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each implementation in turn."""
    if request.param in BACKENDS:
        return BACKENDS[request.param]()
    return NatsBackend(request.getfixturevalue("nats_server").url)


@pytest_asyncio.fixture
async def make_bus(backend: Backend) -> AsyncIterator[MakeBus]:
    """Connections to one broker, with its streams in place."""
    opened: list[Bus] = []

    async def make(
        name: str = "bus-a",
        *,
        lane_ack_wait: timedelta = limits.LANE_ACK_WAIT,
        intake_ack_wait: timedelta = limits.INTAKE_ACK_WAIT,
    ) -> Bus:
        bus = await backend.bus(name, lane_ack_wait=lane_ack_wait, intake_ack_wait=intake_ack_wait)
        opened.append(bus)
        await bus.ensure_streams()
        return bus

    yield make
    for bus in opened:
        await bus.close()


@pytest_asyncio.fixture
async def bus(make_bus: MakeBus) -> Bus:
    """One connection."""
    return await make_bus()
