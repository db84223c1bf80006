"""Who gets a task: version, labels, priority, presence; and how soon a newcomer does."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from switchgear import Agent, Capability, Context, TaskHandle, TaskRejected
from switchgear.agent.settings import WorkerSettings
from switchgear.client.mesh import Mesh
from switchgear.contract import limits, subjects
from switchgear.errors import NotFound
from tests.integration.spine.rawwriter import Raw
from tests.integration.spine.stage import (
    SOON,
    Gate,
    Member,
    Stage,
    Text,
    gated,
    history_of,
    reach,
    show,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

WORK = Capability("work", Text, Text)


async def seen(mesh: Mesh, *members: Member) -> None:
    """Wait until the coordinator has heard of these."""

    async def all_there() -> bool:
        there = {one.instance for one in (await mesh.agents()).instances}
        return {one.bus.name for one in members} <= there

    await until(all_there)


async def test_version_range_decides(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    """The newest that fits runs the task; the reason is in the ledger."""
    gate.open()
    old = await stage.join(gated(gate, "old", version="1.4.2"))
    new = await stage.join(gated(gate, "new", version="2.0.0"))
    await seen(mesh, old, new)
    expected = {"*": "new", "1.4": "old", ">=1,<2": "old", ">=2": "new"}
    ran = {
        wanted: (await mesh.call(Capability("work", Text, Text, version=wanted), Text("a"))).text
        for wanted in expected
    }
    assert {wanted: f"a 1 {name}" for wanted, name in expected.items()} == ran


async def test_labels_decide(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    gate.open()
    east = await stage.join(gated(gate, "east", region="east"))
    west = await stage.join(gated(gate, "west", region="west"))
    await seen(mesh, east, west)
    handles = [
        await mesh.submit(WORK, Text("a"), labels={"region": region})
        for region in ("east", "west", "east")
    ]
    ran = [(await one.result(timeout=SOON)).text for one in handles]
    assert ran == ["a 1 east", "a 1 west", "a 1 east"]


async def test_unfit_pool_is_named_while_the_task_waits(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    member = await stage.join(gated(gate, region="east"))
    await seen(mesh, member)
    handle = await mesh.submit(WORK, Text("a"), labels={"region": "mars"})
    await reach(handle, "waiting")
    told = await mesh.explain(handle.id)
    assert told.state == "waiting"
    assert "label region is east, not mars" in told.sentences[-1]


async def test_freed_slots_take_the_highest_priority_first(
    mesh: Mesh, stage: Stage, gate: Gate, raw: Raw
) -> None:
    """Of all that is in the lanes; they hold as many tasks again as there are slots."""
    settings = WorkerSettings()
    member = await stage.join(gated(gate, concurrency=4), settings)
    await seen(mesh, member)
    first = [await mesh.submit(WORK, Text("first")) for _ in range(4)]
    await gate.holds(4)
    pool = (await mesh.capabilities()).rows[0].offer.pool
    lanes = [subjects.lane_consumer("work", pool, name) for name in subjects.PRIORITIES]

    async def nobody_pulls() -> bool:
        counts = [await raw.consumer("SG_LEDGER", lane) for lane in lanes]
        return all(count["num_waiting"] == 0 for count in counts)

    await until(nobody_pulls)
    handles: list[TaskHandle[Text]] = []
    # one after the other: a low one that is counted too late has to wait for room behind higher ones
    for name in ("low", "low", "normal", "normal", "high", "high"):
        handles.append(await mesh.submit(WORK, Text(name), priority=name))
        await reach(handles[-1], "dispatched")
    gate.open()
    await asyncio.gather(*(one.result(timeout=SOON) for one in (*first, *handles)))
    assert gate.entered[4:] == ["high", "high", "normal", "normal", "low", "low"]


async def test_required_agent_that_is_absent_is_a_rejection(mesh: Mesh) -> None:
    handle = await mesh.submit(WORK, Text("a"), require_agent=True)
    with pytest.raises(TaskRejected) as caught:
        await handle.result(timeout=SOON)
    assert caught.value.cause_code == "SG1204"


async def test_required_agent_that_is_there_runs_it(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    gate.open()
    await seen(mesh, await stage.join(gated(gate)))
    handle = await mesh.submit(WORK, Text("a"), require_agent=True)
    assert Text("a 1 gated") == await handle.result(timeout=SOON)


async def test_waiting_names_who_offered_it_last(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    member = await stage.join(gated(gate))
    await seen(mesh, member)
    await member.worker.stop()

    async def gone() -> bool:
        return (await mesh.agents()).instances == ()

    await until(gone)
    handle = await mesh.submit(WORK, Text("a"))
    await reach(handle, "waiting")
    (*_, last) = (await mesh.explain(handle.id)).sentences
    assert last.startswith(
        f"Waiting: nobody offers work (last offered by gated 1.0.0 ({member.bus.name})"
    )


async def test_newcomer_gets_what_waited_for_it(
    mesh: Mesh,
    stage: Stage,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Routable within 100 ms of connecting, on a quiet machine; always before the next announcement."""
    after_start: list[float] = []
    after_connect: list[float] = []
    for n in range(10):
        agent = Agent(f"late{n}", version="1.0.0")

        @agent.capability(f"late{n}")
        async def late(value: Text, ctx: Context) -> Text:
            return value

        handle = await mesh.submit(late, Text("a"))
        await reach(handle, "waiting")
        connected, started = await _join(stage, agent)
        await handle.result(timeout=SOON)
        history = await history_of(mesh, handle)
        stored = next(v.stored.time for v in history.valid if v.subject.event == "dispatched")
        after_connect.append((stored - connected).total_seconds() * 1e3)
        after_start.append((stored - started).total_seconds() * 1e3)
    figures = {
        "connected": statistics.median(after_connect),
        "started": statistics.median(after_start),
    }
    record_property("newcomer_ms", figures)
    show(
        capsys,
        f"newcomer routable, median of 10, ms after: {figures}, worst {max(after_connect):.1f}",
    )
    assert max(figures.values()) < limits.ANNOUNCE_EVERY.total_seconds() * 1e3


async def _join(stage: Stage, agent: Agent) -> tuple[datetime, datetime]:
    """Start an instance. Returns when it was connected, and when `start` returned."""
    from switchgear.agent.worker import Worker

    bus = await stage.bus(agent.name, agent.name)
    worker = Worker(agent, bus)
    stage.leave(worker.stop)
    connected = datetime.now(UTC)
    await worker.start()
    return connected, datetime.now(UTC)


async def test_instance_answers_micro(mesh: Mesh, stage: Stage, gate: Gate, raw: Raw) -> None:
    """The `nats` CLI sees it: PING, INFO and STATS, to all, by name and by id."""
    member = await stage.join(gated(gate, region="east"))
    await seen(mesh, member)
    instance = member.bus.name
    for place in ("", ".gated", f".gated.{instance}"):
        ping = await raw.request(f"$SRV.PING{place}", b"")
        assert ("gated", instance, "1.0.0") == (ping["name"], ping["id"], ping["version"])
        assert ping["type"] == "io.nats.micro.v1.ping_response"
        info = await raw.request(f"$SRV.INFO{place}", b"")
        assert _names(info) == ["work"]
        assert info["metadata"] == {"region": "east"}
        stats = await raw.request(f"$SRV.STATS{place}", b"")
        assert _names(stats) == ["work"]
        assert datetime.now(UTC) > datetime.fromisoformat(stats["started"])


def _names(answer: dict[str, Any]) -> list[str]:
    return [one["name"] for one in answer["endpoints"]]


async def test_drained_instance_gets_nothing_new(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    """It finishes what it holds, leaves the registry, and what comes meanwhile waits or goes elsewhere."""
    member = await stage.join(gated(gate, "first"))
    await seen(mesh, member)
    held = await mesh.submit(WORK, Text("held"))
    await gate.holds()
    assert (member.bus.name,) == (await mesh.drain("first")).instances

    async def draining() -> bool:
        return all(one.draining for one in (await mesh.agents()).instances)

    await until(draining)
    late = await mesh.submit(WORK, Text("late"))
    await reach(late, "waiting")
    await stage.join(gated(gate, "second"))
    gate.open()
    assert Text("held 1 first") == await held.result(timeout=SOON)
    assert Text("late 1 second") == await late.result(timeout=SOON)
    await asyncio.wait_for(member.worker.drained.wait(), PATIENCE)
    with pytest.raises(NotFound):
        await mesh.drain("first")
