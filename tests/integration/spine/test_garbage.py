"""Rubbish into everything that is consumed: each service says no, or nothing, and works on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from switchgear import Capability, TaskRejected
from switchgear.client.mesh import Mesh
from switchgear.contract import subjects
from tests.integration.spine.attacks import UNREADABLE
from tests.integration.spine.rawwriter import NOW, Raw, honest_headers
from tests.integration.spine.stage import (
    OWNER,
    SOON,
    Gate,
    Member,
    Stage,
    Text,
    gated,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

WORK = Capability("work", Text, Text)
SLOW = Capability("slow", Text, Text)
NEWLINE = "token\n"
BODIES = {
    **UNREADABLE,
    "version 9": b'{"v":9}',
    "tokens with a newline": json.dumps(
        {"v": 1, "task": NEWLINE, "agent": NEWLINE, "instance": NEWLINE, "lanes": [[NEWLINE, "p"]]}
    ).encode(),
    "wrong types": b'{"v":1,"task":7,"agent":[],"instance":{},"lanes":"x","verb":"fly","n":"x"}',
    "numbers out of range": b'{"v":1,"n":1e400,"task":"t","time":1e400}',
    "oversize": b'{"v":1,"pad":"' + b"x" * 600_000 + b'"}',
}
ODD = "w$rk.ali%ce"
"""Tokens that no subject of the protocol has."""


class Healthy:
    """Says whether the mesh still works, and has nothing left over."""

    def __init__(self, mesh: Mesh, raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
        self._mesh = mesh
        self._raw = raw
        self._caplog = caplog

    async def check(self) -> None:
        """A task runs; every intake is empty; nobody met an error that he did not expect."""
        done = await self._mesh.call(WORK, Text("after"), timeout=SOON)
        assert done.text.startswith("after 1")
        await until(self._nothing_left)
        errors = [one for one in self._caplog.records if one.levelname in ("ERROR", "CRITICAL")]
        assert [one.getMessage() for one in errors] == []

    async def _nothing_left(self) -> bool:
        intakes = [("SG_LEDGER", "intake-submitted"), ("SG_LEDGER", "intake-transitions")]
        counts = [await self._raw.consumer(*one) for one in [*intakes, ("SG_TIMERS", "intake-due")]]
        return all(one["num_pending"] == one["num_ack_pending"] == 0 for one in counts)


@pytest.fixture
async def member(mesh: Mesh, stage: Stage, gate: Gate) -> Member:
    """An agent that lets all pass."""
    gate.open()
    return await stage.join(gated(gate))


@pytest.fixture
def healthy(mesh: Mesh, member: Member, raw: Raw, caplog: pytest.LogCaptureFixture) -> Healthy:
    """The check at the end."""
    return Healthy(mesh, raw, caplog)


async def test_due_messages(raw: Raw, healthy: Healthy) -> None:
    """Of tasks that do not exist, of kinds that nobody knows, and of no task at all."""
    for data in BODIES.values():
        for place in (
            "work.alice.t1.capacity",
            "work.alice.t1.what",
            f"{ODD}.t.k",
            "a",
            "a.b.c.d.e",
        ):
            await raw.store(f"sg.due.{place}", data)
    await healthy.check()


async def test_due_messages_of_a_running_task(
    mesh: Mesh, stage: Stage, raw: Raw, healthy: Healthy
) -> None:
    """Pointless and unreadable timers leave it alone."""
    own = Gate()
    await stage.join(gated(own, "slow", capability="slow"))
    handle = await mesh.submit(SLOW, Text("a"))
    await own.holds()
    for kind in ("capacity", "deadline", "cleanup", "retry", "wait", "what"):
        for data in (b"{}", b'{"n":99999}', *BODIES.values()):
            await raw.store(f"sg.due.slow.{OWNER}.{handle.id}.{kind}", data)
    own.open()
    assert Text("a 1 slow") == await handle.result(timeout=SOON)
    assert own.entered == ["a"]
    await healthy.check()


async def test_announcements(mesh: Mesh, member: Member, raw: Raw, healthy: Healthy) -> None:
    """None of them enters the table; the true one stays in it."""
    false: dict[str, Any] = {
        "v": 1,
        "agent": "other",
        "instance": "other-1",
        "version": "9.9.9",
        "started": NOW,
        "time": NOW,
        "offers": [],
    }
    bodies = [
        *BODIES.values(),
        json.dumps(false).encode(),
        json.dumps({**false, "agent": NEWLINE}).encode(),
    ]
    for n, data in enumerate(bodies):
        for place in (f"bad.i{n}", "a", f"{ODD}", "a.b.c", f"gated.{NEWLINE[:5]}"):
            await raw.store(f"sg.announce.{place}", data, {"Nats-TTL": "30s"})
    await healthy.check()
    assert [member.bus.name] == [one.instance for one in (await mesh.agents()).instances]


@pytest.mark.parametrize("verb", ["capabilities", "agents", "explain", "drain", "lanes", "holder"])
async def test_queries(raw: Raw, healthy: Healthy, verb: str) -> None:
    """Each is answered: by what is wrong with it, or as if nothing were."""
    for what, data in BODIES.items():
        if data:
            answer = await raw.request(f"sg.api.{verb}.alice", data)
            ignored = verb in ("capabilities", "agents") and data.startswith(b"{")
            fits = ignored and not what.startswith(("bad UTF-8", "deep", "version", "oversize"))
            assert fits or what == "numbers out of range" or answer["code"].startswith("SG11"), what
        await raw.client.publish(f"sg.api.{verb}.alice", data)
        await raw.client.publish(f"sg.api.{verb}.ali%ce", data)
    answer = await raw.request(f"sg.api.{verb}.ali%ce", b"{}")
    assert answer["code"] == "SG1107"
    await healthy.check()


@pytest.mark.parametrize(
    "place",
    [
        "sg.control.gated.INSTANCE",
        "sg.cancel.work",
        "sg.progress.work.alice.t1",
        "sg.live.work.alice.t1.completed",
    ],
)
async def test_core_messages(raw: Raw, member: Member, healthy: Healthy, place: str) -> None:
    """Orders that are none are not followed; the instance neither drains nor stops anything."""
    for data in BODIES.values():
        await raw.client.publish(place.replace("INSTANCE", member.bus.name), data)
    await raw.client.flush()
    await healthy.check()
    assert not member.worker.drained.is_set()


async def test_reports_and_live_entries_of_a_watched_task(
    mesh: Mesh, stage: Stage, raw: Raw, healthy: Healthy
) -> None:
    """Who watches sees the true ones only, and the true end."""
    own = Gate()
    await stage.join(gated(own, "slow", capability="slow"))
    handle = await mesh.submit(SLOW, Text("a"))

    async def watch() -> list[str]:
        return [event.event async for event in handle.events()]

    watching = asyncio.create_task(watch())
    await own.holds()
    place = f"slow.{OWNER}.{handle.id}"
    forged = raw.body(f"sg.task.{place}.>", "completed", hold=2)
    sane = {"Nats-Sequence": "5", "Nats-Time-Stamp": NOW, "Nats-Stream": "SG_LEDGER"}
    for data in (*BODIES.values(), forged):
        if data is not forged:
            await raw.client.publish(f"sg.progress.{place}", data)
        for headers in (
            None,
            sane,
            {**sane, "Nats-Sequence": "x"},
            {**sane, "Nats-Time-Stamp": "x"},
        ):
            await raw.client.publish(f"sg.live.{place}.completed", data, headers=headers)
    await raw.client.flush()
    own.open()
    assert Text("a 1 slow") == await handle.result(timeout=SOON)
    events = await asyncio.wait_for(watching, PATIENCE)
    assert events == ["submitted", "dispatched", "completed"]
    await healthy.check()


@pytest.mark.parametrize("what", [*BODIES, "another task"])
async def test_malformed_submission_is_rejected(
    mesh: Mesh, raw: Raw, healthy: Healthy, what: str
) -> None:
    """Its sender learns what is wrong, as he would of any other rejection."""
    data = BODIES.get(what, raw.body(subjects.scope("work", OWNER, "other"), "submitted"))
    scope = subjects.scope("work", OWNER, "malformed")
    await raw.store(scope[:-1] + "submitted", data, honest_headers(0, scope))
    with pytest.raises(TaskRejected) as caught:
        await (await mesh.get("malformed")).result(timeout=SOON)
    assert caught.value.cause_code == "SG1205"
    assert (await mesh.status("malformed")).state == "rejected"
    await healthy.check()


async def test_unproven_submissions_start_nothing(raw: Raw, healthy: Healthy, gate: Gate) -> None:
    """Rubbish or not: without compare-and-set there is no task."""
    for n, data in enumerate([*BODIES.values(), b""]):
        scope = subjects.scope("work", OWNER, f"raw{n}")
        await raw.store(scope[:-1] + "submitted", data)
        body = raw.body(scope, "submitted")
        await raw.store(scope[:-1] + "submitted", body)
        await raw.store(f"sg.task.{ODD}.t{n}.submitted", body)
    await healthy.check()
    assert gate.entered == ["after"]
