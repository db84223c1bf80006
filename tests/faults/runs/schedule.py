"""One schedule: a mesh, its clients, its faults, and what the checkers say of the whole ledger afterwards."""

from __future__ import annotations

import asyncio
import shutil
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.programs import tasks
from tests.faults.runs.clients import Clients
from tests.faults.runs.inflict import Inflictor
from tests.faults.runs.ledger import LedgerReader
from tests.faults.runs.mesh import ProcessMesh
from tests.faults.runs.plan import CLIENT, Plan, Task, plan
from tests.faults.tools import clocks, disk
from tests.programs.invariants import Ledger, oversleeping, violations
from tests.programs.record import Recording

QUIET = 45.0
"""Seconds in which something must happen after the last fault, until everything has ended."""
LONGEST = 240.0
"""Seconds after which it has taken too long, whatever happens: a busy machine restarts processes slowly."""
OVERRUN = 60.0
"""Seconds by which faults may take longer than planned on a busy machine."""
ATTEMPTS = 5
"""To read the whole ledger at the end."""
LOOK = 0.3
SETTLE = 0.3
"""Seconds for what follows the last end, such as its wake."""


@dataclass
class Result:
    """What came of a schedule."""

    seed: int
    violations: list[str] = field(default_factory=list[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    tasks: int = 0
    entries: int = 0
    executions: int = 0
    seconds: float = 0.0
    """Wall time, all in all."""
    healed: float = 0.0
    """Seconds from the last fault to the last end."""
    notes: list[str] = field(default_factory=list[str])
    """What services wrote that nobody should have to read."""


async def run(seed: int, seconds: float, place: Path) -> Result:
    """Run the schedule of this seed in a folder below `place`, which stays only if something was violated."""
    began = time.monotonic()
    drawn = plan(seed, seconds, clocks=not clocks.missing(), disks=not disk.missing())
    folder = place / f"schedule-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = Result(seed)
    try:
        await _run(drawn, folder, result)
    except Exception:  # noqa: BLE001  # the others go on
        result.violations.append(f"the schedule broke: {traceback.format_exc()}")
    result.seconds = time.monotonic() - began
    if result.violations:
        result.violations.append(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


async def _run(drawn: Plan, folder: Path, result: Result) -> None:
    recording = Recording()
    mesh = ProcessMesh(folder, armed=drawn.armed, clocks=drawn.clocks, small_disk=drawn.small_disk)
    async with mesh:
        reader = LedgerReader(mesh.server.url)
        clients = Clients(mesh.links[CLIENT].url, recording, reader)
        await clients.start()
        working = [asyncio.create_task(_later(clients, task)) for task in drawn.tasks]
        inflictor = Inflictor(mesh, recording, clients.clock)
        async with asyncio.timeout(drawn.seconds + OVERRUN):
            await inflictor.run(drawn.faults)
        await mesh.heal()
        clients.clock.ahead *= 0
        healed = time.monotonic()
        all_ended = await ended(working, reader, clock_faults=drawn.clocks)
        result.healed = time.monotonic() - healed
        if not all_ended:
            waiting = sum(not one.done() for one in working)
            result.violations.append(
                f"not ended {result.healed:.0f} s after the last fault: {waiting} clients wait"
            )
        for one in working:
            one.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await clients.stop()
        if not await _read_whole(reader):
            result.violations.append("the ledger cannot be read at the end")
        note_crashes(mesh, recording)
        recording.outages = mesh.outages
        for service in mesh.services.values():
            result.notes.extend(_notes(service.name, service.output()))
    judge(folder, result, recording, reader, clients.wrong, clock_faults=drawn.clocks)
    shown = "".join(f"{one}\n" for one in (drawn.armed, *drawn.faults))
    (folder / "plan.txt").write_text(shown, encoding="utf-8")


async def _read_whole(reader: LedgerReader) -> bool:
    """Read everything anew; a busy machine may take more than one attempt."""
    for _ in range(ATTEMPTS):
        if await reader.read(anew=True):
            return True
    return False


async def _later(clients: Clients, task: Task) -> None:
    await asyncio.sleep(task.at)
    await clients.run(task)


async def ended(
    working: list[asyncio.Task[None]], reader: LedgerReader, *, clock_faults: bool = False
) -> bool:
    """Wait until all clients were told an end, and every task of the ledger has one; False where nothing moves.

    With faults of clocks some tasks may sleep for long (`oversleeping`): nobody waits for those.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + LONGEST
    moved, last = loop.time(), 0
    while loop.time() < min(until, moved + QUIET):
        if await reader.read() and reader.last > last:
            moved, last = loop.time(), reader.last
        found = Ledger.read(reader.entries)
        asleep = oversleeping(found) if clock_faults else set[str]()
        unended = {one.task for one in found.histories.values() if one.ended is None}
        told = sum(not one.done() for one in working) <= len(asleep & roots(found))
        if told and unended <= asleep:
            await asyncio.sleep(SETTLE)
            await reader.read()
            return True
        await asyncio.sleep(LOOK)
    return False


def roots(ledger: Ledger) -> set[str]:
    """The tasks that clients submitted."""
    return {one.task for one in ledger.histories.values() if one.parent is None}


def note_crashes(mesh: ProcessMesh, recording: Recording) -> None:
    """Count the crash points that were reached."""
    for service in mesh.services.values():
        for point in service.crash_points:
            recording.fault(f"crash at {point}")


def judge(
    folder: Path,
    result: Result,
    recording: Recording,
    reader: LedgerReader,
    wrong: list[str],
    *,
    clock_faults: bool,
) -> None:
    """Let the checkers look at the whole ledger; it is written down if they find something."""
    recording.executions.extend(tasks.read(folder / "witnessed"))
    ledger = Ledger.read(reader.entries)
    result.violations.extend(wrong)
    if reader.rolled_back and recording.faults.get("disk full"):
        # What could not be written was never acknowledged, but could be read for a while.
        result.notes.append(f"the ledger was rolled back {reader.rolled_back} times")
    elif reader.rolled_back:
        result.violations.append(f"the ledger was rolled back {reader.rolled_back} times")
    result.violations.extend(violations(ledger, recording, clock_faults=clock_faults))
    result.faults = Counter(recording.faults)
    result.tasks = len(ledger.histories)
    result.entries = len(reader.entries)
    result.executions = len(recording.executions)
    if result.violations:
        reader.dump(folder / "ledger.jsonl")


def _notes(name: str, output: str) -> list[str]:
    """The last line of each traceback."""
    found: list[str] = []
    inside = False
    for line in output.splitlines():
        if line.startswith("Traceback"):
            inside = True
        elif inside and line and not line.startswith((" ", "\t")):
            found.append(f"{name}: {line[:200]}")
            inside = False
    return found
