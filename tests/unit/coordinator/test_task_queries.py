"""What coordinators answer about one task: signals of groups, its next attempt now, why it waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from switchgear.contract import values
from switchgear.contract.announcement import BreakerState
from switchgear.contract.queries import (
    ExplainQuery,
    Explanation,
    Retried,
    RetryQuery,
    Signalled,
    SignalQuery,
)
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.errors import ConfigError, Conflict, Forbidden, NotFound
from switchgear.tasks.asking import ask
from tests.unit.coordinator.desk import FAILURE, OWNER, Desk, desk

SETTINGS = CoordinatorSettings.load({"SWITCHGEAR_GROUPS": "approvers=bob,carol;ops=dan"})
GO = msgspec.Raw(b'{"approved":true}')


async def signal(on: Desk, principal: str, name: str = "review", *, task: str = "t") -> Signalled:
    query = SignalQuery(task=task, name=name, payload=GO)
    return await ask(on.bus.core, "signal", principal, query, Signalled)


async def retry(on: Desk, task: str = "t", principal: str = OWNER) -> Retried:
    return await ask(on.bus.core, "retry", principal, RetryQuery(task=task), Retried)


async def explain(on: Desk, task: str = "t") -> str:
    answer = await ask(on.bus.core, "explain", OWNER, ExplainQuery(task=task), Explanation)
    return answer.sentences[-1]


async def held(on: Desk, **fields: Any) -> None:
    await on.offer(retry=values.Retry(initial=timedelta(minutes=10), max_delay=timedelta(hours=1)))
    on.submit("t", **fields)
    await on.reach("t", "dispatched")


async def test_a_group_signals_through_a_coordinator() -> None:
    """The signal carries sender and group, and lets the handler go on."""
    async with desk(settings=SETTINGS) as on:
        await held(on)
        on.suspend("t", on.awaited("signal", signal="review", sender="approvers"))
        answer = await signal(on, "carol")
        entry: Any = on.history("t").valid[-1].entry
        assert answer.sequence == on.history("t").valid[-1].stored.sequence
        assert (entry.sender, entry.group, bytes(entry.payload)) == (
            "carol",
            "approvers",
            bytes(GO),
        )
        await on.reach("t", "dispatched", 2)


async def test_others_may_not_signal() -> None:
    """SG1404, and the ledger has nothing of it."""
    async with desk(settings=SETTINGS) as on:
        await held(on)
        on.suspend("t", on.awaited("signal", signal="review", sender="approvers"))
        for principal, name in (("dan", "review"), ("bob", "other"), ("mallory", "review")):
            with pytest.raises(Forbidden):
                await signal(on, principal, name)
        assert "signalled" not in on.events("t")
        with pytest.raises(NotFound):
            await signal(on, "bob", task="unknown")


async def test_the_owner_may_signal_through_a_coordinator_too() -> None:
    """But is told where a group is asked that it is not in; and nobody signals a task that has ended."""
    async with desk(settings=SETTINGS) as on:
        await held(on)
        await signal(on, OWNER, "early")
        assert on.events("t")[-1] == "signalled"
        on.suspend("t", on.awaited("signal", signal="review", sender="approvers"))
        with pytest.raises(Forbidden, match="approvers"):
            await signal(on, OWNER)
        on.say("t", "cancel-requested", reason="no more")
        await on.reach("t", "cancelled")
        with pytest.raises(Conflict):
            await signal(on, OWNER)


async def test_a_waiting_retry_is_run_now_on_order() -> None:
    """Only by its owner, and only where it waits for a retry or its start."""
    async with desk() as on:
        await held(on)
        assert (await retry(on)).state == "held"
        on.say("t", "attempt-failed", error=FAILURE)
        await on.reach("t", "waiting")
        with pytest.raises(NotFound):
            await retry(on, principal="mallory")
        assert (await retry(on)).state == "held"
        assert on.events("t")[-1] == "dispatched"


async def test_a_task_that_was_to_start_later_is_started_now_on_order() -> None:
    """And not a second time when its time comes."""
    async with desk() as on:
        await on.offer()
        on.submit("t", start=on.clock.now() + timedelta(seconds=20))
        await on.reach("t", "waiting")
        assert (await retry(on)).state == "held"
        await asyncio.sleep(30)
        assert on.events("t") == ["submitted", "waiting", "dispatched"]


async def test_explain_tells_what_each_kind_of_wait_is_for() -> None:
    """Times, attempts, questions, who may answer, how many children."""
    async with desk(settings=SETTINGS) as on:
        await held(on)
        on.child("t", "c-0")
        on.child("t", "c-1")
        await on.reach("c-1", "dispatched")
        on.complete("c-0")
        until = on.clock.now() + timedelta(seconds=3)
        on.suspend("t", on.awaited("children", task="c", count=2))
        await asyncio.sleep(1)
        assert "at most 1 of 2 work are open" in await explain(on)
        on.complete("c-1")
        await on.wake("t")
        await on.reach("t", "dispatched", 2)
        ask_group = on.awaited("signal", signal="review", sender="approvers", question="ship it?")
        on.suspend("t", ask_group)
        told = await explain(on)
        assert 'the signal review "ship it?"' in told
        assert "approvers may answer (bob, carol)" in told
        await signal(on, "bob")
        await on.reach("t", "dispatched", 3)
        on.suspend("t", on.awaited("timer", "nap", until=until))
        await on.until(lambda: on.events("t").count("dispatched") == 4)
        on.suspend("t", on.awaited("timer", "nap", until=on.clock.now() + timedelta(hours=1)))
        assert "Sleeping (nap), until 2026-01-01 01:00" in await explain(on)


async def test_explain_tells_what_the_wait_has_refused() -> None:
    """Whoever wonders why the answer changed nothing reads code, path and fix."""
    async with desk() as on:
        await held(on)
        on.suspend("t", on.awaited("signal", "it", signal="it"))
        answer = await signal(on, OWNER, "it")
        await on.reach("t", "dispatched", 2)
        unfit = values.Failure(
            error_class="invalid",
            code="SG1507",
            message="signal it does not fit Number",
            path="$.n",
            fix="send a Number",
        )
        on.say("t", "checkpoint", key="it", kind="signal", ok=False, error=unfit,
               signal=answer.sequence, result=msgspec.Raw(b"null"))  # fmt: skip
        on.suspend("t", on.awaited("signal", "it", signal="it"))
        told = await explain(on)
        assert told.endswith(
            f"It refused entry {answer.sequence}: SG1507 at $.n: signal it does not fit Number. "
            "Fix: send a Number"
        )


async def test_explain_tells_when_a_task_that_does_not_run_yet_will() -> None:
    """Its start, its turn, its next attempt."""
    async with desk() as on:
        await held(on)
        on.submit("later", start=on.clock.now() + timedelta(hours=1))
        await on.reach("later", "waiting")
        assert "Waiting for its start at 2026-01-01 01:00" in await explain(on, "later")
        on.submit("second", after="later")
        await on.reach("second", "waiting")
        assert "it comes after task later" in await explain(on, "second")
        on.submit("failing")
        await on.reach("failing", "dispatched")
        on.say("failing", "attempt-failed", error=FAILURE)
        await on.reach("failing", "waiting")
        assert "attempt 2 of 3, after 1 failed" in await explain(on, "failing")


async def test_explain_tells_that_a_retry_waits_for_its_turn() -> None:
    """Its time has passed: the capability's retries are over their budget."""
    async with desk() as on:
        await held(on)
        tasks = [f"t{number}" for number in range(20)]
        for task in tasks:
            on.submit(task, retry=values.Retry())
        for task in tasks:
            await on.reach(task, "dispatched")
            on.say(task, "attempt-failed", error=FAILURE)
        for task in tasks:
            await on.reach(task, "waiting")
        assert "Waiting to be tried again at 2026" in await explain(on, tasks[-1])
        await asyncio.sleep(10)
        left = [task for task in tasks if on.history(task).position == "waiting"]
        assert left
        told = await explain(on, left[-1])
        assert "was to be tried again at 2026" in told
        assert "over their budget" in told


def test_groups_are_read_from_the_environment() -> None:
    """Blanks do not matter; a group may be empty."""
    text = " approvers = bob, carol ;ops=dan;nobody=; "
    assert CoordinatorSettings.load({"SWITCHGEAR_GROUPS": text}).groups == {
        "approvers": frozenset({"bob", "carol"}),
        "ops": frozenset({"dan"}),
        "nobody": frozenset(),
    }
    assert CoordinatorSettings.load({}).groups == {}


@pytest.mark.parametrize("text", ["approvers", "=bob", "a b=bob", "a=b.c", "a=*"])
def test_groups_that_cannot_be_read_are_refused(text: str) -> None:
    """At the start, not when somebody signals."""
    with pytest.raises(ConfigError, match="approvers=alice"):
        CoordinatorSettings.load({"SWITCHGEAR_GROUPS": text})


async def test_explaining_a_task_in_a_lane_names_the_breakers_that_are_not_closed_there() -> None:
    """Also of a task that one refused; of other pools nothing, and nothing as soon as they are closed."""
    async with desk(settings=SETTINGS) as on:
        await on.offer()
        on.submit("t")
        await on.reach("t", "dispatched")
        api = BreakerState(dependency="api", state="forced-open", since=on.clock.now())
        disk = BreakerState(dependency="resource:disk", state="closed", since=on.clock.now())
        await on.offer("agent-2", pool="p2", breakers=(api,))
        assert "slots are free" in await explain(on)
        await on.offer(breakers=(api, disk))
        expected = "Breakers there that are not closed: api on agent-1 (forced-open)."
        assert (await explain(on)).startswith(expected)
        on.say("t", "released", why="breaker", dependency="api")
        assert (await explain(on)).startswith(expected)
        await on.offer(breakers=(disk,))
        assert "Handed back by its holder" in await explain(on)
