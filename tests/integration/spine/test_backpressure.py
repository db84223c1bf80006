"""Backpressure on a real server: shallow lanes, own intakes, a full ledger."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from switchgear.bus.port import Bus
from switchgear.bus.streams import StreamSettings
from switchgear.contract import limits, subjects
from switchgear.coordinator.service import Coordinator
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.errors import Overloaded, Unavailable
from switchgear.lifecycle.history import fold
from switchgear.server import EmbeddedServer
from tests.integration.spine.stage import Stage, scope_of, until
from tests.patience import PATIENCE
from tests.unit.coordinator.pullers import Puller, pulling

pytestmark = pytest.mark.integration

FLOOD = 1000
_numbers = count()
SLOTS = 16
UNCOUNTED = 64
"""Submissions that the broker may have stored and not yet counted, or counted and not yet shown."""


async def reach(puller: Puller, count: int) -> None:
    """Wait until so many tasks have ended."""

    async def done() -> bool:
        return len(puller.ended) >= count

    await until(done, 3 * PATIENCE)


async def waits(stage: Stage, intake: str) -> int:
    """What an intake has before it."""
    backlog = await (await stage.bus("looker", "coordinator")).work.backlog(intake)
    assert backlog is not None
    return backlog.pending + backlog.unsettled


async def fill(bus: Bus) -> None:
    """Store an entry of 64 kB that nobody works on."""
    number = next(_numbers)
    scope = subjects.scope("filler", "alice", f"t{number}")
    await bus.ledger.append(
        subjects.task_event(scope, "completed"), bytes(64_000), scope=scope, expect=0
    )


async def test_flood_leaves_room_for_others(stage: Stage) -> None:
    """1,000 tasks of one owner are before the other's one; it waits for a shallow lane only."""
    await stage.coordinate()
    bus = await stage.bus("puller", "puller")
    async with pulling(bus, slots=SLOTS, takes=0.02) as puller:
        alice, bob = await stage.client("alice"), await stage.client("bob")
        await alice.submit_many("work", list(range(FLOOD)))
        at = len(puller.done)
        handle = await bob.submit("work", "mine")
        await reach(puller, FLOOD + 1)
        assert puller.done.index("bob") - at < 300
        assert handle.id in puller.ended
        assert len(puller.done) == FLOOD + 1

        async def settled() -> bool:
            own = subjects.intake_consumer("work", "alice")
            return await waits(stage, own) + await waits(stage, "intake-submitted") == 0

        await until(settled)


@pytest.mark.faults
@pytest.mark.parametrize("after", [0.0, 0.05, 0.3])
async def test_nothing_is_lost_when_the_only_replica_dies(stage: Stage, after: float) -> None:
    """Its connection ends without a word; the next replica finds the intakes by their documents."""
    first = await stage.coordinate()
    bus = await stage.bus("puller", "puller")
    async with pulling(bus, slots=SLOTS, takes=0.005) as puller:
        alice = await stage.client("alice")
        handles = await alice.submit_many("work", list(range(FLOOD)))
        await asyncio.sleep(after)
        await first.bus.close()
        await stage.coordinate()
        await reach(puller, FLOOD)
        assert set(puller.ended) == {handle.id for handle in handles}
        for handle in handles[:: FLOOD // 20]:
            scope = scope_of(handle, "alice")
            assert fold(scope, await bus.ledger.history(scope)).attempt == 1


async def test_own_intake_begins_where_its_document_says(stage: Stage) -> None:
    """Not before: the older submissions are the shared intake's, which acks only what is behind it."""
    bus = await stage.bus("looker", "coordinator")
    name = subjects.intake_consumer("work", "alice")
    alice = await stage.client("alice")
    for number in range(5):
        await alice.submit("work", number)
    last = await bus.ledger.last_sequence()
    await bus.work.ensure_intake(name, [subjects.intake_filter("work", "alice")], start=last - 1)
    backlog = await bus.work.backlog(name)
    assert backlog is not None
    assert backlog.pending == 2


async def test_full_ledger_refuses_what_is_new_and_grows_for_what_runs(
    server: EmbeddedServer,
) -> None:
    """From 90 % on SG1212; full, submitting raises Overloaded, and the coordinator makes room."""
    room = 2 * limits.KIB * limits.KIB
    async with Stage(server.url, streams=StreamSettings(ledger_bytes=room)) as stage:
        await stage.coordinate()
        bus = await stage.bus("puller", "puller")
        async with pulling(bus, slots=SLOTS, takes=0.01):
            alice = await stage.client("alice")
            while (await bus.ledger.room()).used < 0.92 * room:
                await fill(bus)
            handles = [await alice.submit("work", 0)]

            async def refused() -> bool:
                handles.append(await alice.submit("work", 1))
                return await bus.ledger.count("sg.task.work.alice.*.rejected") > 1

            await until(refused, every=0.2)
            with pytest.raises(Overloaded, match="SG1212") as caught:
                await handles[-2].result()
            assert caught.value.retry_after
            with pytest.raises(Unavailable, match="full"):
                await asyncio.gather(*(fill(bus) for _ in range(40)))

            async def full() -> bool:
                """Whether it is refused; the coordinator may just have made room, which is soon used up."""
                try:
                    await alice.submit("work", "x" * 60_000)
                except Overloaded as error:
                    return "full" in str(error)
                return False

            await until(full)

            async def grown() -> bool:
                return (await bus.ledger.room()).limit > room

            await until(grown)


@pytest.mark.parametrize("bursts", [(1200,), (200, 1000)], ids=["one burst", "two bursts"])
async def test_backlog_limit_holds_in_an_own_intake(stage: Stage, bursts: tuple[int, ...]) -> None:
    """However long the intake takes to be made and counted, no more wait in it than may; nor many fewer."""
    bus = await stage.bus("coordinator", "coordinator")
    limit = 300
    coordinator = Coordinator(bus, settings=CoordinatorSettings(backlog_limit=limit))
    await coordinator.start()
    stage.leave(coordinator.stop)
    coordinator.registry.table.settling_until = None
    puller = await stage.bus("puller", "puller")
    async with pulling(puller, slots=2, takes=3600):
        alice = await stage.client("alice")
        handles = [
            handle
            for burst in bursts
            for handle in await alice.submit_many("work", list(range(burst)))
        ]

        async def decided() -> bool:
            return await waits(stage, "intake-submitted") == 0

        await until(decided)
        with pytest.raises(Overloaded, match="SG1210"):
            await handles[-1].result()
        rejected = await bus.ledger.count("sg.task.work.alice.*.rejected")
        sent = await bus.ledger.count("sg.task.work.alice.*.dispatched.>")
        waiting = sum(bursts) - rejected - sent
        assert limit - UNCOUNTED <= waiting <= limit + UNCOUNTED
