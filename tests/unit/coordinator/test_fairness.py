"""Fair dispatch in virtual time: shallow lanes, owners in turn, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from switchgear.bus.port import Delivery
from switchgear.client.mesh import Mesh
from switchgear.contract import subjects
from switchgear.coordinator.intake import OwnIntakes
from switchgear.coordinator.service import Coordinator
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.errors import Overloaded
from switchgear.lifecycle.fairness import CROWDED, Backlogged
from switchgear.lifecycle.history import fold
from switchgear.tasks.handle import TaskHandle
from switchgear.testing.site import Site
from tests.unit.coordinator.desk import CAPABILITY, OWNER, desk
from tests.unit.coordinator.pullers import Puller, pulling

FLOOD = 250


async def client(site: Site, owner: str) -> Mesh:
    mesh = Mesh(site.bus(owner), owner, clock=site.clock)
    await mesh.start()
    return mesh


def events(site: Site, handle: TaskHandle[object], owner: str) -> list[str]:
    scope = subjects.scope("work", owner, handle.id)
    history = fold(scope, site.broker.ledger.under(scope))
    return [valid.subject.event for valid in history.valid]


async def all_done(puller: Puller, count: int) -> None:
    async with asyncio.timeout(3600):
        while len(puller.ended) < count:
            await asyncio.sleep(0.05)


async def flood(mesh: Mesh, count: int = FLOOD) -> None:
    await mesh.submit_many("work", list(range(count)))


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 3])
async def test_flood_of_one_owner_delays_another_by_a_shallow_lane_only(replicas: int) -> None:
    """250 tasks are before it in the ledger; in the lane never more than its allowance for each replica."""
    async with Site() as site:
        for _ in range(replicas):
            await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice, bob = await client(site, "alice"), await client(site, "bob")
            await flood(alice)
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            handle = await bob.submit("work", "mine")
            while handle.id not in puller.ended:
                await asyncio.sleep(0.01)
            waited = asyncio.get_running_loop().time() - began
            assert waited < 1.0 * replicas  # alone 0.1 s, behind the flood 6 s
            assert (
                puller.deepest <= 30 * replicas
            )  # 4 slots, 0.15 s of 40 tasks a second, and some under way
            await all_done(puller, FLOOD + 1)
            assert len(puller.done) == FLOOD + 1


@pytest.mark.slow
async def test_two_floods_share_the_slots() -> None:
    """The one that came second is not behind the first."""
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice, bob = await client(site, "alice"), await client(site, "bob")
            await flood(alice)
            await flood(bob)
            await all_done(puller, FLOOD)
            middle = puller.done[80:240]
            assert 64 <= middle.count("bob") <= 96
            await all_done(puller, 2 * FLOOD)


async def test_crowded_owner_gets_an_intake_that_stays() -> None:
    """It is kept where every replica sees it; another capability's intake knows nothing of it."""
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice = await client(site, "alice")
            await flood(alice)
            await all_done(puller, FLOOD)
            bus = site.bus("looker")
            kept = await bus.documents.list(subjects.OWN_INTAKES)
            assert [one.subject for one in kept] == [subjects.own_intake("work", "alice")]
            backlog = await bus.work.backlog(subjects.intake_consumer("work", "alice"))
            assert backlog is not None
            assert (backlog.pending, backlog.unsettled) == (0, 0)
            shared = await bus.work.backlog("intake-submitted")
            assert shared is not None
            assert (shared.pending, shared.unsettled) == (0, 0)
            again = await alice.submit("work", "later")
            await asyncio.sleep(1)
            assert events(site, again, "alice") == ["submitted", "dispatched"]


@pytest.mark.parametrize("after", [0.0, 0.003, 0.02, 0.1, 0.5, 2.0])
async def test_nothing_is_lost_when_the_replica_dies_at_any_point(after: float) -> None:
    """While it opens the intake, while it leaves submissions to it, while it serves."""
    async with Site() as site:
        first = await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice, bob = await client(site, "alice"), await client(site, "bob")
            flooding = asyncio.create_task(flood(alice))
            await asyncio.sleep(after)
            await site.crash(first)
            await flooding
            await site.coordinate()
            await flood(bob, 10)
            await all_done(puller, FLOOD + 10)
            for dispatched in site.broker.ledger.under("sg.task.*.*.*.dispatched.>"):
                scope = subjects.parse_task(dispatched.subject).scope
                assert fold(scope, site.broker.ledger.under(scope)).attempt == 1


@pytest.mark.slow
async def test_owner_that_keeps_all_slots_busy_gets_no_intake_of_its_own() -> None:
    """What comes as others end finds no room until the lanes are looked at again: a burst is no backlog."""
    slots = 3 * CROWDED
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1"), slots=slots, takes=0.5) as puller:
            alice = await client(site, "alice")
            for bursts in range(1, 4):
                await flood(alice, slots)
                while len(puller.ended) < bursts * slots:
                    await asyncio.sleep(0.001)
            bus = site.bus("looking")
            assert await bus.work.backlog(subjects.intake_consumer("work", "alice")) is None


async def test_stopped_replica_hands_back_what_it_held() -> None:
    """The other one has it at once, not after the lease."""
    async with Site() as site:
        first = await site.coordinate()
        async with pulling(site.bus("puller-1"), slots=1, takes=0.01) as puller:
            alice = await client(site, "alice")
            await flood(alice, CROWDED)
            site.replicas.remove(first)
            await first.coordinator.stop()
            second = await site.coordinate()
            await all_done(puller, CROWDED)
            assert second in site.replicas


async def test_high_priority_passes_the_own_backlog() -> None:
    """Even of an owner whose submissions have moved to an intake of their own."""
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice = await client(site, "alice")
            await flood(alice)
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            urgent = await alice.submit("work", "now", priority="high")
            while urgent.id not in puller.ended:
                await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - began < 1
            await all_done(puller, FLOOD + 1)
            assert len(puller.done) == FLOOD + 1


async def test_held_back_task_ends_at_its_deadline() -> None:
    """Not when its turn comes."""
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1"), slots=1, takes=10):
            alice = await client(site, "alice")
            await flood(alice, 2 * CROWDED)
            await asyncio.sleep(1)
            late = await alice.submit("work", "late", deadline=timedelta(seconds=5))
            await asyncio.sleep(8)
            assert events(site, late, "alice") == ["submitted", "expired"]


async def test_held_back_task_can_be_cancelled() -> None:
    """At once, and its turn then does nothing."""
    async with Site() as site:
        await site.coordinate()
        async with pulling(site.bus("puller-1")) as puller:
            alice = await client(site, "alice")
            handles = await alice.submit_many("work", list(range(40)))
            await asyncio.sleep(0.05)
            await handles[-1].cancel("no longer")
            await all_done(puller, 39)
            await asyncio.sleep(5)
            assert events(site, handles[-1], "alice")[-1] == "cancelled"
            assert len(puller.done) == 39


async def test_pool_that_goes_lets_go_what_was_held_for_it() -> None:
    """It waits for capacity like anything that nobody offers, and is placed when somebody comes."""
    async with Site() as site:
        replica = await site.coordinate()
        bus = site.bus("puller-1")
        async with pulling(bus, takes=0.05) as puller:
            alice = await client(site, "alice")
            await flood(alice, 60)
            await puller.withdraw()
            await asyncio.sleep(1)
            assert replica.coordinator.registry.table.pools("work") == []
            waiting = site.broker.ledger.under("sg.task.*.*.*.waiting")
            assert waiting
            await puller.announce()
            await all_done(puller, 60)
            assert puller.deepest <= 24 + 16


@pytest.mark.slow
async def test_wakes_for_capacity_are_paced_and_fair() -> None:
    """300 tasks waited for an agent; a task of another owner that came last is among the first to run."""
    async with Site() as site:
        await site.coordinate()
        alice, bob = await client(site, "alice"), await client(site, "bob")
        await flood(alice, 300)
        handle = await bob.submit("work", "mine")
        await asyncio.sleep(1)
        async with pulling(site.bus("puller-1")) as puller:
            await all_done(puller, 301)
            assert puller.done.index("bob") < 30
            assert puller.deepest <= 32  # some wakes are under way when the lanes are looked at
            assert handle.id in puller.ended


async def test_backlog_beyond_its_limit_is_rejected_for_a_while() -> None:
    """SG1210 with a time after which to try again; other owners are not concerned."""
    settings = CoordinatorSettings(backlog_limit=100)

    class Bounded(Coordinator):
        def __init__(self, bus: object, clock: object) -> None:
            super().__init__(bus, clock, settings)  # type: ignore[arg-type]

    async with Site() as site:
        await site.coordinate(Bounded)
        async with pulling(site.bus("puller-1"), takes=10):
            alice, bob = await client(site, "alice"), await client(site, "bob")
            handles = await alice.submit_many("work", list(range(300)))
            await asyncio.sleep(1)
            ended = [events(site, one, "alice")[-1] for one in handles]
            assert 100 <= 300 - ended.count("rejected") <= 100 + 24 + CROWDED
            with pytest.raises(Overloaded, match="SG1210") as caught:
                await handles[ended.index("rejected")].result()
            assert caught.value.retry_after
            other = await bob.submit("work", "mine")
            await asyncio.sleep(1)
            assert events(site, other, "bob") == ["submitted"]


@pytest.mark.slow
async def test_what_was_rejected_makes_no_room_beyond_the_limit() -> None:
    """Though it was handed over and acked before older submissions that still wait."""
    settings = CoordinatorSettings(backlog_limit=100)

    class Bounded(Coordinator):
        def __init__(self, bus: object, clock: object) -> None:
            super().__init__(bus, clock, settings)  # type: ignore[arg-type]

    async with Site() as site:
        await site.coordinate(Bounded)
        async with pulling(site.bus("puller-1"), takes=1) as puller:
            alice = await client(site, "alice")
            handles = await alice.submit_many("work", list(range(300)))
            await all_done(puller, 60)
            handles += await alice.submit_many("work", list(range(300)))
            await asyncio.sleep(2)
            last = Counter(events(site, one, "alice")[-1] for one in handles)
            # four slots end up to twelve in these two seconds, and as many leave the backlog
            assert 100 - 12 - 4 <= last["submitted"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
async def test_what_was_rejected_does_not_fill_the_backlog(replicas: int) -> None:
    """Its submissions still stand in the owner's own intake: a later one is accepted all the same."""
    settings = CoordinatorSettings(backlog_limit=100)

    class Bounded(Coordinator):
        def __init__(self, bus: object, clock: object) -> None:
            super().__init__(bus, clock, settings)  # type: ignore[arg-type]

    async with Site() as site:
        for _ in range(replicas):
            await site.coordinate(Bounded)
        async with pulling(site.bus("puller-1"), takes=1) as puller:
            alice = await client(site, "alice")
            await alice.submit_many("work", list(range(90)))
            await asyncio.sleep(3)
            handles = await alice.submit_many("work", list(range(300)))
            await asyncio.sleep(3)
            rejected = [events(site, one, "alice")[-1] for one in handles].count("rejected")
            assert rejected > 100
            await site.coordinate(Bounded)  # one that heard of none of them
            await all_done(puller, 90 + 300 - rejected - 70)
            for _ in range(4):
                again = await alice.submit("work", "later")
                await asyncio.sleep(1.5)
                assert "rejected" not in events(site, again, "alice")


async def test_owner_faster_than_its_rate_is_rejected_for_a_while() -> None:
    """SG1211: a second's worth passes at once."""
    settings = CoordinatorSettings(owner_rate=10)

    class Limited(Coordinator):
        def __init__(self, bus: object, clock: object) -> None:
            super().__init__(bus, clock, settings)  # type: ignore[arg-type]

    async with Site() as site:
        await site.coordinate(Limited)
        async with pulling(site.bus("puller-1"), slots=64):
            alice = await client(site, "alice")
            handles = await alice.submit_many("work", list(range(15)))
            await asyncio.sleep(1)
            last = [events(site, one, "alice")[-1] for one in handles]
            assert last.count("rejected") == 5
            with pytest.raises(Overloaded, match="SG1211") as caught:
                await handles[last.index("rejected")].result()
            assert caught.value.retry_after == pytest.approx(0.1, abs=0.1)
            again = await alice.submit("work", "later")
            await asyncio.sleep(0.1)
            assert events(site, again, "alice") == ["submitted", "dispatched"]


async def test_what_was_rejected_is_forgotten_once_the_own_intake_has_brought_it() -> None:
    """An owner all of whose submissions are rejected fills no replica's memory."""
    async with desk(coordinators=0) as on:
        alice = Backlogged(CAPABILITY, OWNER)
        brought: list[Delivery] = []
        own = OwnIntakes(on.bus, brought.append)
        await own.start()
        await own.open(alice, 1)
        await asyncio.sleep(1)
        sequence = on.submit("t")
        on.say("t", "rejected", code="SG1203", reason="it does not fit", prev=sequence)
        await on.until(lambda: own.is_refused(alice, sequence))
        await on.until(lambda: bool(brought))
        brought[0].ack()
        await on.until(lambda: not own.is_refused(alice, sequence))
        await own.stop()
