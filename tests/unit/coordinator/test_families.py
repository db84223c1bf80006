"""Parents and children: wakes at an end, children that do not outlive their parent, turns."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from switchgear import crashpoint
from switchgear.bus.port import Message
from switchgear.contract import codec, entries
from switchgear.contract.queries import ListQuery, TaskList, TaskRow
from switchgear.contract.values import Blob
from switchgear.testing.memory import MemoryBus
from tests.unit.coordinator.desk import CAPABILITY, FAILURE, OWNER, Desk, desk


class ReadModel:
    """Answers `list` as a read model does, and counts the questions."""

    def __init__(self, on: Desk, *children: str) -> None:
        self._on = on
        self._bus = MemoryBus(on.broker, "observe-1")
        self.children = list(children)
        self.asked: list[ListQuery] = []

    async def start(self) -> None:
        """Begin to answer."""
        await self._bus.core.subscribe("sg.api.list.*", self._answer)

    def _answer(self, message: Message) -> None:
        query = codec.decode(message.data, ListQuery)
        self.asked.append(query)
        now = self._on.clock.now()
        rows = [
            TaskRow(
                id=child,
                capability=CAPABILITY,
                owner=OWNER,
                state="queued",
                submitted_at=now,
                updated_at=now,
                parent=query.parent or "",
            )
            for child in self.children
        ]
        answer = codec.encode(TaskList(tasks=tuple(rows), lag=0))
        self._bus.core.publish(message.reply, answer)


async def parent(on: Desk, **offer: Any) -> None:
    """A task `parent` that is held."""
    await on.offer(calls=(CAPABILITY,), **offer)
    on.submit("parent")
    await on.reach("parent", "dispatched")


async def test_a_child_of_a_parent_that_has_ended_is_rejected() -> None:
    """SG1213; but not one that outlives it, nor one whose parent is in no ledger that we see."""
    async with desk() as on:
        await parent(on)
        on.complete("parent")
        on.child("parent", "late")
        on.child("parent", "detached", detached=True)
        on.child("stranger", "foreign")
        end = (await on.reach("late", "rejected")).end
        assert isinstance(end, entries.Rejected)
        assert end.code == "SG1213"
        await on.reach("detached", "dispatched")
        await on.reach("foreign", "dispatched")


@pytest.mark.parametrize("end", ["dead", "cancelled", "expired"])
async def test_coordinators_wake_the_parent_of_what_they_end(end: str) -> None:
    """Its next look finds the child ended, long before the re-check."""
    async with desk() as on:
        await parent(on)
        deadline = on.clock.now() + timedelta(seconds=10) if end == "expired" else None
        on.child("parent", "c", deadline=deadline)
        await on.reach("c", "dispatched")
        on.suspend("parent", on.awaited("child", task="c"))
        await asyncio.sleep(1)
        assert on.events("parent")[-1] == "waiting"
        if end == "dead":
            error = msgspec.structs.replace(FAILURE, retryable=False)
            on.say("c", "attempt-failed", error=error)
        elif end == "cancelled":
            on.say("c", "cancel-requested", reason="no more")
        await on.until(lambda: on.history("c").ended == end)
        await asyncio.sleep(1)
        assert on.events("parent")[-1] == "dispatched"


async def test_cancelling_a_parent_cancels_the_children_that_its_entries_name() -> None:
    """Those that it waits for and those that it submitted; not those that outlive it."""
    async with desk() as on:
        await parent(on)
        for child in ("submitted", "called", "m-0", "m-1"):
            on.child("parent", child)
        on.child("parent", "detached", detached=True)
        for key, detached in {"submitted": False, "detached": True, "liar": False}.items():
            result = {"task": key, "capability": CAPABILITY, "detached": detached}
            raw = msgspec.Raw(msgspec.json.encode(result))
            on.say("parent", "checkpoint", key=key, kind="submit", ok=True, result=raw)
        on.child("stranger", "liar")  # somebody else's child
        await on.reach("detached", "dispatched")
        waits = (
            on.awaited("child", "a", task="called"),
            on.awaited("children", "b", task="m", count=2),
        )
        on.suspend("parent", *waits)
        await asyncio.sleep(1)
        on.say("parent", "cancel-requested", reason="no more")
        await on.reach("parent", "cancelled")
        for child in ("submitted", "called", "m-0", "m-1"):
            history = await on.reach(child, "cancelled")
            assert history.cancelling is not None
            assert "parent" in history.cancelling.reason
        await asyncio.sleep(1)
        assert on.history("detached").is_open
        assert on.history("liar").cancelling is None


async def test_long_lists_of_children_are_fetched_from_the_object_store() -> None:
    """And a list that is not there lets the handler run again at the re-check, to wait anew."""
    async with desk() as on:
        await parent(on)
        on.child("parent", "c")
        await on.reach("c", "dispatched")
        data = codec.encode((on.awaited("child", task="c"),))
        digest = await on.bus.blobs.put(data)
        blob = Blob(digest=digest, size=len(data))
        on.say("parent", "waiting", reason="child", waits_blob=blob)
        await asyncio.sleep(5)
        assert on.events("parent")[-1] == "waiting"
        on.complete("c")
        await on.wake("parent")
        await on.reach("parent", "dispatched", 2)
        on.say("parent", "waiting", reason="child", waits_blob=Blob(digest="f" * 64, size=9))
        await asyncio.sleep(5)
        assert on.events("parent")[-1] == "waiting"
        await on.reach("parent", "dispatched", 3)


async def test_children_that_no_entry_names_are_asked_of_the_read_model_once() -> None:
    """Its holder died between a child's submission and its own next entry; redeliveries ask no more."""
    async with desk() as on:
        model = ReadModel(on, "unnamed", "gone")
        await model.start()
        await parent(on)
        on.child("parent", "unnamed")
        await on.reach("unnamed", "dispatched")
        error = msgspec.structs.replace(FAILURE, retryable=False)
        on.say("parent", "attempt-failed", error=error)
        await on.reach("parent", "dead")
        await on.until(lambda: on.history("unnamed").cancelling is not None)
        assert [query.parent for query in model.asked].count("parent") == 1
        assert model.asked[0].open_only
        for _ in range(5):
            await on.wake("parent", "deadline")
            await asyncio.sleep(1)
        asked = [query.parent for query in model.asked].count("parent")
        assert asked == 2  # once more: the history that shows its end is a newer one


@pytest.mark.parametrize("end", ["completed", "dead"])
async def test_a_plain_task_that_has_ended_asks_nobody(end: str) -> None:
    """Without parent and children its end costs nothing, however often it is met."""
    async with desk() as on:
        model = ReadModel(on)
        await model.start()
        await on.offer()  # declares no calls
        on.submit("t", deadline=on.clock.now() + timedelta(seconds=20))
        await on.reach("t", "dispatched")
        if end == "completed":
            on.complete("t")
        else:
            on.say("t", "attempt-failed", error=msgspec.structs.replace(FAILURE, retryable=False))
        await on.until(lambda: on.history("t").ended == end)
        await asyncio.sleep(30)
        await on.wake("t", "deadline")
        await asyncio.sleep(1)
        assert model.asked == []


async def test_a_missing_read_model_delays_nothing() -> None:
    """Nobody listens: the end stands, the delivery is acked."""
    async with desk() as on:
        await parent(on)
        on.say("parent", "attempt-failed", error=msgspec.structs.replace(FAILURE, retryable=False))
        await on.reach("parent", "dead")
        consumer = on.broker.consumer(on.broker.ledger, "intake-transitions")
        assert consumer is not None
        await on.until(lambda: consumer.unsettled == 0)


async def test_a_task_waits_for_its_turn() -> None:
    """Behind the one that it comes after, which wakes it at its end."""
    async with desk() as on:
        await on.offer()
        on.submit("first", then="second")
        on.submit("second", after="first", then="third")
        on.submit("third", after="second")
        await on.reach("third", "waiting")
        assert on.events("first")[-1] == "dispatched"
        assert on.events("second") == ["submitted", "waiting"]
        on.say("first", "cancel-requested", reason="no more")
        await asyncio.sleep(1)
        assert on.history("first").is_open
        await on.reach("first", "cancelled")  # by a coordinator, which wakes the second
        await on.reach("second", "dispatched")
        await asyncio.sleep(1)
        assert on.events("third") == ["submitted", "waiting"]
        on.complete("second")
        await on.wake("third", "turn")
        await on.reach("third", "dispatched")


async def test_a_turn_without_a_wake_comes_with_the_recheck() -> None:
    """Whoever ended the one before died before it could wake anybody."""
    async with desk() as on:
        await on.offer()
        on.submit("first", then="second")
        on.submit("second", after="first")
        await on.reach("second", "waiting")
        on.complete("first")
        await asyncio.sleep(50)
        assert on.events("second") == ["submitted", "waiting"]
        await asyncio.sleep(15)
        assert on.events("second") == ["submitted", "waiting", "dispatched"]


async def test_a_task_starts_at_its_time() -> None:
    """It waits, holds nothing, and is dispatched then."""
    async with desk() as on:
        await on.offer()
        start = on.clock.now() + timedelta(seconds=20)
        on.submit("t", start=start)
        await on.reach("t", "waiting")
        await asyncio.sleep(15)
        assert on.events("t") == ["submitted", "waiting"]
        await on.reach("t", "dispatched")
        assert on.clock.now() >= start


async def test_early_end_effects_survive_the_coordinator_that_owes_them() -> None:
    """It dies between the end and the wake: another, which is handed the message again, finds the end and wakes."""
    async with desk(coordinators=2) as on:
        await parent(on)
        on.child("parent", "c")
        await on.reach("c", "dispatched")
        on.suspend("parent", on.awaited("child", task="c"))
        await asyncio.sleep(1)
        died: list[MemoryBus] = []

        def die(name: str) -> None:
            if name == "coordinator.after-append" and on.history("c").ended and not died:
                ended = on.history("c").valid[-1].entry.writer
                bus = next(bus for _, bus in on.coordinators if bus.name == ended)
                died.append(bus)
                on.broker.crash(bus)

        before, crashpoint.hook = crashpoint.hook, die
        try:
            on.say("c", "attempt-failed", error=msgspec.structs.replace(FAILURE, retryable=False))
            await on.reach("c", "dead")
            await on.reach("parent", "dispatched", 2)
        finally:
            crashpoint.hook = before
        assert died
