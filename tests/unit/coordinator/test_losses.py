"""Fast takeover: what a lost instance ran is handed on at once, and it no longer counts as alive."""

from __future__ import annotations

import asyncio

from switchgear.bus.losses import loss_event
from switchgear.bus.port import Delivery
from switchgear.contract import subjects
from switchgear.contract.announcement import Running
from switchgear.contract.queries import Holder, HolderQuery
from switchgear.tasks.asking import ask
from tests.unit.coordinator.desk import CAPABILITY, OWNER, Desk, desk


async def running(on: Desk) -> Delivery:
    """A task that `agent-1` has pulled and announces."""
    await on.offer()
    await on.offer("agent-2")
    on.submit("t")
    await on.reach("t", "dispatched")
    delivery = (await on.pull())[0]
    ran = Running(
        task="t",
        owner=OWNER,
        capability=CAPABILITY,
        since=on.clock.now(),
        ack=delivery.ack_subject,
    )
    await on.offer(running=(ran,))
    return delivery


def lose(on: Desk, instance: str = "agent-1") -> None:
    """Let the broker tell that this connection ended."""
    on.bus.core.publish(subjects.LOSSES, loss_event(instance))


async def holder(on: Desk) -> str:
    return (await ask(on.bus.core, "holder", "agent", HolderQuery(task="t"), Holder)).instance


async def test_what_a_lost_instance_ran_comes_again_at_once() -> None:
    """Once, with several replicas; and whoever asks hears that nobody runs it, whichever replica answers."""
    async with desk(coordinators=3) as on:
        await running(on)
        assert await holder(on) == "agent-1"
        on.silence()
        lose(on)
        await asyncio.sleep(0.1)
        assert await on.pull() == []
        await asyncio.sleep(0.2)
        again = await on.pull()
        assert [one.deliveries for one in again] == [2]
        assert [await holder(on) for _ in range(10)] == [""] * 10
        await asyncio.sleep(5)
        assert await on.pull() == []


async def test_an_instance_that_returns_keeps_what_it_runs() -> None:
    """It announces itself within the grace."""
    async with desk() as on:
        delivery = await running(on)
        lose(on)
        await asyncio.sleep(0.1)
        ran = on.coordinators[0][0].registry.table.lost("nobody")
        assert ran == ()
        await on.offer(
            running=(
                Running(
                    task="t",
                    owner=OWNER,
                    capability=CAPABILITY,
                    since=on.clock.now(),
                    ack=delivery.ack_subject,
                ),
            )
        )
        await asyncio.sleep(1)
        assert await on.pull() == []
        assert await holder(on) == "agent-1"


async def test_what_another_holds_by_now_is_not_taken_from_it() -> None:
    """The lost instance's announcement is old: the task has been taken over since."""
    async with desk() as on:
        await running(on)
        on.silence()
        on.say("t", "taken-over", writer="agent-2", deliveries=2, how="crash", former="agent-1")
        lose(on)
        await asyncio.sleep(1)
        assert await on.pull() == []


async def test_a_broker_that_was_away_itself_loses_nobody() -> None:
    """All connections ended with it: for a while nobody counts as absent."""
    async with desk() as on:
        await running(on)
        on.silence()
        lose(on)
        await asyncio.sleep(0.1)
        table = on.coordinators[0][0].registry.table
        table.settle(on.clock.now())
        await asyncio.sleep(1)
        assert await on.pull() == []
        assert await holder(on) == "agent-1"


async def test_a_lost_instance_gets_no_new_work_until_it_is_back() -> None:
    """Its pool is as good as gone; its return wakes who waits."""
    async with desk() as on:
        await on.offer()
        on.silence()
        lose(on)
        await asyncio.sleep(1)
        on.submit("t")
        await on.reach("t", "waiting")
        await on.offer()
        await on.reach("t", "dispatched")


async def test_a_lost_connection_of_somebody_else_means_nothing() -> None:
    """Clients come and go."""
    async with desk() as on:
        await running(on)
        lose(on, "client-77")
        lose(on, "")
        await asyncio.sleep(1)
        assert await on.pull() == []
