"""One long schedule: steady load, steady faults, and how much memory the services take meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from random import Random

from tests.faults.runs import plan as plans
from tests.faults.runs.clients import Clients
from tests.faults.runs.inflict import Inflictor
from tests.faults.runs.ledger import LedgerReader
from tests.faults.runs.mesh import ProcessMesh
from tests.faults.runs.plan import CLIENT, Plan, Task
from tests.faults.runs.schedule import Result, ended, judge, note_crashes
from tests.faults.runs.service import resident
from tests.programs.record import Recording

EVERY = 0.5
"""Seconds between submissions."""
PIECE = 10.0
"""Seconds of faults that are drawn at a time, and the pause after them."""
SPARED = "-1"
"""How the names of services end that are never killed: their memory is compared."""
MIB = 1024 * 1024


async def run(seed: int, seconds: float, place: Path) -> Result:
    """Run for so long. Prints the services' memory at half time and at the end."""
    folder = place / f"soak-{seed}"
    folder.mkdir(parents=True)
    result, recording = Result(seed), Recording()
    began = time.monotonic()
    async with ProcessMesh(folder) as mesh:
        reader = LedgerReader(mesh.server.url)
        clients = Clients(mesh.links[CLIENT].url, recording, reader)
        await clients.start()
        working: list[asyncio.Task[None]] = []
        before = await _work(
            seed, seconds, Inflictor(mesh, recording, clients.clock), clients, working
        )
        healed = time.monotonic()
        if not await ended(working, reader):
            result.violations.append("not all tasks ended")
        result.healed = time.monotonic() - healed
        _print(before, memory(mesh))
        for one in working:
            one.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await clients.stop()
        note_crashes(mesh, recording)
        recording.outages = mesh.outages
    judge(folder, result, recording, reader, clients.wrong, clock_faults=False)
    result.seconds = time.monotonic() - began
    if result.violations:
        result.violations.append(f"kept: {folder}")
    return result


async def _work(
    seed: int,
    seconds: float,
    inflictor: Inflictor,
    clients: Clients,
    working: list[asyncio.Task[None]],
) -> dict[str, int]:
    """Load and faults, and the end of all faults. Returns the services' memory at half time."""
    load = asyncio.create_task(_load(seed, clients, working))
    faults = asyncio.create_task(_faults(seed, inflictor))
    await asyncio.sleep(seconds / 2)
    before = memory(inflictor.mesh)
    await asyncio.sleep(seconds / 2)
    for one in (load, faults):
        one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await one
    await inflictor.mesh.heal()
    return before


async def _load(seed: int, clients: Clients, working: list[asyncio.Task[None]]) -> None:
    draw = Random(seed)  # noqa: S311  # repeatable on purpose
    number = 0
    while True:
        drawn: list[Task] = list(_piece(draw).tasks)
        for task in drawn:
            number += 1
            fresh = task._replace(key=f"soak-{seed}/{number}")
            working.append(asyncio.create_task(clients.run(fresh)))
            await asyncio.sleep(EVERY)


async def _faults(seed: int, inflictor: Inflictor) -> None:
    """Faults for a while, then none for a while; one of each kind of service is never killed."""
    draw = Random(seed + 1)  # noqa: S311
    while True:
        drawn = _piece(draw)
        killing = ("agent killed", "coordinator killed", "crash point")
        spared = [
            one for one in drawn.faults if not (one.kind in killing and one.target.endswith(SPARED))
        ]
        await inflictor.run(tuple(spared))
        await asyncio.sleep(PIECE)


def _piece(draw: Random) -> Plan:
    return plans.plan(draw.randrange(2**32), PIECE, clocks=False, disks=False)


def memory(mesh: ProcessMesh) -> dict[str, int]:
    """Bytes of the server and of the services that are never killed."""
    found = {name: one.memory() for name, one in mesh.services.items() if name.endswith(SPARED)}
    found["server"] = resident(mesh.server.pid)
    return found


def _print(before: dict[str, int], after: dict[str, int]) -> None:
    for name, now in after.items():
        grown = 100 * (now / before[name] - 1) if before[name] else 0.0
        print(
            f"  {name}: {before[name] / MIB:.1f} MiB at half time, {now / MIB:.1f} MiB at the end, {grown:+.1f} %"
        )
