"""Coordinators and the server are killed under load: nothing is lost, and nobody waits long."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

import pytest

from switchgear import Capability
from switchgear.client.mesh import Mesh
from switchgear.server import EmbeddedServer
from tests.faults.processes import Child, Children
from tests.faults.programs.agent import Text
from tests.integration.spine import stage as spine
from tests.integration.spine.stage import SOON, Stage, gated, show, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.faults]

WORK = Capability("work", Text, Text)
PLAIN = Capability("work", spine.Text, spine.Text)
COUNT = 200


async def test_killed_coordinator_loses_nothing(
    stage: Stage, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two is killed while 200 tasks are under way: the other does its share, after a second."""
    victim, survivor = await asyncio.gather(children.coordinator(), children.coordinator())
    gate = spine.Gate()
    gate.open()
    await stage.join(gated(gate))
    mesh = await stage.client()
    await mesh.call(PLAIN, spine.Text("before"), timeout=SOON)
    submitting = asyncio.create_task(
        mesh.submit_many(PLAIN, [spine.Text(f"t{n}") for n in range(COUNT)])
    )
    await gate.until(lambda: len(gate.left) >= 20)
    victim.tell(signal.SIGKILL)
    killed = time.monotonic()
    handles = await asyncio.wait_for(submitting, PATIENCE)
    results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
    took = time.monotonic() - killed
    show(capsys, f"killed coordinator: all {COUNT} tasks ended after {took:.2f} s")
    assert await victim.ended() == -signal.SIGKILL
    assert [f"t{n} 1 gated" for n in range(COUNT)] == [one.text for one in results]
    assert {1} == set(Counter(gate.entered).values())
    survivor.tell(signal.SIGTERM)
    assert await survivor.ended() == 0


async def test_killed_coordinators_leave_nothing_that_another_cannot_finish(
    stage: Stage, children: Children
) -> None:
    """All are gone, tasks are submitted and end meanwhile; the next one finds the rest."""
    only = await children.coordinator()
    gate = spine.Gate()
    await stage.join(gated(gate))
    mesh = await stage.client()
    running = await mesh.submit_many(PLAIN, [spine.Text(f"running{n}") for n in range(10)])
    await gate.holds(10)
    only.tell(signal.SIGKILL)
    await only.ended()
    gate.open()
    await asyncio.gather(*(one.result(timeout=SOON) for one in running))
    late = await mesh.submit_many(PLAIN, [spine.Text(f"late{n}") for n in range(10)])
    await children.coordinator()
    await asyncio.gather(*(one.result(timeout=SOON) for one in late))
    assert {1} == set(Counter(gate.entered).values())
    assert len(gate.entered) == 20


async def test_processes_come_back_after_a_kill_of_the_server(
    stage: Stage,
    server: EmbeddedServer,
    children: Children,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Coordinator, agent and client, each its own process, with 200 tasks under way: all end, all come back."""
    coordinator = await children.coordinator()
    agent = await children.agent(kind="printing")
    mesh = await stage.client()
    await mesh.call(WORK, Text("before"), timeout=SOON)
    submitting = asyncio.create_task(mesh.submit_many(WORK, [Text(f"t{n}") for n in range(COUNT)]))
    await agent.says("ran t19.")
    server.kill()
    await server.restart()
    listening = time.monotonic()
    handles = await asyncio.wait_for(submitting, PATIENCE)
    results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
    took = time.monotonic() - listening
    show(capsys, f"killed server: all {COUNT} tasks ended {took:.2f} s after it listened")
    assert [f"t{n}" for n in range(COUNT)] == [one.text.split()[0] for one in results]
    runs = Counter(line for line in agent.output().splitlines() if line.startswith("ran t"))
    assert {f"ran t{n}." for n in range(COUNT)} == set(runs)
    assert max(runs.values()) <= 2
    await until(lambda: _sees(mesh, agent))
    for child in (agent, coordinator):
        child.tell(signal.SIGTERM)
        assert await child.ended() == 0


async def _sees(mesh: Mesh, child: Child) -> bool:
    return [child.pid] == [one.process for one in (await mesh.agents()).instances]
