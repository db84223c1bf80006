"""Handlers that only wait give up their slot, and go on when what they wait for has come."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from switchgear import (
    Agent,
    Approval,
    Context,
    Permanent,
    Retry,
    Retryable,
    SignalTimeout,
    TaskCancelled,
    TaskDead,
    WaitTimeout,
    testing,
)
from switchgear.agent.settings import WorkerSettings
from switchgear.agent.suspension import suspends_at
from switchgear.contract import entries
from switchgear.contract.values import Awaited
from switchgear.lifecycle.history import History
from switchgear.tasks.events import detail
from switchgear.tasks.requests import request_cancel, send_signal
from switchgear.tasks.watch import Followed
from tests.unit.agent.stage import OWNER, Gate, Number, Stage, Text, stage, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLD = timedelta(seconds=10)


def second(n: float) -> datetime:
    return NOW + timedelta(seconds=n)


def timer(until: float) -> Awaited:
    return Awaited(key="t", kind="timer", begun=NOW, until=second(until))


def child(until: float | None = None) -> Awaited:
    return Awaited(
        key="c",
        kind="child",
        begun=NOW,
        until=None if until is None else second(until),
        capability="x",
        task="y",
    )


@pytest.mark.parametrize(
    ("waits", "since", "now", "at"),
    [
        ([timer(60)], 0, 0, 0.05),
        ([timer(10)], 0, 0, None),
        ([timer(60), timer(9)], 0, 0, None),
        ([child()], 0, 0, 10),
        ([child()], 0, 15, 15),
        ([child(), timer(60)], 0, 0, 10),
        ([child(), timer(19)], 0, 0, None),
        ([child(15)], 0, 0, None),
        ([child(21)], 0, 0, 10),
    ],
)
def test_slot_is_given_up_only_for_longer_waits(
    waits: list[Awaited], since: float, now: float, at: float | None
) -> None:
    """At once for times that lie far off, after the hold time for what nobody knows, never for a moment."""
    expected = None if at is None else second(at)
    assert suspends_at(waits, second(since), second(now), HOLD) == expected


def waitings(on: Stage, task: str) -> list[entries.Waiting]:
    return [v.entry for v in on.history(task).valid if isinstance(v.entry, entries.Waiting)]


async def signal(on: Stage, task: str, name: str, payload: bytes, group: str = "") -> None:
    await send_signal(
        on.bus, on.site.clock, on.scope(task), name, payload, sender="alice", group=group
    )


def sleeper(runs: list[int], *, hours: float = 1, concurrency: int = 4) -> Agent:
    agent = Agent("sleeper", version="1.0.0")

    @agent.capability("nap", timeout=timedelta(seconds=30), concurrency=concurrency)
    async def nap(value: Number, ctx: Context) -> Number:
        runs.append(value.n)
        await ctx.sleep("nap", timedelta(hours=hours))
        return value

    return agent


async def test_long_sleep_frees_the_slot_and_goes_on_in_time() -> None:
    """One slot serves ten sleepers at a time; each wakes after its hour, and its handler ran twice."""
    runs: list[int] = []
    async with stage(sleeper(runs, concurrency=1)) as on:
        handles = [await on.mesh.submit("nap", Number(n)) for n in range(10)]
        began = on.site.clock.now()
        await asyncio.gather(*(handle.result() for handle in handles))
        took = on.site.clock.now() - began
        assert on.events(handles[0].id) == [
            "submitted",
            "dispatched",
            "waiting",
            "dispatched",
            "checkpoint",
            "completed",
        ]
    assert timedelta(hours=1) <= took < timedelta(hours=1, seconds=5)
    assert sorted(runs) == sorted([*range(10), *range(10)])


async def test_short_sleep_holds_the_slot() -> None:
    """Nothing shorter than the hold time suspends."""
    runs: list[int] = []
    async with stage(sleeper(runs, hours=9 / 3600)) as on:
        handle = await on.mesh.submit("nap", Number(1))
        await handle.result()
        assert "waiting" not in on.events(handle.id)
    assert runs == [1]


async def test_call_of_a_slow_child_suspends_its_parent() -> None:
    """The parent holds no slot while its child runs, and gets the result when it ends."""
    agent = Agent("family", version="1.0.0")
    runs: list[str] = []

    @agent.capability("slow", timeout=None)
    async def slow(value: Number, ctx: Context) -> Number:
        runs.append("slow")
        await asyncio.sleep(600)
        return Number(value.n + 1)

    @agent.capability("parent", calls=[slow], timeout=timedelta(seconds=30))
    async def parent(value: Number, ctx: Context) -> Number:
        runs.append("parent")
        return await ctx.call(slow, value)

    async with stage(agent) as on:
        handle = await on.mesh.submit(parent, Number(1))
        history = await on.reach(handle.id, "waiting")
        assert history.position == "waiting"
        assert await handle.result() == Number(2)
        [waiting] = waitings(on, handle.id)
        assert (waiting.reason, waiting.waits[0].kind) == ("child", "child")
    assert runs == ["parent", "slow", "parent"]


async def test_recorded_durations_count_from_the_first_run() -> None:
    """What the timeline tells of calls and maps is how long they took, suspended or not, failed or not."""
    agent = Agent("family", version="1.0.0")

    @agent.capability("slow", timeout=None, concurrency=10)
    async def slow(value: Number, ctx: Context) -> Number:
        await ctx.sleep("slow", timedelta(seconds=value.n))
        if value.n == 300:
            raise Permanent("no")
        return value

    @agent.capability("parent", calls=[slow], timeout=None)
    async def parent(value: Number, ctx: Context) -> Number:
        await ctx.call(slow, Number(100), key="call")
        await ctx.map(slow, [Number(200), Number(1)], key="map")
        with contextlib.suppress(TaskDead):
            await ctx.call(slow, Number(300), key="failing")
        await ctx.map(slow, [Number(400), Number(300)], key="partly", max_failures=1)
        await ctx.call(slow, Number(1), key="quick")
        return value

    async with stage(agent) as on:
        handle = await on.mesh.submit(parent, Number(1))
        await handle.result()
        taken = [
            round(valid.entry.duration.total_seconds())
            for valid in on.history(handle.id).valid
            if isinstance(valid.entry, entries.Checkpoint) and valid.entry.duration is not None
        ]
    assert taken == [100, 200, 300, 400, 1]


async def test_gathered_calls_wake_their_parent_once() -> None:
    """Calls that are given to `gather` directly wait together, until the last of them has ended."""
    agent = Agent("family", version="1.0.0")
    runs: list[str] = []

    @agent.capability("slow", timeout=None, concurrency=10)
    async def slow(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(60 * value.n)
        return value

    @agent.capability("parent", calls=[slow], timeout=None)
    async def parent(value: Number, ctx: Context) -> Number:
        runs.append("parent")
        made = await ctx.gather(*(ctx.call(slow, Number(n), key=f"c{n}") for n in range(1, 6)))
        return Number(sum(one.n for one in made))

    async with stage(agent) as on:
        handle = await on.mesh.submit(parent, Number(1))
        assert await handle.result() == Number(15)
        assert len(waitings(on, handle.id)) == 1
    assert runs == ["parent", "parent"]


async def test_signal_resumes_whoever_waits_for_it() -> None:
    """An approval after an hour comes as its type; early signals count too."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Text:
        early = await ctx.wait_for_signal("early", Number)
        review = await ctx.wait_for_signal("review", Approval, question="ship it?")
        return Text(f"{early.n} {review.approved} {review.note}")

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await signal(on, handle.id, "early", b'{"n":7}')
        history = await on.reach(handle.id, "waiting")
        assert history.waiting is not None
        assert "ship it?" in history.waiting.detail
        await asyncio.sleep(3600)
        await signal(on, handle.id, "review", b'{"approved":true,"note":"go"}')
        assert await handle.result() == Text("7 True go")


async def test_signals_of_one_name_are_taken_in_order_one_a_wait() -> None:
    """Each wait names the entry that it took, so a re-run takes the same."""
    agent = Agent("asker", version="1.0.0")
    gate = Gate()

    @agent.capability("ask", timeout=None)
    async def ask(value: Number, ctx: Context) -> Text:
        await gate()
        got = [(await ctx.wait_for_signal("next", Number, key=f"n{n}")).n for n in range(3)]
        return Text(str(got))

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await until(lambda: gate.inside == 1)
        for n in (3, 1, 2):
            await signal(on, handle.id, "next", b'{"n":%d}' % n)
        gate.open()
        assert await handle.result() == Text("[3, 1, 2]")
        taken = [
            v.entry.signal
            for v in on.history(handle.id).valid
            if isinstance(v.entry, entries.Checkpoint)
        ]
    assert taken == sorted(taken)
    assert all(taken)


async def test_signal_that_was_taken_is_not_given_again_where_the_ledger_is_read_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica that lags shows the next run a signal without the checkpoint that took it."""
    right, stale = Followed.history, [True]

    def lagging(followed: Followed) -> History:
        if not stale:
            return right(followed)
        history = History(followed.scope)
        for stored in followed.entries:
            history.add(stored)
            if stored.subject.endswith(".signalled"):
                break
        return history

    monkeypatch.setattr(Followed, "history", lagging)
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Text:
        first = await ctx.wait_for_signal("it", Number, key="first")
        await ctx.sleep("nap", timedelta(minutes=1))
        second = await ctx.wait_for_signal("it", Number, key="second")
        return Text(f"{first.n} {second.n}")

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await on.reach(handle.id, "dispatched")
        await signal(on, handle.id, "it", b'{"n":1}')
        await on.reach(handle.id, "waiting", 2)
        stale.clear()
        await signal(on, handle.id, "it", b'{"n":2}')
        assert await handle.result() == Text("1 2")


async def test_signal_of_a_group_is_taken_only_from_that_group() -> None:
    """The owner cannot answer for the approvers, nor they for the owner."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Text:
        got = await ctx.wait_for_signal("review", Approval, sender="approvers")
        return Text(got.note)

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await signal(on, handle.id, "review", b'{"approved":true,"note":"owner"}')
        await on.reach(handle.id, "waiting")
        await signal(
            on, handle.id, "review", b'{"approved":true,"note":"group"}', group="approvers"
        )
        assert await handle.result() == Text("group")


def signal_checkpoints(on: Stage, task: str) -> list[entries.Checkpoint]:
    """What the waits of this task have recorded, in order."""
    found = [v.entry for v in on.history(task).valid if isinstance(v.entry, entries.Checkpoint)]
    return [one for one in found if one.kind == "signal"]


async def test_signal_that_does_not_fit_is_refused_and_the_next_one_is_taken() -> None:
    """The wait says with code, path and fix what it refused, and goes on: in memory, and after it was suspended."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Number:
        return await ctx.wait_for_signal("it", Number)

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await on.reach(handle.id, "dispatched")
        await signal(on, handle.id, "it", b'{"n":"many"}')
        await on.reach(handle.id, "checkpoint")
        await on.reach(handle.id, "waiting")
        await signal(on, handle.id, "it", b"[]")
        await on.reach(handle.id, "checkpoint", 2)
        await on.reach(handle.id, "waiting", 2)
        await signal(on, handle.id, "it", b'{"n":7}')
        assert await handle.result() == Number(7)
        came = [v.stored.sequence for v in on.history(handle.id).valid
                if v.subject.event == "signalled"]  # fmt: skip
        recorded = signal_checkpoints(on, handle.id)
        shown = [detail(v) for v in on.history(handle.id).valid
                 if v.subject.event == "checkpoint"]  # fmt: skip
    assert [(one.key, one.ok, one.signal) for one in recorded] == [
        ("it", False, came[0]),
        ("it", False, came[1]),
        ("it", True, came[2]),
    ]
    errors = [one.error for one in recorded if one.error is not None]
    assert [(error.code, error.error_class, error.path) for error in errors] == [
        ("SG1507", "invalid", "$.n"),
        ("SG1507", "invalid", "$"),
    ]
    assert errors[0].message == "signal it does not fit Number: Expected `int`, got `str`"
    assert "task signal" in errors[0].fix
    assert all(part in shown[0] for part in ("refused", "SG1507", "$.n", errors[0].fix))


async def test_refused_signal_does_not_lengthen_the_time_of_its_wait() -> None:
    """Two hours are two hours, however many signals come that do not fit; then it is a timeout."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Text:
        try:
            await ctx.wait_for_signal("it", Number, timeout=timedelta(hours=2))
        except SignalTimeout as error:
            return Text(error.code)
        return Text("came")

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        for count in range(1, 4):
            await on.reach(handle.id, "waiting", count)
            await asyncio.sleep(1800)
            await signal(on, handle.id, "it", b'"no"')
        assert await handle.result() == Text("SG1508")
        row = await handle.status()
        took = row.updated_at - row.submitted_at
        ends = [(one.ok, bool(one.signal)) for one in signal_checkpoints(on, handle.id)]
    assert timedelta(hours=2) <= took < timedelta(hours=2, seconds=5)
    assert ends == [(False, True)] * 3 + [(False, False)]


async def test_signal_that_does_not_fit_is_refused_once_whoever_waits() -> None:
    """Neither another wait for its name, nor a retry of the handler, gets it again."""
    agent = Agent("asker", version="1.0.0")
    gate = Gate()
    runs: list[int] = []

    @agent.capability("ask", timeout=None, retry=Retry(initial=timedelta(seconds=1)))
    async def ask(value: Number, ctx: Context) -> Text:
        runs.append(1)
        await gate()
        if len(runs) == 1:
            await ctx.wait_for_signal("it", Number, key="first")
            raise Retryable("once")
        got = await ctx.gather(*(ctx.wait_for_signal("it", Number, key=key) for key in "ab"))
        return Text(str(sorted(one.n for one in got)))

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        await until(lambda: gate.inside == 1)
        for payload in (b"1", b'{"n":1}', b"2", b'{"n":2}', b"3"):
            await signal(on, handle.id, "it", payload)
        gate.open()
        await on.reach(handle.id, "waiting", 2)
        await signal(on, handle.id, "it", b'{"n":3}')
        assert await handle.result() == Text("[2, 3]")
        recorded = signal_checkpoints(on, handle.id)
    assert len({one.signal for one in recorded}) == len(recorded) == 6
    assert [one.ok for one in recorded].count(False) == 3


@pytest.mark.parametrize("death", ["before", "after"])
async def test_death_at_the_refusal_of_a_signal_refuses_it_once(
    death: Literal["before", "after"],
) -> None:
    """The next holder finds the refusal, or makes it; the code has not changed for it."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Number:
        return await ctx.wait_for_signal("it", Number)

    async with testing.mesh(agent) as mesh:
        mesh.faults.crash(**{death: "it"})
        handle = await mesh.submit(ask, Number(1))
        await handle.signal("it", [])
        await handle.signal("it", Number(7))
        assert await handle.result() == Number(7)
        found = [one.detail async for one in handle.events() if one.event == "checkpoint"]
    assert ["refused" in one for one in found] == [True, False]


async def test_time_limit_of_a_signal_is_fixed_by_the_first_run() -> None:
    """Two hours are two hours, however often the handler runs; the timeout is recorded."""
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Text:
        try:
            await ctx.gather(
                ctx.wait_for_signal("it", Number, timeout=timedelta(hours=2)),
                nap(ctx),
            )
        except SignalTimeout as error:
            return Text(error.code)
        return Text("came")

    async def nap(ctx: Context) -> None:
        for n in range(10):
            await ctx.sleep(f"nap{n}", timedelta(minutes=30))

    async with stage(agent) as on:
        handle = await on.mesh.submit(ask, Number(1))
        assert await handle.result() == Text("SG1508")
        row = await handle.status()
        took = row.updated_at - row.submitted_at
    assert timedelta(hours=2) <= took < timedelta(hours=2, seconds=5)


async def test_waits_do_not_count_for_the_timeout_of_an_attempt() -> None:
    """A handler that holds its slot for 8 s of waiting has used nothing of its second."""
    agent = Agent("patient", version="1.0.0")

    @agent.capability("work", timeout=timedelta(seconds=1))
    async def work(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(0.5)
        await ctx.sleep("a", timedelta(seconds=8))
        await asyncio.sleep(0.4)
        return value

    async with stage(agent) as on:
        assert await on.mesh.call(work, Number(1)) == Number(1)


async def test_suspended_task_can_be_cancelled() -> None:
    """Nobody holds it: a coordinator ends it."""
    runs: list[int] = []
    async with stage(sleeper(runs)) as on:
        handle = await on.mesh.submit("nap", Number(1))
        await on.reach(handle.id, "waiting")
        await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "no longer wanted")
        with pytest.raises(TaskCancelled):
            await handle.result()
    assert runs == [1]


async def test_handler_that_swallows_the_suspension_counts_for_nothing() -> None:
    """What it returns or raises afterwards is ignored, and its delivery is let go."""
    agent = Agent("stubborn", version="1.0.0")
    runs: list[int] = []

    @agent.capability("work", timeout=None)
    async def work(value: Number, ctx: Context) -> Number:
        runs.append(1)
        try:
            await ctx.sleep("nap", timedelta(hours=1))
        except asyncio.CancelledError:
            return Number(99)
        return Number(1)

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(0))
        assert await handle.result() == Number(1)
    assert runs == [1, 1]


async def test_signal_just_before_the_suspension_keeps_the_handler_running() -> None:
    """The refused entry is decided anew: the signal has come, so there is nothing to wait for."""
    agent = Agent("asker", version="1.0.0")
    runs: list[int] = []

    @agent.capability("ask")
    async def ask(value: Number, ctx: Context) -> Number:
        runs.append(1)
        return await ctx.wait_for_signal("it", Number)

    async with stage(agent, settings=WorkerSettings(hold_time=timedelta(seconds=10))) as on:
        handle = await on.mesh.submit(ask, Number(0))
        await until(lambda: len(runs) == 1)
        await asyncio.sleep(9.9)
        await signal(on, handle.id, "it", b'{"n":3}')
        assert await handle.result() == Number(3)
    assert runs == [1]


async def test_call_with_a_timeout_counts_from_the_first_run() -> None:
    """WaitTimeout comes when it was to come, and the child is cancelled."""
    agent = Agent("family", version="1.0.0")
    gate = Gate()

    @agent.capability("slow", timeout=None)
    async def slow(value: Number, ctx: Context) -> None:
        await gate()

    @agent.capability("parent", calls=[slow])
    async def parent(value: Number, ctx: Context) -> Text:
        try:
            await ctx.call(slow, value, timeout=timedelta(minutes=5))
        except WaitTimeout as error:
            return Text(error.code)
        return Text("came")

    async with stage(agent) as on:
        handle = await on.mesh.submit(parent, Number(1))
        assert await handle.result() == Text("SG1403")
        row = await handle.status()
        assert row.updated_at - row.submitted_at < timedelta(minutes=5, seconds=5)
        assert row.owner == OWNER
        await until(lambda: gate.inside == 0)
