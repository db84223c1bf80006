"""A ledger that is full: appends are refused as unavailable, and what is there stays readable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest

from switchgear.bus.port import Bus
from switchgear.contract import limits
from switchgear.errors import Unavailable
from switchgear.server import EmbeddedServer
from switchgear.testing.memory import LoopClock, MemoryBroker, MemoryBus
from tests.conformance.nats_backend import NatsBackend
from tests.conformance.support import Names
from tests.simulation.chaos import ChaosBroker, ChaosBus, Troubles

ROOM = 256 * limits.KIB
"""Bytes of the ledger."""
BODY = bytes(16 * limits.KIB)
"""What fills it in fewer than twenty appends."""


async def memory_bus() -> Bus:
    """The twin, with little room."""
    return MemoryBus(MemoryBroker(ledger_max_bytes=ROOM), "bus-a")


async def chaos_bus() -> Bus:
    """The simulation's, with little room and no faults."""
    random = Random(0)  # noqa: S311 - repeatable on purpose
    troubles = Troubles(random, list[str]().append)
    broker = ChaosBroker(LoopClock(), random, troubles, ledger_max_bytes=ROOM)
    return ChaosBus(broker, "bus-a", random)


TWINS = {"memory": memory_bus, "chaos": chaos_bus}


@pytest.fixture(params=[*TWINS, pytest.param("nats", marks=pytest.mark.integration)])
def connect(request: pytest.FixtureRequest) -> Callable[[], Awaitable[Bus]]:
    """Each implementation in turn, on a broker of its own."""
    if request.param in TWINS:
        return TWINS[request.param]
    start: Callable[[], Awaitable[EmbeddedServer]] = request.getfixturevalue("private_server")

    async def nats_bus() -> Bus:
        server = await start()
        backend = NatsBackend(server.url, ledger_bytes=ROOM)
        return await backend.bus(
            "bus-a",
            lane_ack_wait=limits.LANE_ACK_WAIT,
            intake_ack_wait=limits.INTAKE_ACK_WAIT,
        )

    return nats_bus


@pytest.fixture
async def small(connect: Callable[[], Awaitable[Bus]]) -> AsyncIterator[Bus]:
    """One connection to a broker whose ledger has little room."""
    bus = await connect()
    await bus.ensure_streams()
    yield bus
    await bus.close()


async def fill(bus: Bus, names: Names) -> tuple[int, Unavailable]:
    """Append until the ledger refuses; returns how many it took, and the refusal."""
    for n in range(40):
        scope = names.scope(f"t{n}")
        try:
            await bus.ledger.append(f"{scope[:-1]}submitted", BODY, scope=scope, expect=0)
        except Unavailable as error:
            return n, error
    pytest.fail("the ledger never filled up")


async def test_full_ledger_is_unavailable_for_a_while(small: Bus, names: Names) -> None:
    """The refusal says when to try again, and nothing of the refused entry is stored."""
    stored, refusal = await fill(small, names)
    assert 8 <= stored <= 16
    assert refusal.code == "SG1301"
    assert refusal.retry_after is not None
    assert refusal.retry_after > 0
    assert await small.ledger.last_sequence() == stored
    assert await small.ledger.leader_tail(names.scope(f"t{stored}")) is None


async def test_full_ledger_can_be_read(small: Bus, names: Names) -> None:
    """The last entry that fitted is there."""
    stored, _ = await fill(small, names)
    tail = await small.ledger.tail(names.scope(f"t{stored - 1}"))
    assert tail is not None
    assert (tail.sequence, tail.data) == (stored, BODY)
