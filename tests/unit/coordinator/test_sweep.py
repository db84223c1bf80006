"""The sweep finds what lost whatever would have moved it, and leaves all else alone."""

from __future__ import annotations

import asyncio

import pytest

from switchgear.contract import codec, subjects
from switchgear.contract.queries import LaneQuery, Lanes
from switchgear.coordinator.open_tasks import OpenTasks
from switchgear.lifecycle.leasing import LeaseDocument
from switchgear.tasks.asking import ask
from tests.unit.coordinator.desk import CAPABILITY, FAILURE, Desk, desk

SWEPT = 130.0
"""Seconds after which a task is old, and at least one pass has looked at it."""
LANE = subjects.lane_consumer(CAPABILITY, "p1", "normal")


def take(on: Desk, consumer: str, stream: str = "ledger") -> None:
    """Ack by mistake whatever this consumer has handed out, or has before it."""
    found = on.broker.consumer(getattr(on.broker, stream), consumer)
    assert found is not None
    for handed in found.take(1000):
        found.settle(handed.stored.sequence, b"+ACK")


async def gone(on: Desk) -> None:
    """Let all coordinators stop."""
    for made, _ in on.coordinators:
        await made.stop()
    on.coordinators.clear()


async def test_a_live_dispatch_that_was_acked_by_mistake_is_dispatched_anew() -> None:
    """As any agent of the capability could; one that is merely slow is left alone."""
    async with desk() as on:
        await on.offer()
        on.submit("slow")
        await on.reach("slow", "dispatched")
        slow = (await on.pull())[0]
        on.submit("t")
        await on.reach("t", "dispatched")
        take(on, LANE)
        for _ in range(20):
            slow.in_progress()
            await asyncio.sleep(10)
        slow.ack()
        on.complete("slow")
        await on.reach("t", "dispatched", 2)
        assert on.events("slow") == ["submitted", "dispatched", "completed"]
        assert len(await on.pull()) == 1


async def test_a_dispatch_that_waits_in_its_lane_is_left_alone() -> None:
    """However long."""
    async with desk() as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        await asyncio.sleep(2 * SWEPT)
        assert on.events("t") == ["submitted", "dispatched"]


@pytest.mark.parametrize("event", ["attempt-failed", "cancel-requested", "waiting"])
async def test_an_entry_that_no_coordinator_consumed_is_found(event: str) -> None:
    """Its message was acked by mistake."""
    async with desk() as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        await gone(on)
        if event == "attempt-failed":
            on.say("t", event, error=FAILURE)
        elif event == "waiting":
            on.suspend("t", on.awaited("timer", until=on.clock.now()))
        else:
            on.say("t", "cancel-requested", reason="no more")
        take(on, "intake-transitions")
        await on.coordinate()
        await on.coordinate()
        await asyncio.sleep(20)
        assert on.events("t")[-1] == event
        await asyncio.sleep(SWEPT)
        assert on.events("t")[-1] == ("cancelled" if event == "cancel-requested" else "dispatched")


async def test_a_submission_that_no_coordinator_consumed_is_found() -> None:
    """The same."""
    async with desk() as on:
        await on.offer()
        await gone(on)
        on.submit("t")
        take(on, "intake-submitted")
        await on.coordinate()
        await asyncio.sleep(20)
        assert on.events("t") == ["submitted"]
        await asyncio.sleep(SWEPT)
        assert on.events("t") == ["submitted", "dispatched"]


async def test_a_wait_whose_timer_got_lost_gets_another() -> None:
    """One that has its timer is left alone."""
    async with desk() as on:
        on.submit("t")
        await on.reach("t", "waiting")
        timer = subjects.timer(on.scope("t"), "capacity")
        await on.bus.timers.disarm(timer)
        await asyncio.sleep(SWEPT)
        assert await on.bus.timers.armed(timer) == [timer]
        assert on.events("t") == ["submitted", "waiting"]


async def test_an_open_child_of_a_parent_that_has_ended_is_cancelled() -> None:
    """Its parent's end went by nobody who knew of it; one that outlives its parent goes on."""
    async with desk() as on:
        await on.offer()
        on.submit("parent")
        for child, detached in {"c": False, "free": True}.items():
            on.child("parent", child, detached=detached)
            await on.reach(child, "dispatched")
        on.complete("parent")
        await asyncio.sleep(2 * SWEPT)
        history = on.history("c")
        assert history.cancelling is not None
        assert history.cancelling.reason == "its parent has ended"
        assert history.ended == "cancelled"
        assert on.history("free").is_open


@pytest.mark.parametrize("asked", [False, True])
async def test_a_lost_lane_begins_with_the_oldest_open_task(asked: bool) -> None:  # noqa: FBT001
    """Not with all history; made by the sweep, or as soon as an agent misses it."""
    async with desk() as on:
        await on.offer()
        for n in range(20):
            on.submit(f"done-{n}")
            await on.reach(f"done-{n}", "dispatched")
            on.complete(f"done-{n}")
        for delivery in await on.pull():
            delivery.ack()
        on.submit("t")
        await on.reach("t", "dispatched")
        await on.bus.work.remove(LANE)
        if asked:
            query = LaneQuery(
                agent="agent", instance="agent-1", lanes=((CAPABILITY, "p1"),), missing=True
            )
            await ask(on.bus.core, "lanes", "agent", query, Lanes)
        else:
            await asyncio.sleep(SWEPT)
        assert [one.stored.subject for one in await on.pull()] == [
            subjects.dispatched(on.scope("t"), "p1", "normal")
        ]
        assert on.events("t") == ["submitted", "dispatched"]


async def test_lost_intakes_begin_with_the_oldest_open_task() -> None:
    """When the next coordinator starts, or the sweep finds it; nothing is missed, little comes again."""
    async with desk() as on:
        await on.offer()
        for n in range(20):
            on.submit(f"done-{n}")
            await on.reach(f"done-{n}", "dispatched")
            on.complete(f"done-{n}")
        await gone(on)
        first = on.submit("t")
        for intake in ("intake-submitted", "intake-transitions"):
            await on.bus.work.remove(intake)
        await on.coordinate()
        await on.reach("t", "dispatched")
        consumer = on.broker.consumer(on.broker.ledger, "intake-submitted")
        assert consumer is not None
        assert consumer.settings.start == first


async def test_open_tasks_are_known_by_their_beginnings_and_ends() -> None:
    """Read once, then only what is new; an end that proves nothing is none."""
    async with desk(coordinators=0) as on:
        tasks = OpenTasks(on.bus.ledger)
        await tasks.catch_up()
        assert (len(tasks), tasks.oldest()) == (0, 1)
        for n in range(300):
            on.submit(f"t-{n}")
            if n % 3:
                on.say(f"t-{n}", "cancelled")
        on.broker.store(f"{on.scope('t-0')[:-1]}cancelled", b"", b"{}")
        await tasks.catch_up()
        assert (len(tasks), tasks.oldest()) == (100, 1)
        on.say("t-0", "cancelled")
        await tasks.catch_up()
        assert (len(tasks), tasks.begun(on.scope("t-3"))) == (99, tasks.oldest())
        assert next(tasks.beyond(0, on.clock.now())) == on.scope("t-3")
        other = OpenTasks(on.bus.ledger, "other")
        await other.catch_up()
        assert other.oldest() == on.broker.ledger.last_sequence + 1


async def test_one_replica_sweeps() -> None:
    """When it stops another goes on, at once; when it dies, once its lease has stood still for long enough."""
    async with desk(coordinators=3) as on:
        await asyncio.sleep(60)
        first = await _sweeper(on)
        index = next(at for at, (_, bus) in enumerate(on.coordinators) if bus.name == first)
        made, _ = on.coordinators.pop(index)
        await made.stop()
        await asyncio.sleep(6)
        second = await _sweeper(on)
        index = next(at for at, (_, bus) in enumerate(on.coordinators) if bus.name == second)
        made, bus = on.coordinators.pop(index)
        on.broker.crash(bus)
        await made.stop()
        await asyncio.sleep(10)
        assert await _sweeper(on) == second
        await asyncio.sleep(15)
        assert await _sweeper(on) not in (first, second)


async def _sweeper(on: Desk) -> str:
    kept = await on.bus.documents.get(subjects.lease("sweep"))
    assert kept is not None
    assert kept.data is not None
    return codec.decode(kept.data, LeaseDocument).holder
