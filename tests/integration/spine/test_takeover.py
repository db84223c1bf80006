"""Replicas on a real server: who holds a lease, what a lost instance ran, lanes and intakes that got lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.client.mesh import Mesh
from switchgear.contract import limits, subjects
from switchgear.contract.queries import Holder, HolderQuery
from switchgear.coordinator.leases import Lease
from switchgear.coordinator.open_tasks import OpenTasks
from switchgear.coordinator.opening import LaneOpening, ensure_intakes
from switchgear.tasks.asking import ask
from tests.integration.spine.stage import SOON, Gate, Stage, Text, gated, until

pytestmark = pytest.mark.integration
LASTS = timedelta(seconds=1.5)


async def test_one_replica_holds_a_lease_and_another_takes_it_over(stage: Stage) -> None:
    """At once when it is given back; when its holder has died, once it stood still for long enough."""
    buses = [await stage.bus(f"replica-{n}", "coordinator") for n in range(3)]
    leases = [Lease(bus, "job", lasts=LASTS) for bus in buses]
    for lease in leases:
        await lease.start()
        stage.leave(lease.stop)

    async def holders() -> list[int]:
        return [n for n, lease in enumerate(leases) if await lease.held()]

    async def one() -> bool:
        held = await holders()
        assert len(held) <= 1
        return len(held) == 1

    await until(one)
    (first,) = await holders()
    await leases[first].stop()
    await until(one)
    (second,) = await holders()
    assert second != first
    dies = leases[second]
    began = asyncio.get_running_loop().time()
    await buses[second].close()

    async def next_one() -> bool:
        return await one() and await holders() != [second]

    await until(next_one)
    assert asyncio.get_running_loop().time() - began > LASTS.total_seconds() / 2
    assert not await dies.held()


async def test_what_a_lost_instance_ran_is_taken_over_long_before_its_lease_ends(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    """The broker tells that its connection ended; the next holder takes it over after a crash."""
    member = await stage.join(gated(gate))
    handle = await mesh.submit("work", Text("a"))
    await gate.holds()

    async def announced() -> bool:
        query = HolderQuery(task=handle.id)
        answer = await ask(mesh.bus.core, "holder", "agent", query, Holder)
        return answer.instance == member.bus.name

    await until(announced)
    await stage.join(gated(gate))
    began = asyncio.get_running_loop().time()
    await member.bus.close()
    await gate.holds(2)
    assert asyncio.get_running_loop().time() - began < limits.LANE_ACK_WAIT.total_seconds() / 2
    gate.open()
    await handle.result(timeout=SOON)


async def test_lost_lanes_and_intakes_begin_with_the_oldest_open_task(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    """Not with all history."""
    gate.open()
    member = await stage.join(gated(gate))
    done = [await mesh.submit("work", Text(str(n))) for n in range(20)]
    for handle in done:
        await handle.result(timeout=SOON)
    await member.worker.stop()
    bus = await stage.bus("hands", "coordinator")
    lanes = [name for name in await bus.work.lanes() if subjects.parse_lane(name)]
    first = subjects.parse_lane(lanes[0])
    assert first is not None
    capability, pool, _ = first
    tasks = OpenTasks(bus.ledger)
    await tasks.catch_up()
    assert (len(tasks), tasks.oldest()) == (0, await bus.ledger.last_sequence() + 1)
    for name in (*lanes, "intake-submitted", "intake-transitions"):
        await bus.work.remove(name)
    await LaneOpening(bus).ensure([(capability, pool)], missing=True)
    await ensure_intakes(bus)
    for name in (*lanes, "intake-submitted", "intake-transitions"):
        backlog = await bus.work.backlog(name)
        assert backlog is not None, name
        assert (backlog.pending, backlog.unsettled) == (0, 0), name
