"""Breakers on a real server: one instance's dependency fails, the other's does not, and no attempt is burnt."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Breaker, Context, Retry, step
from switchgear.client.mesh import Mesh
from switchgear.contract import entries
from switchgear.contract.announcement import BreakerState
from switchgear.lifecycle.history import History
from tests.integration.spine.stage import SOON, Member, Stage, Text, history_of, until

pytestmark = pytest.mark.integration

TASKS = 60
IN_A_ROW = 3
SLOTS = 2
OPEN_FOR = timedelta(seconds=1.5)


class Service:
    """What one instance's steps call."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.calls = 0
        self.served = list[str]()

    async def call(self, name: str) -> None:
        """One call."""
        self.calls += 1
        await asyncio.sleep(0.02)
        if not self.up:
            raise ConnectionRefusedError("no engine")
        self.served.append(name)


def calling(service: Service) -> Agent:
    """An agent whose tasks are one call each, tried again in place."""
    agent = Agent("caller", version="1.0.0")
    agent.breaker("svc", Breaker(in_a_row=IN_A_ROW, open_for=OPEN_FOR, jitter=0.0))

    @step(retry=Retry(max_attempts=20, initial=timedelta(milliseconds=5)), breaker="svc")
    async def call(name: str) -> str:
        await service.call(name)
        return name

    @agent.capability("call", concurrency=SLOTS)
    async def handle(value: Text, ctx: Context) -> Text:
        return Text(await ctx.step("call", call, value.text))

    return agent


async def breaker(mesh: Mesh, member: Member) -> BreakerState | None:
    """The instance's breaker, as it announces it."""
    found = (await mesh.agents()).instances
    return next(
        (state for one in found if one.instance == member.bus.name for state in one.breakers), None
    )


def is_in(mesh: Mesh, member: Member, *states: str) -> Any:
    """Whether the instance announces one of these states."""

    async def asked() -> bool:
        found = await breaker(mesh, member)
        return found is not None and found.state in states

    return asked


def assert_nothing_burnt(history: History) -> None:
    """One dispatch, no failure, and whoever handed it back said so before."""
    events = [valid.subject.event for valid in history.valid]
    assert events.count("dispatched") == 1
    assert "attempt-failed" not in events
    assert events[-1] == "completed"
    assert history.voids == []
    for valid in history.valid:
        entry = valid.entry
        if isinstance(entry, entries.AgentEntry):
            assert (entry.attempt, entry.status.failures) == (1, 0)
        if isinstance(entry, entries.Released):
            assert (entry.why, entry.dependency) == ("breaker", "svc")
        if isinstance(entry, entries.TakenOver):
            assert entry.how == "released"


def probes(began: float) -> int:
    """How many there may have been since then: one each time that the breaker was open for long enough."""
    elapsed = asyncio.get_running_loop().time() - began
    return math.ceil(elapsed / OPEN_FOR.total_seconds())


def handed_back(history: History) -> int:
    """How often an instance gave it back."""
    return sum(isinstance(valid.entry, entries.Released) for valid in history.valid)


async def test_tasks_go_on_where_the_dependency_is_well_and_none_pays_for_the_other(
    mesh: Mesh, stage: Stage
) -> None:
    """It opens within its window, its instance pulls no more, and it closes again after the recovery."""
    ill, well = Service(up=False), Service(up=True)
    began = asyncio.get_running_loop().time()
    members = [await stage.join(calling(one)) for one in (ill, well)]
    handles = [await mesh.submit("call", Text(str(n))) for n in range(TASKS)]
    await until(is_in(mesh, members[0], "open"))
    results = [(await one.result(Text, timeout=SOON)).text for one in handles]
    assert results == [str(n) for n in range(TASKS)]
    assert sorted(well.served, key=int) == results
    histories = [await history_of(mesh, one) for one in handles]
    for history in histories:
        assert_nothing_burnt(history)
    # what opened it, one more that was under way, and a probe after each open time
    assert 1 <= sum(map(handed_back, histories)) <= 2 * SLOTS + probes(began)
    assert IN_A_ROW <= ill.calls <= IN_A_ROW + SLOTS + probes(began)
    state = await breaker(mesh, members[1])
    assert state is not None
    assert (state.state, state.opened) == ("closed", 0)

    ill.up = True
    await members[1].worker.stop()
    after = [await mesh.submit("call", Text(str(n))) for n in range(10)]
    for one in after:
        await one.result(Text, timeout=SOON)
        assert_nothing_burnt(await history_of(mesh, one))
    assert ill.served
    await until(is_in(mesh, members[0], "closed"))


async def test_a_refused_task_does_not_spin_where_nobody_else_can_run_it(
    mesh: Mesh, stage: Stage
) -> None:
    """It waits in its lane: the instance's pulls had ended before it was handed back."""
    ill = Service(up=False)
    began = asyncio.get_running_loop().time()
    member = await stage.join(calling(ill))
    handle = await mesh.submit("call", Text("a"))
    await until(is_in(mesh, member, "open"))

    async def back() -> bool:
        return handed_back(await history_of(mesh, handle)) > 0

    await until(back)
    more = await mesh.submit("call", Text("b"))

    async def probed() -> bool:
        return ill.calls > IN_A_ROW

    await until(probed)
    ill.up = True
    for one in (handle, more):
        await one.result(Text, timeout=SOON)
        history = await history_of(mesh, one)
        assert_nothing_burnt(history)
        assert handed_back(history) <= SLOTS + probes(began)
