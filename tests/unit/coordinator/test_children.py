"""Suspended parents: when they go on, and what it costs to look after many children."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from switchgear.bus.port import Ledger
from switchgear.contract import codec, entries, values
from switchgear.contract.stored import Stored
from switchgear.coordinator.children import Children
from switchgear.coordinator.endings import Endings
from switchgear.coordinator.reading import Histories
from switchgear.testing.memory import MemoryBus
from tests.unit.coordinator.desk import FAILURE, NULL, Desk, desk


class Counting:
    """A ledger that counts what is read."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("tail", "leader_tail", "entry", "history"):
            self.reads += 1
        return getattr(self._ledger, name)


async def suspended(on: Desk, *waits: values.Awaited) -> None:
    """A task `parent` that waits for these."""
    await on.offer(calls=("work",))
    on.submit("parent")
    await on.reach("parent", "dispatched")
    on.suspend("parent", *waits)
    await asyncio.sleep(1)


async def children(on: Desk, count: int, name: str = "c") -> None:
    """So many children of `parent` that run."""
    for index in range(count):
        on.child("parent", f"{name}-{index}")
    await on.until(lambda: on.history(f"{name}-{count - 1}").position == "held")


async def test_a_parent_goes_on_when_its_child_has_ended() -> None:
    """Not when somebody else wakes it before."""
    async with desk() as on:
        await suspended(on, on.awaited("child", task="c-0"))
        on.child("parent", "c-0")
        await on.reach("c-0", "dispatched")
        await asyncio.sleep(1)
        # the child came late: the parent's first look found nobody, and let it run again
        assert on.events("parent").count("dispatched") == 2
        on.suspend("parent", on.awaited("child", task="c-0"))
        await asyncio.sleep(1)
        for _ in range(3):
            await on.wake("parent")
            await asyncio.sleep(0.1)
        assert on.events("parent")[-1] == "waiting"
        on.complete("c-0")
        await asyncio.sleep(1)
        assert on.events("parent")[-1] == "waiting"
        await on.wake("parent")
        await on.reach("parent", "dispatched", 3)


async def test_an_end_without_a_wake_is_found_by_the_recheck() -> None:
    """A minute later: whoever ended the child died before it could wake anybody."""
    async with desk() as on:
        await on.offer(calls=("work",))
        on.submit("parent")
        await on.reach("parent", "dispatched")
        await children(on, 1)
        on.suspend("parent", on.awaited("child", task="c-0"))
        await asyncio.sleep(1)
        on.complete("c-0")
        await asyncio.sleep(50)
        assert on.events("parent")[-1] == "waiting"
        await asyncio.sleep(15)
        assert on.events("parent")[-1] == "dispatched"


async def test_an_end_before_the_wait_is_found_by_whoever_consumes_it() -> None:
    """The child's wake came while its parent was still held, and was dropped."""
    async with desk() as on:
        await on.offer()
        on.submit("parent")
        await on.reach("parent", "dispatched")
        await children(on, 1)
        on.complete("c-0")
        await on.wake("parent")
        await asyncio.sleep(1)
        on.suspend("parent", on.awaited("child", task="c-0"))
        await on.reach("parent", "dispatched", 2)


@pytest.mark.parametrize(
    ("failed", "most", "goes_on"), [(1, 0, 1), (1, 1, 3), (2, 1, 2), (3, None, 3)]
)
async def test_too_many_failed_children_end_the_wait(
    failed: int, most: int | None, goes_on: int
) -> None:
    """As soon as one more has failed than may; else when all have ended."""
    async with desk() as on:
        await on.offer()
        on.submit("parent")
        await on.reach("parent", "dispatched")
        await children(on, 3)
        wait = on.awaited("children", task="c", count=3, max_failures=most)
        on.suspend("parent", wait)
        await asyncio.sleep(1)
        for index in range(3):
            assert on.events("parent")[-1] == "waiting"
            if index < failed:
                error = values.Failure(error_class="bug", code="SG1510", message="no")
                on.say(f"c-{index}", "attempt-failed", error=error)
                await on.reach(f"c-{index}", "dead")  # a coordinator ends it, and wakes the parent
            else:
                on.complete(f"c-{index}")
                await on.wake("parent")
            await asyncio.sleep(1)
            if index + 1 == goes_on:
                break
        assert on.events("parent")[-1] == "dispatched"


async def test_a_forged_end_of_a_child_is_not_believed() -> None:
    """Neither one without compare-and-set, nor one that names no hold; and a void entry hides no real end."""
    async with desk() as on:
        await on.offer()
        on.submit("parent")
        await on.reach("parent", "dispatched")
        await children(on, 1)
        on.suspend("parent", on.awaited("child", task="c-0"))
        await asyncio.sleep(1)
        forged = entries.Completed(
            v=1,
            id="forged",
            task="c-0",
            time=on.clock.now(),
            writer="mallory",
            status=values.Status(state="completed", submitted_at=on.clock.now()),
            hold=1,
            output=NULL,
        )
        on.broker.store(f"{on.scope('c-0')[:-1]}completed", b"", codec.encode(forged))
        await on.wake("parent")
        await asyncio.sleep(1)
        on.say("c-0", "completed", output=NULL, hold=1)
        await on.wake("parent")
        await asyncio.sleep(1)
        assert on.events("parent")[-1] == "waiting"
        on.complete("c-0")
        on.broker.store(f"{on.scope('c-0')[:-1]}checkpoint", b"", b"{}")
        on.say("c-0", "signalled", name="late", payload=NULL)
        await on.wake("parent")
        await on.reach("parent", "dispatched", 2)


@pytest.mark.slow
async def test_many_children_cost_about_three_reads_each() -> None:
    """5,000 children that end in bursts and in any order: at most 3.5 reads a child, parent and wakes included."""
    count, burst = 5000, 100
    async with desk(coordinators=0) as on:
        bus = MemoryBus(on.broker, "coordinator-9")
        ledger = Counting(bus.ledger)
        bus.ledger = ledger  # type: ignore[assignment]  # it is one, but counts
        await on.coordinate(bus)
        await on.offer()
        on.submit("parent")
        await on.reach("parent", "dispatched")
        await children(on, count)
        wait = on.awaited("children", task="c", count=count)
        on.suspend("parent", wait)
        await asyncio.sleep(1)
        before = ledger.reads
        for at in range(0, count, burst):
            for index in range(at + burst - 1, at - 1, -1):
                on.complete(f"c-{index}")
                await on.wake("parent")
                await asyncio.sleep(0.001)
        await on.reach("parent", "dispatched", 2)
        assert count * 3 <= ledger.reads - before <= count * 3.5


async def test_a_wake_by_another_child_costs_two_reads() -> None:
    """The parent's newest entry, and that of the first child that was open; nothing that was read before."""
    async with desk(coordinators=0) as on:
        ledger = Counting(on.bus.ledger)
        histories = Histories(ledger)  # type: ignore[arg-type]  # as above
        looks = Children(Endings(ledger))  # type: ignore[arg-type]
        on.submit("parent")
        on.submit("c-0")
        on.submit("c-1")
        on.submit("c-2")
        dispatched(on, "parent")
        wait = on.awaited("children", task="c", count=3)
        on.suspend("parent", wait)
        history = await histories.now(on.scope("parent"))
        assert await looks.conditions(history, [wait]) == {"k": "open"}
        histories.keep(history)
        for _ in range(3):
            before = ledger.reads
            again = await histories.now(on.scope("parent"))
            assert await looks.conditions(again, [wait]) == {"k": "open"}
            assert ledger.reads - before == 2
        on.say("parent", "signalled", name="x", payload=NULL)
        before = ledger.reads
        longer = await histories.now(on.scope("parent"))
        assert ledger.reads - before == 1
        assert (longer.last, longer.voids) == (on.history("parent").last, [])
        assert history.last < longer.last, "what was handed out before is not changed"


async def test_two_looks_at_the_same_children_count_each_failure_once() -> None:
    """Two replicas' worth of wakes may be settled at the same time."""
    async with desk(coordinators=0) as on:
        for index in range(40):
            on.submit(f"c-{index}")
            on.say(f"c-{index}", "cancelled")
        on.submit("c-40")
        on.submit("parent")
        dispatched(on, "parent")
        wait = on.awaited("children", task="c", count=41, max_failures=40)
        on.suspend("parent", wait)
        looks = Children(Endings(on.bus.ledger))
        history = on.history("parent")
        found = await asyncio.gather(*(looks.conditions(history, [wait]) for _ in range(5)))
        assert found == [{"k": "open"}] * 5
        assert looks.ended(history, wait) == 40
        on.say("c-40", "cancelled")
        assert await looks.conditions(history, [wait]) == {"k": "failed"}


def dispatched(on: Desk, task: str) -> None:
    """As a coordinator would."""
    route = values.Route(reason="the only one")
    on.say(
        task,
        "dispatched.p1.normal",
        attempt=1,
        input=NULL,
        route=route,
        retry=values.Retry(),
        submitted=1,
    )


def newest(on: Desk, task: str) -> Stored:
    """The newest entry of a task."""
    found = on.broker.ledger.newest(on.scope(task))
    assert found is not None
    return found


async def test_a_history_is_read_anew_where_the_broker_lost_its_newest_entries() -> None:
    """Another entry under the same sequence, or an older tail, is no continuation of what was kept."""
    async with desk(coordinators=0) as on:
        on.submit("parent")
        dispatched(on, "parent")
        on.suspend("parent", on.awaited("timer"))
        histories = Histories(on.bus.ledger)
        kept = await histories.now(on.scope("parent"))
        histories.keep(kept)
        last = newest(on, "parent")
        other = last._replace(time_ns=last.time_ns + 1)
        again = await histories.up_to(on.scope("parent"), other)
        assert again is not kept
        histories.clear()
        assert await histories.now(on.scope("parent")) is not kept


async def test_a_retry_waits_and_is_dispatched_when_its_time_has_come() -> None:
    """Once, whoever wakes it meanwhile."""
    async with desk() as on:
        await on.offer(retry=values.Retry())
        on.submit("t")
        await on.reach("t", "dispatched")
        on.say("t", "attempt-failed", error=FAILURE)
        await on.reach("t", "waiting")
        for _ in range(5):
            await on.wake("t")
        await on.reach("t", "dispatched", 2)
        await asyncio.sleep(10)
        assert on.events("t") == [
            "submitted",
            "dispatched",
            "attempt-failed",
            "waiting",
            "dispatched",
        ]
        assert on.history("t").voids == []
