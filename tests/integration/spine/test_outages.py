"""The broker or the line goes away and comes back: no result is lost, nothing runs without need."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from switchgear import Capability
from switchgear.contract import limits, subjects
from switchgear.server import EmbeddedServer
from tests.integration.bus.faults import Cut
from tests.integration.spine.rawwriter import raw_client
from tests.integration.spine.stage import SOON, Gate, Stage, Text, gated, show, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.faults]

WORK = Capability("work", Text, Text)
NEXT = limits.ANNOUNCE_EVERY.total_seconds()
"""Seconds after which a mesh that noticed nothing would be put right; usually it takes a tenth of one."""
INTAKES = ["intake-submitted", "intake-transitions"]


def texts(prefix: str, count: int) -> list[Text]:
    """Inputs that tell tasks apart."""
    return [Text(f"{prefix}{n}") for n in range(count)]


async def test_client_without_a_line_gets_all_results_later(stage: Stage, gate: Gate) -> None:
    """Cut off while its tasks run, and while they end."""
    await stage.coordinate()
    await stage.join(gated(gate))
    async with Cut(stage.url) as line:
        mesh = await stage.client(url=line.url)
        handles = await mesh.submit_many(WORK, texts("t", 20))
        await gate.holds(20)
        line.closed = True
        line.cut()
        gate.open()
        await gate.until(lambda: len(gate.left) == 20)
        line.closed = False
        results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
        assert [Text(f"t{n} 1 gated") for n in range(20)] == results
        assert len(gate.entered) == 20


async def test_submission_during_an_outage_of_the_line_stands_once(
    stage: Stage, gate: Gate
) -> None:
    """Its append is sent again until the broker answers, and is recognised where it had landed."""
    gate.open()
    await stage.coordinate()
    await stage.join(gated(gate))
    async with Cut(stage.url) as line:
        mesh = await stage.client(url=line.url)
        await mesh.call(WORK, Text("before"), timeout=SOON)
        line.deaf = True
        submitting = asyncio.create_task(mesh.submit_many(WORK, texts("t", 10)))
        await gate.until(lambda: len(gate.left) == 11)
        assert not submitting.done()
        line.cut()
        line.deaf = False
        handles = await asyncio.wait_for(submitting, PATIENCE)
        results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
        assert [Text(f"t{n} 1 gated") for n in range(10)] == results
        assert {1} == set(Counter(gate.entered).values())


async def test_killed_server_costs_no_result(
    stage: Stage, gate: Gate, server: EmbeddedServer
) -> None:
    """Tasks that ended before it, were held, were queued, or are submitted meanwhile: all end, once."""
    await stage.coordinate()
    await stage.join(gated(gate, concurrency=10))
    mesh = await stage.client()
    gate.open()
    before = await mesh.submit_many(WORK, texts("before", 20))
    await asyncio.gather(*(one.result(timeout=SOON) for one in before))
    assert {1} == set(Counter(gate.entered).values())
    gate.shut()
    held = await mesh.submit_many(WORK, texts("held", 30))
    await gate.holds(20 + 10)
    server.kill()
    meanwhile = asyncio.create_task(mesh.submit_many(WORK, texts("meanwhile", 10)))
    gate.open()
    await server.restart()
    handles = [*before, *held, *await asyncio.wait_for(meanwhile, PATIENCE)]
    results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
    names = [
        f"{name}{n}"
        for name, count in (("before", 20), ("held", 30), ("meanwhile", 10))
        for n in range(count)
    ]
    assert names == [one.text.split()[0] for one in results]
    runs = Counter(gate.entered)
    assert {1} == {runs[f"before{n}"] for n in range(20)}
    assert set(names) == set(runs)
    assert max(runs.values()) <= 2


async def test_everybody_resumes_after_a_kill_of_the_server(
    stage: Stage, gate: Gate, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """All pulls stand again before anybody announces himself again, and of 200 tasks none is missing."""
    gate.open()
    replicas = [await stage.coordinate() for _ in range(2)]
    await stage.join(gated(gate))
    mesh = await stage.client()
    await mesh.call(WORK, Text("before"), timeout=SOON)
    pool = (await mesh.capabilities()).rows[0].offer.pool
    wanted = {("SG_LEDGER", name): len(replicas) for name in INTAKES}
    wanted["SG_TIMERS", "intake-due"] = len(replicas)
    for priority in subjects.PRIORITIES:
        wanted["SG_LEDGER", subjects.lane_consumer("work", pool, priority)] = 1
    submitting = asyncio.create_task(mesh.submit_many(WORK, texts("t", 200)))
    await gate.until(lambda: len(gate.left) >= 20)
    server.kill()
    await server.restart()
    listening = time.monotonic()
    raw = await raw_client(stage.url)

    async def all_pull() -> bool:
        counts = {one: await raw.consumer(*one) for one in wanted}
        return all(counts[one]["num_waiting"] >= least for one, least in wanted.items())

    handles = await asyncio.wait_for(submitting, PATIENCE)
    results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
    ended = time.monotonic() - listening
    await until(all_pull, every=0.002)
    resumed = time.monotonic() - listening
    await raw.client.close()
    show(
        capsys,
        f"server restarted: all tasks ended after {ended:.2f} s, all pulls seen after {resumed:.2f} s",
    )
    assert [f"t{n}" for n in range(200)] == [one.text.split()[0] for one in results]
    assert resumed < NEXT
    assert max(Counter(gate.entered).values()) <= 2


async def test_idle_mesh_resumes_after_a_kill_of_the_server(
    stage: Stage, gate: Gate, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has anything to send, so nobody notices by sending: the first task is served as soon."""
    gate.open()
    await stage.coordinate()
    await stage.join(gated(gate))
    mesh = await stage.client()
    await mesh.call(WORK, Text("before"), timeout=SOON)
    figures: list[float] = []
    for _ in range(3):
        server.kill()
        await server.restart()
        listening = time.monotonic()
        await mesh.call(WORK, Text("after"), timeout=SOON)
        figures.append(time.monotonic() - listening)
    show(capsys, f"server restarted: first result after {[round(one, 2) for one in figures]} s")
    assert max(figures) < NEXT
