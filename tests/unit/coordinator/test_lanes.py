"""Lanes of pools that are gone for good are removed; a pool that comes back gets them again."""

from __future__ import annotations

import asyncio

from switchgear.contract import subjects
from switchgear.contract.queries import LaneQuery, Lanes
from switchgear.tasks.asking import ask
from tests.unit.coordinator.desk import CAPABILITY, Desk, desk

LANES = [subjects.lane_consumer(CAPABILITY, "p1", one) for one in subjects.PRIORITIES]


async def lanes(on: Desk) -> list[str]:
    return [name for name in await on.bus.work.lanes() if name in LANES]


async def test_lanes_of_a_retired_pool_are_removed() -> None:
    """A minute after its end they are emptied, ten minutes later they go."""
    async with desk(coordinators=2) as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        assert sorted(await lanes(on)) == sorted(LANES)
        await on.leave()
        await on.reach("t", "waiting")
        await asyncio.sleep(500)
        assert sorted(await lanes(on)) == sorted(LANES)
        await asyncio.sleep(200)
        assert await lanes(on) == []


async def test_a_pool_that_comes_back_gets_its_lanes_again() -> None:
    """Whichever replica removed them; what was dispatched before does not come again."""
    async with desk(coordinators=2) as on:
        await on.offer()
        for n in range(5):
            on.submit(f"t-{n}")
            await on.reach(f"t-{n}", "dispatched")
            on.complete(f"t-{n}")
        for delivery in await on.pull():
            delivery.ack()
        await on.leave()
        await asyncio.sleep(1000)
        assert await lanes(on) == []
        await on.offer()
        query = LaneQuery(
            agent="agent", instance="agent-1", lanes=((CAPABILITY, "p1"),), missing=True
        )
        await ask(on.bus.core, "lanes", "agent", query, Lanes)
        on.submit("new")
        await on.reach("new", "dispatched")
        assert [one.stored.subject for one in await on.pull()] == [
            subjects.dispatched(on.scope("new"), "p1", "normal")
        ]


async def test_a_lane_with_something_unsettled_is_kept() -> None:
    """Somebody still runs it, announced or not."""
    async with desk() as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        held = (await on.pull())[0]
        await on.leave()
        for _ in range(200):
            held.in_progress()
            await asyncio.sleep(10)
        assert LANES[1] in await lanes(on)
