"""The broker loses its power under load: in the durable profile no acknowledged submission is lost.

FAULTS_POWER_POINTS chooses how many crash points are tried; beyond the first ones they are drawn.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from switchgear import Capability
from switchgear.bus.connection import NatsBus
from switchgear.client.mesh import Mesh
from switchgear.server import Durability, EmbeddedServer
from switchgear.tasks.handle import TaskHandle
from tests.faults.tools.needs import need
from tests.faults.tools.power import PowerFolder, missing
from tests.faults.tools.volume import Loss
from tests.integration.spine.stage import OWNER, Stage, Text, scope_of, show
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.faults]

WORK = Capability("work", Text, Text)
POINTS = 5
WRITERS = 16
"""Submissions that are under way at once."""


def crash_points() -> Iterator[int]:
    """After how many acknowledgements the power goes: before anything is warm, and later."""
    wanted = int(os.environ.get("FAULTS_POWER_POINTS", POINTS))
    dice = random.Random(wanted)  # noqa: S311 - points to try, no secrets
    few = [1, 17, 60, 150, 400]
    yield from few[:wanted]
    yield from (dice.randint(1, 1000) for _ in range(wanted - len(few)))


@pytest.fixture(autouse=True)
def _able() -> None:
    need(missing())


class Writers:
    """Clients that submit one task after another, and keep what was acknowledged."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._grown = asyncio.Event()
        self._tasks = list[asyncio.Task[None]]()
        self.acknowledged = list[TaskHandle[Any]]()

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(WRITERS)]

    async def _write(self, writer: int) -> None:
        count = 0
        while True:
            count += 1
            handle = await self._mesh.submit(WORK, Text(f"{writer} {count}"))
            self.acknowledged.append(handle)
            self._grown.set()

    async def reach(self, count: int) -> None:
        """Wait until so many are acknowledged."""
        async with asyncio.timeout(PATIENCE):
            while len(self.acknowledged) < count:
                self._grown.clear()
                await self._grown.wait()

    async def stop(self) -> None:
        """End; nothing is sent any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Found(NamedTuple):
    """What was read after the power came back."""

    acknowledged: int
    lost: list[int]
    """Which of the acknowledged, by their order, are missing."""
    loss: Loss


@asynccontextmanager
async def powered(
    folder: PowerFolder, place: Path, durability: Durability
) -> AsyncGenerator[EmbeddedServer]:
    """A server whose streams lie in the folder; its log and configuration beside it."""
    await asyncio.to_thread(place.mkdir)
    (place / "jetstream").symlink_to(folder.mount)
    async with EmbeddedServer(place, durability=durability) as server:
        yield server


async def lose_at(tmp_path: Path, durability: Durability, point: int, *, before: int = 0) -> Found:
    """Cut the power after `point` acknowledgements; `before`: so many of them are synced by the system."""
    async with PowerFolder(tmp_path / "power") as folder:
        async with powered(folder, tmp_path / "nats", durability) as server:
            async with Stage(server.url) as stage:
                writers = Writers(await stage.client())
                writers.start()
                if before:
                    await writers.reach(before)
                    await folder.sync()
                await writers.reach(point)
                loss = await folder.lose_power(server.pid)
                await writers.stop()
            server.kill()
            await folder.power_on()
            await server.restart()
            async with Stage(server.url) as stage:
                lost = await unknown(await stage.bus("reader", OWNER), writers.acknowledged)
        await folder.power_off()
    return Found(len(writers.acknowledged), lost, loss)


async def unknown(bus: NatsBus, handles: list[TaskHandle[Any]]) -> list[int]:
    """Which of these tasks the ledger does not know."""
    histories = await asyncio.gather(*(bus.ledger.history(scope_of(one)) for one in handles))
    return [n for n, one in enumerate(histories) if not one]


def told(profile: Durability, point: int, found: Found) -> str:
    """The figures."""
    return (
        f"power loss, {profile} profile, after {point} acknowledgements: "
        f"{found.acknowledged} acknowledged, {len(found.lost)} of them lost; "
        f"not synced: {found.loss.bytes} bytes, {found.loss.changes} changes of the folder"
    )


@pytest.mark.parametrize("point", list(crash_points()))
async def test_durable_broker_loses_no_acknowledged_submission(
    tmp_path: Path, nats_binary: Path, capsys: pytest.CaptureFixture[str], point: int
) -> None:
    """Nothing but its own syncs has brought it to the disk."""
    found = await lose_at(tmp_path, "durable", point)
    show(capsys, told("durable", point, found))
    assert found.acknowledged >= point
    assert not found.lost


async def test_standard_broker_loses_what_the_system_has_not_synced(
    tmp_path: Path, nats_binary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same harness sees a loss where there must be one, and only behind the last sync."""
    before = 100
    found = await lose_at(tmp_path, "standard", 400, before=before)
    show(capsys, told("standard", 400, found))
    assert found.lost
    assert min(found.lost) >= before
