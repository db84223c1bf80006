"""How long the mesh takes to go on after somebody died: measured, printed, bounded."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from switchgear import Capability, TaskDead
from switchgear.client.mesh import Mesh
from switchgear.contract import entries, limits
from switchgear.server import EmbeddedServer
from switchgear.tasks.handle import TaskHandle
from tests.faults.conftest import LEASE
from tests.faults.processes import Child, Children, Gate
from tests.faults.programs.agent import Text
from tests.faults.tools.proxy import FaultProxy
from tests.integration.spine import stage as spine
from tests.integration.spine.stage import SOON, Stage, gated, history_of, show, until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.slow]

WORK = Capability("work", Text, Text)
THIRD = LEASE.total_seconds() / 3
ROUNDS = 5
STRICT = os.environ.get("RECOVERY") == "strict"
"""Whether the figures must be those that are promised; else only what a busy machine cannot miss."""
TAKEOVER = 0.5 if STRICT else limits.LANE_ACK_WAIT.total_seconds() / 2
"""Seconds from a kill to the next execution: usually half of one, and a lease without the broker's word."""
STANDBY = 2.0 if STRICT else 10 * limits.INTAKE_ACK_WAIT.total_seconds()
"""Seconds that a task may wait when a replica dies that has it; usually little more than its intake waits."""
RESTARTED = 2.0 if STRICT else limits.ANNOUNCE_EVERY.total_seconds()
"""Seconds after which a mesh that noticed nothing would be put right; usually it takes a tenth of one."""
SLOTS = 4
"""Of the agents here."""
MARGIN = 1.0 if STRICT else limits.ANNOUNCE_TTL.total_seconds() / 2
"""Seconds beyond the lease: less than its announcement stands."""


@pytest_asyncio.fixture
async def patient(server: EmbeddedServer) -> AsyncIterator[Stage]:
    """A mesh with the usual lease: what happens sooner does not wait for its end."""
    async with Stage(server.url) as made:
        yield made


async def joined(mesh: Mesh, *children: Child) -> None:
    """Wait until these are announced."""

    async def all_there() -> bool:
        found = {one.process for one in (await mesh.agents()).instances}
        return {child.pid for child in children} <= found

    await until(all_there)


async def announced_running(mesh: Mesh, handle: TaskHandle[Any]) -> None:
    """Wait until the registry shows who runs the task."""

    async def shown() -> bool:
        instances = (await mesh.agents()).instances
        return any(one.task == handle.id for found in instances for one in found.running)

    await until(shown)


async def test_task_of_a_killed_agent_runs_elsewhere_at_once(
    patient: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The broker tells that the connection ended; nobody waits for the lease of 30 s."""
    await patient.coordinate()
    mesh = await patient.client()
    children = Children(patient.url, tmp_path)
    took: list[float] = []
    try:
        async with Gate(patient.url) as gate:
            agents = [await children.agent() for _ in range(ROUNDS + 1)]
            await joined(mesh, *agents)
            for number in range(ROUNDS):
                handle = await mesh.submit(WORK, Text(f"t{number}"))
                await gate.holds(2 * number + 1)
                await announced_running(mesh, handle)
                victim = next(one for one in agents if one.pid == gate.entered[-1][0])
                killed = time.monotonic()
                victim.tell(signal.SIGKILL)
                await gate.holds(2 * number + 2)
                took.append(time.monotonic() - killed)
                await gate.open()
                assert (await handle.result(timeout=SOON)).text.endswith("attempt 1")
                gate.is_open = False
    finally:
        await children.end()
    show(
        capsys,
        f"killed agent: running elsewhere after {statistics.median(took):.2f} s"
        f" (median of {ROUNDS}; the longest {max(took):.2f} s)",
    )
    assert max(took) <= TAKEOVER


@pytest.mark.parametrize(
    ("how", "tasks", "leases"), [("frozen", SLOTS, 1), ("cut off", SLOTS, 1), ("frozen", 1, 2)]
)
async def test_tasks_of_a_silent_agent_run_elsewhere_when_its_lease_ends(
    stage: Stage,
    mesh: Mesh,
    gate: Gate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
    tasks: int,
    leases: int,
) -> None:
    """Its connection stands, and nothing comes over it any more: only the lease tells.

    With a slot left its pull still waits at the broker, which may hand it a task that it has just lost: once more
    the lease has to end.
    """
    async with FaultProxy(int(stage.url.rpartition(":")[2])) as proxy:
        silent, other = Children(proxy.url, tmp_path), Children(stage.url, tmp_path / "other")
        (tmp_path / "other").mkdir()
        try:
            victim = await silent.agent(extend_every=THIRD)
            await joined(mesh, victim)
            handles = await mesh.submit_many(WORK, [Text(f"t{number}") for number in range(tasks)])
            await gate.holds(tasks)
            heir = await other.agent(extend_every=THIRD)
            await joined(mesh, heir)
            began = time.monotonic()
            if how == "frozen":
                victim.tell(signal.SIGSTOP)
            else:
                proxy.swallow()
            await gate.holds(2 * tasks)
            took = time.monotonic() - began
            assert [victim.pid] * tasks + [heir.pid] * tasks == [pid for pid, _ in gate.entered]
            victim.tell(signal.SIGCONT)
            proxy.heal()
            await gate.open()
            results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
            assert {f"t{n} by {heir.pid}, attempt 1" for n in range(tasks)} == {
                one.text for one in results
            }
        finally:
            await asyncio.gather(silent.end(), other.end())
    show(
        capsys,
        f"{how} agent with {SLOTS - tasks} free slots: {tasks} running elsewhere after {took:.2f} s,"
        f" lease {LEASE}",
    )
    assert took <= leases * LEASE.total_seconds() + MARGIN


async def test_standby_dispatches_when_a_coordinator_is_killed(
    stage: Stage, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of tasks submitted one after the other, none waits longer than the intake's second for its dispatch."""
    coordinators = await asyncio.gather(children.coordinator(), children.coordinator())
    gate = spine.Gate()
    gate.open()
    await stage.join(gated(gate))
    mesh = await stage.client()
    await mesh.call(spine_work(), spine.Text("before"), timeout=SOON)
    began = [asyncio.create_task(_timed(mesh, n)) for n in range(20)]
    coordinators[0].tell(signal.SIGKILL)
    began += [asyncio.create_task(_timed(mesh, n)) for n in range(20, 40)]
    took = await asyncio.gather(*began)
    show(capsys, f"killed coordinator: the longest of {len(took)} tasks took {max(took):.2f} s")
    assert max(took) <= STANDBY


def spine_work() -> Capability[spine.Text, spine.Text]:
    """What `gated` offers."""
    return Capability("work", spine.Text, spine.Text)


async def _timed(mesh: Mesh, number: int) -> float:
    submitted = time.monotonic()
    await mesh.call(spine_work(), spine.Text(f"t{number}"), timeout=SOON)
    return time.monotonic() - submitted


async def test_everything_works_again_soon_after_a_kill_of_the_server(
    stage: Stage,
    server: EmbeddedServer,
    children: Children,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One task of each capability completes: intakes, lanes, registry and clients are back."""
    await children.coordinator()
    gate = spine.Gate()
    gate.open()
    names = ("one", "two", "three")
    for name in names:
        await stage.join(gated(gate, name, capability=name))
    mesh = await stage.client()
    wanted = [Capability(name, spine.Text, spine.Text) for name in names]
    await asyncio.gather(*(mesh.call(one, spine.Text("before"), timeout=SOON) for one in wanted))
    took: list[float] = []
    for number in range(3):
        server.kill()
        await server.restart()
        listening = time.monotonic()
        calls = [mesh.call(one, spine.Text(f"t{number}"), timeout=SOON) for one in wanted]
        await asyncio.gather(*calls)
        took.append(time.monotonic() - listening)
    show(
        capsys,
        f"killed server: each capability works {statistics.median(took):.2f} s after it listens"
        f" (median of {len(took)}; the longest {max(took):.2f} s)",
    )
    assert max(took) <= RESTARTED


async def test_services_leave_when_the_broker_has_left_before(
    server: EmbeddedServer, stage: Stage, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they still have to tell it does not keep them."""
    coordinator, agent = await asyncio.gather(children.coordinator(), children.agent())
    await coordinator.says("lease-taken")
    await joined(await stage.client(), agent)
    server.kill()
    told = time.monotonic()
    for child in (coordinator, agent):
        child.tell(signal.SIGTERM)
    assert [await coordinator.ended(), await agent.ended()] == [0, 0]
    show(capsys, f"told to leave without a broker: left after {time.monotonic() - told:.2f} s")


@pytest.mark.parametrize("kind", ["kill", "segfault", "memory"])
async def test_handler_that_takes_its_process_down_is_dead_after_its_crashes(
    mesh: Mesh, children: Children, gate: Gate, kind: str
) -> None:
    """Two crashes are survived, the third ends the attempt, whatever the handler dies of."""
    await gate.open()
    agents = await asyncio.gather(
        *(children.agent(kind=kind, extend_every=THIRD) for _ in range(limits.MAX_CRASHES + 2))
    )
    await joined(mesh, *agents)
    handle: TaskHandle[Text] = await mesh.submit(WORK, Text("a"))
    with pytest.raises(TaskDead) as caught:
        await handle.result(timeout=SOON)
    assert (caught.value.error_class, caught.value.cause_code) == ("crash-loop", "SG1512")
    history = await history_of(mesh, handle)
    crashes = [one.entry.how for one in history.valid if isinstance(one.entry, entries.TakenOver)]
    assert crashes == ["crash"] * (limits.MAX_CRASHES + 1)
    assert len(crashes) == len({pid for pid, _ in gate.entered}) == len(gate.entered)
    dead = {pid for pid, _ in gate.entered}
    codes = await asyncio.gather(*(one.ended() for one in agents if one.pid in dead))
    assert {CODES[kind]} == set(codes)


CODES = {"kill": -signal.SIGKILL, "segfault": -signal.SIGSEGV, "memory": -signal.SIGKILL}
"""How the process ends."""
