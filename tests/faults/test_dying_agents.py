"""Agents that are killed, told to leave, or end themselves in a handler."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from switchgear import Capability, TaskDead, TaskHandle
from switchgear.client.mesh import Mesh
from switchgear.contract import entries, limits
from switchgear.lifecycle.history import History
from tests.faults.conftest import LEASE
from tests.faults.processes import Child, Children, Gate
from tests.faults.programs.agent import Text
from tests.integration.spine.rawwriter import Raw
from tests.integration.spine.stage import SOON, history_of, show, until

pytestmark = [pytest.mark.integration, pytest.mark.faults]

WORK = Capability("work", Text, Text)
UNSEEN = 3600.0
"""`shown_after`: with so short a lease, a dead instance that was announced as running would count as alive."""
THIRD = LEASE.total_seconds() / 3
SHOWN = limits.ANNOUNCE_TTL.total_seconds() / 2
"""Seconds; a takeover that waited for the announcement to vanish would take longer."""


async def announced(mesh: Mesh) -> set[int]:
    """Process ids of the live instances."""
    return {one.process for one in (await mesh.agents()).instances}


async def joined(mesh: Mesh, *children: Child) -> None:
    """Wait until these are announced."""

    async def all_there() -> bool:
        return {child.pid for child in children} <= await announced(mesh)

    await until(all_there)


def takeovers(history: History) -> list[str]:
    """How the task was taken over, each time."""
    return [one.entry.how for one in history.valid if isinstance(one.entry, entries.TakenOver)]


def events(history: History) -> list[str]:
    """What happened to the task."""
    return [one.subject.event for one in history.valid]


async def test_task_of_a_killed_agent_is_taken_over(
    mesh: Mesh, children: Children, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next instance begins when the lease ends, says that it was a crash, and the task ends once."""
    agents = [await children.agent(extend_every=THIRD, shown_after=UNSEEN) for _ in range(2)]
    await joined(mesh, *agents)
    handle = await mesh.submit(WORK, Text("a"))
    await gate.holds(1)
    victim = next(one for one in agents if one.pid == gate.entered[0][0])
    (other,) = (one for one in agents if one is not victim)
    victim.tell(signal.SIGKILL)
    killed = time.monotonic()
    assert await victim.ended() == -signal.SIGKILL
    await gate.holds(2)
    took = time.monotonic() - killed
    show(capsys, f"killed agent: taken over after {took:.2f} s, lease {LEASE}")
    await gate.open()
    result = await handle.result(timeout=SOON)
    assert Text(f"a by {other.pid}, attempt 1") == result
    assert [(victim.pid, "a"), (other.pid, "a")] == gate.entered
    history = await history_of(mesh, handle)
    assert events(history) == ["submitted", "dispatched", "taken-over", "completed"]
    assert takeovers(history) == ["crash"]
    assert took < SHOWN


async def test_told_agent_finishes_what_it_runs(mesh: Mesh, children: Children, gate: Gate) -> None:
    """SIGTERM in the middle of a task: nothing new, but this one, then exit code 0."""
    first = await children.agent("first")
    await joined(mesh, first)
    handle = await mesh.submit(WORK, Text("a"))
    await gate.holds(1)
    first.tell(signal.SIGTERM)

    async def drains() -> bool:
        return all(one.draining for one in (await mesh.agents()).instances)

    await until(drains)
    late = await mesh.submit(WORK, Text("late"))
    second = await children.agent("second")
    await gate.holds(2)
    await gate.open()
    assert Text(f"a by {first.pid}, attempt 1") == await handle.result(timeout=SOON)
    assert Text(f"late by {second.pid}, attempt 1") == await late.result(timeout=SOON)
    assert await first.ended() == 0
    await until(lambda: _only(mesh, second))


async def test_told_agent_hands_back_what_takes_too_long(
    mesh: Mesh, children: Children, gate: Gate
) -> None:
    """`released` comes before the hand-back, so that it counts as no crash; the next one starts at once."""
    first = await children.agent(drain=0.1, extend_every=THIRD)
    await joined(mesh, first)
    handle = await mesh.submit(WORK, Text("a"))
    await gate.holds(1)
    second = await children.agent(extend_every=THIRD)
    await joined(mesh, second)
    first.tell(signal.SIGTERM)
    assert await first.ended() == 0
    await until(lambda: _only(mesh, second))
    await gate.holds(2)
    await gate.open()
    assert Text(f"a by {second.pid}, attempt 1") == await handle.result(timeout=SOON)
    history = await history_of(mesh, handle)
    assert events(history) == ["submitted", "dispatched", "released", "taken-over", "completed"]
    assert takeovers(history) == ["released"]
    assert history.crashes == 0


async def _only(mesh: Mesh, child: Child) -> bool:
    return {child.pid} == await announced(mesh)


async def test_poison_is_dead_after_three_executions(
    mesh: Mesh, children: Children, gate: Gate
) -> None:
    """A handler that ends its process: two crashes are survived, the third ends the attempt."""
    await gate.open()
    agents = [
        await children.agent(kind="poison", extend_every=THIRD, shown_after=UNSEEN)
        for _ in range(4)
    ]
    await joined(mesh, *agents)
    handle: TaskHandle[Text] = await mesh.submit(WORK, Text("a"))
    with pytest.raises(TaskDead) as caught:
        await handle.result(timeout=SOON)
    assert (caught.value.error_class, caught.value.cause_code) == ("crash-loop", "SG1512")
    history = await history_of(mesh, handle)
    assert takeovers(history) == ["crash", "crash", "crash"]
    assert 3 == len({pid for pid, _ in gate.entered}) == len(gate.entered)
    assert (history.attempt, history.failures) == (1, 1)
    dead = {pid for pid, _ in gate.entered}
    codes = await asyncio.gather(*(one.ended() for one in agents if one.pid in dead))
    assert codes == [9, 9, 9]


async def test_silent_instance_disappears_when_its_ttl_ends(mesh: Mesh, raw: Raw) -> None:
    """Whoever was killed cannot say so: the broker does, by the announcement's own TTL."""
    now = datetime.now(UTC).isoformat()
    announcement: dict[str, Any] = {
        "v": 1,
        "agent": "ghost",
        "instance": "ghost-1",
        "version": "1.0.0",
        "started": now,
        "time": now,
        "offers": [],
        "process": 1,
    }
    await raw.store(
        "sg.announce.ghost.ghost-1", json.dumps(announcement).encode(), {"Nats-TTL": "3s"}
    )

    async def there() -> bool:
        return {1} == await announced(mesh)

    async def gone() -> bool:
        return set() == await announced(mesh)

    await until(there)
    await until(gone)
