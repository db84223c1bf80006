"""Leases and holds: hand-back, take-over, crashes, poison, redelivery, cancel."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from switchgear import Agent, Context, TaskCancelled, TaskDead, TaskExpired
from switchgear.agent.attempt import CancelledMeanwhile
from switchgear.agent.settings import WorkerSettings
from switchgear.bus.port import Appended, Delivery, Refused
from switchgear.contract import entries
from switchgear.contract.values import Failure
from switchgear.tasks.requests import request_cancel
from switchgear.testing.memory import MemoryBus
from switchgear.testing.memory_ledger import MemoryLedger
from tests.unit.agent.stage import NULL, Gate, Number, Stage, stage, until

LONG = timedelta(hours=1)


def gated(gate: Gate, *, concurrency: int = 4) -> Agent:
    """An agent whose handler waits until the gate opens."""
    agent = Agent("gated", version="1.0.0")

    @agent.capability("pass", timeout=None, concurrency=concurrency)
    async def through(value: Number, ctx: Context) -> Number:
        await gate()
        return value

    return agent


def taken_over(on: Stage, task: str) -> list[entries.TakenOver]:
    return [
        valid.entry
        for valid in on.history(task).valid
        if isinstance(valid.entry, entries.TakenOver)
    ]


async def test_long_handler_keeps_its_lease() -> None:
    """A handler that waits for an hour is run once, however short the lease."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await asyncio.sleep(3600)
        gate.open()
        assert await handle.result() == {"n": 1}
        assert on.events(handle.id) == ["submitted", "dispatched", "completed"]
    assert gate.entered == 1


async def test_stopped_instance_hands_back_and_another_takes_over() -> None:
    """`stop` appends `released` at once; the next holder says that it came so, and no crash counts."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        second = await on.join(gated(gate))
        await first.worker.stop()
        history = await on.reach(handle.id, "taken-over")
        gate.open()
        assert await handle.result() == {"n": 1}
        assert history.crashes == 0
        [entry] = taken_over(on, handle.id)
        assert (entry.how, entry.former, entry.writer) == (
            "released",
            first.bus.name,
            second.bus.name,
        )
        assert on.events(handle.id).count("dispatched") == 1


async def test_draining_instance_finishes_what_it_runs() -> None:
    """Within the drain time nothing is handed back, and nothing new is taken."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        draining = asyncio.create_task(first.worker.drain())
        await asyncio.sleep(1)
        later = await on.mesh.submit("pass", Number(2))
        await asyncio.sleep(1)
        assert gate.entered == 1
        gate.open()
        await draining
        assert await handle.result() == {"n": 1}
        assert on.events(handle.id) == ["submitted", "dispatched", "completed"]
        assert on.events(later.id) == ["submitted", "waiting"]
        assert (await on.mesh.agents()).instances == ()


async def test_draining_instance_hands_back_what_takes_too_long() -> None:
    """After the drain time the rest goes back, and a new instance runs it."""
    gate = Gate()
    async with stage(settings=WorkerSettings(drain=timedelta(seconds=20))) as on:
        first = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        await first.worker.drain()
        assert on.events(handle.id) == ["submitted", "dispatched", "released"]
        gate.open()
        await on.join(gated(gate))
        assert await handle.result() == {"n": 1}


async def test_order_to_drain_reaches_the_instance() -> None:
    """`mesh.drain` makes all instances of the agent leave."""
    async with stage() as on:
        first, second = await on.join(gated(Gate())), await on.join(gated(Gate()))
        told = await on.mesh.drain("gated")
        assert set(told.instances) == {first.bus.name, second.bus.name}
        await first.worker.drained.wait()
        await second.worker.drained.wait()
        assert (await on.mesh.agents()).instances == ()


async def test_task_of_a_crashed_instance_is_taken_over_within_its_lease() -> None:
    """At its end at the latest, or as soon as the broker tells of the loss; the next holder counts a crash."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        await asyncio.sleep(15)
        second = await on.join(gated(gate))
        crashed = on.site.clock.now()
        await on.site.crash(first)
        gate.open()
        assert await handle.result() == {"n": 1}
        [entry] = taken_over(on, handle.id)
        assert (entry.how, entry.writer) == ("crash", second.bus.name)
        assert timedelta() < entry.time - crashed <= timedelta(seconds=30)
        assert on.history(handle.id).crashes == 1


@pytest.mark.parametrize("ran", [1, 2.5, 9.9, 12.6, 19])
async def test_crash_is_told_from_an_outage_at_any_moment(ran: float) -> None:
    """The dead instance is still announced when its lease ends, and yet counts as crashed."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        await asyncio.sleep(3.3)
        handle = await on.mesh.submit("pass", Number(1))
        await asyncio.sleep(ran)
        await on.site.crash(first)
        gate.open()
        await on.join(gated(gate))
        await handle.result()
        assert [entry.how for entry in taken_over(on, handle.id)] == ["crash"]


async def test_task_that_crashes_its_agents_is_ended() -> None:
    """After the third crash of one attempt nobody runs it any more: dead, with class crash-loop."""
    gate = Gate()
    async with stage() as on:
        handle = await on.mesh.submit("pass", Number(1))
        for crashes in range(3):
            member = await on.join(gated(gate))
            await until(lambda count=crashes: gate.entered == count + 1)
            await on.site.crash(member)
        await on.join(gated(gate))
        with pytest.raises(TaskDead) as caught:
            await handle.result()
        assert (caught.value.cause_code, caught.value.error_class) == ("SG1512", "crash-loop")
        assert [entry.how for entry in taken_over(on, handle.id)] == ["crash"] * 3
    assert gate.entered == 3


async def test_redelivery_to_the_instance_that_still_runs_it_goes_on() -> None:
    """A lease that ended though the handler lives brings the task back: it is not run twice."""
    gate = Gate()
    settings = WorkerSettings(extend_every=timedelta(hours=2))
    async with stage(gated(gate), settings=settings) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await asyncio.sleep(100)
        gate.open()
        assert await handle.result() == {"n": 1}
        assert on.events(handle.id) == ["submitted", "dispatched", "completed"]
    assert gate.entered == 1


async def test_holder_that_lost_its_task_ends_nothing() -> None:
    """Two instances run it, since the lease of a live one ended: only the new holder's end counts."""
    first_gate, second_gate = Gate(), Gate()
    settings = WorkerSettings(extend_every=timedelta(hours=2))
    async with stage() as on:
        await on.join(gated(first_gate, concurrency=1), settings)
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: first_gate.inside == 1)
        blocked = await on.mesh.submit("pass", Number(2))
        second = await on.join(gated(second_gate))
        await until(lambda: second_gate.inside == 2)
        first_gate.open()
        await asyncio.sleep(1)
        assert on.history(handle.id).ended is None
        second_gate.open()
        await handle.result()
        await blocked.result()
        end = on.history(handle.id).end
        assert end is not None
        assert end.writer == second.bus.name
        assert [entry.how for entry in taken_over(on, handle.id)] == ["alive"]


class EndedMeanwhile(MemoryLedger):
    """Its answer to `taken-over` got lost; when it is sent again, a coordinator has ended the task."""

    on: Stage

    async def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> Appended | Refused:
        """Append, and tell of the refusal that the second sending meets."""
        answer = await super().append(subject, body, scope=scope, expect=expect)
        if not subject.endswith(".taken-over"):
            return answer
        self.on.append(scope, "cancel-requested", honest=True, reason="not needed")
        return Refused(self.on.append(scope, "cancelled", honest=True, reason="not needed"))


async def test_nothing_is_appended_to_a_task_that_ended_while_its_take_over_was_unanswered() -> (
    None
):
    """The next holder learns in one read that its take-over stands and that a coordinator ended the task."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)

        def arrange(bus: MemoryBus) -> None:
            bus.ledger = ledger = EndedMeanwhile(on.site.broker, bus.link)
            ledger.on = on

        await on.site.join(gated(gate), arrange=arrange)
        await on.site.crash(first)
        await on.reach(handle.id, "cancelled")
        gate.open()
        await asyncio.sleep(100)
        history = on.history(handle.id)
        assert history.ended == "cancelled"
        assert history.voids == []
    assert gate.entered == 1


async def test_cancel_reaches_the_handler() -> None:
    """A cancel-requested in the ledger stops the running handler; the task ends as cancelled."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        on.append(on.scope(handle.id), "cancel-requested", honest=True, reason="not needed")
        with pytest.raises(TaskCancelled, match="not needed"):
            await handle.result()
        assert gate.inside == 0
        end = on.history(handle.id).valid[-1]
        assert end.entry.writer.startswith("gated")
        assert on.events(handle.id)[-2:] == ["cancel-requested", "cancelled"]


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_handler_that_ignores_its_cancel_ends_as_cancelled_all_the_same(how: str) -> None:
    """Whatever it makes of the cancel, a result or an error after it would be void."""
    agent = Agent("stubborn", version="1.0.0")

    @agent.capability("hold")
    async def hold(value: Number, ctx: Context) -> Number:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(300)
        if how == "raises":
            raise RuntimeError("disturbed")
        return value

    async with stage(agent) as on:
        handle = await on.mesh.submit(hold, Number(1))
        await asyncio.sleep(1)
        on.append(on.scope(handle.id), "cancel-requested", honest=True, reason="stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        history = on.history(handle.id)
        assert history.voids == []
        assert history.valid[-1].entry.writer.startswith("stubborn")


async def test_handler_that_raises_when_stopped_is_handed_back_not_failed() -> None:
    """An error that only the stop caused burns no attempt."""
    agent = Agent("fussy", version="1.0.0")

    @agent.capability("hold")
    async def hold(value: Number, ctx: Context) -> Number:
        try:
            await asyncio.sleep(value.n)
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None
        return value

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(hold, Number(30))
        await asyncio.sleep(1)
        await first.worker.stop()
        assert on.events(handle.id)[-1] == "released"
        await on.join(agent)
        assert await handle.result() == Number(30)
        assert on.history(handle.id).failures == 0


async def test_cancel_of_what_nobody_holds_ends_it_at_once() -> None:
    """A task that waits for capacity is ended by the coordinator."""
    async with stage() as on:
        handle = await on.mesh.submit("nobody", Number(1))
        await on.reach(handle.id, "waiting")
        on.append(on.scope(handle.id), "cancel-requested", honest=True, reason="stop")
        with pytest.raises(TaskCancelled):
            await handle.result()


async def test_cancel_of_a_task_whose_holder_died_ends_after_its_cleanup_time() -> None:
    """The coordinator waits for the holder's clean-up, not for the lease."""
    gate = Gate()
    async with stage() as on:
        member = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        await on.site.crash(member)
        began = on.site.clock.now()
        on.append(on.scope(handle.id), "cancel-requested", honest=True, reason="stop")
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert on.site.clock.now() - began < timedelta(seconds=10)


async def test_deadline_stops_a_running_handler() -> None:
    """At the deadline the handler is stopped and the task ends as expired."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1), deadline=timedelta(minutes=10))
        with pytest.raises(TaskExpired):
            await handle.result()
        assert gate.inside == 0
        history = on.history(handle.id)
        assert history.submitted_stored is not None
        took = history.valid[-1].stored.time - history.submitted_stored.time
        assert timedelta(minutes=10) <= took < timedelta(minutes=10, seconds=2)


async def test_nothing_but_an_end_is_appended_behind_a_cancel_that_was_seen() -> None:
    """Also where the append had begun before: it would be void, and look like a broken writer."""
    gate = Gate()
    async with stage() as on:
        member = await on.join(gated(gate))
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        attempt = member.worker._running[handle.id]
        async with attempt._appending:
            await request_cancel(on.bus, on.site.clock, on.scope(handle.id), "stop")
            await asyncio.sleep(1)  # the order has come, and waits to read
            waiting = asyncio.create_task(
                attempt.waiting("timer", "a while", [], None, lambda _: True)
            )
            await asyncio.sleep(0)
        with pytest.raises(CancelledMeanwhile):
            await waiting
        with pytest.raises(TaskCancelled):
            await handle.result()
        assert on.history(handle.id).voids == []


async def test_forged_cancel_order_stops_nobody() -> None:
    """Anybody may send the core message; the handler goes on unless the ledger says so too."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        on.site.broker.publish("sg.cancel.pass", b'{"task":"%s"}' % handle.id.encode())
        on.site.broker.publish("sg.cancel.pass", b"\xff\xff")
        await asyncio.sleep(10)
        assert gate.inside == 1
        gate.open()
        await handle.result()


async def test_forged_ends_of_a_held_task_do_not_count() -> None:
    """Another instance's `completed` and `attempt-failed` under the hold are void; the holder ends it."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside == 1)
        await on.reach(handle.id, "dispatched")
        scope, hold = on.scope(handle.id), on.history(handle.id).hold
        on.append(scope, "completed", honest=False, hold=hold, output=NULL)
        on.append(scope, "completed", honest=True, hold=hold + 100, output=NULL)
        failure = Failure(error_class="bug", code="SG1510", message="no")
        on.append(scope, "attempt-failed", honest=False, hold=hold, error=failure)
        gate.open()
        assert await handle.result() == {"n": 1}
        assert len(on.history(handle.id).voids) == 3


async def test_dispatch_written_by_an_intruder_is_acked_and_not_run() -> None:
    """What is no valid dispatch is not run, and does not block its lane."""
    gate = Gate()
    gate.open()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("pass", Number(1))
        await handle.result()
        pool = on.history(handle.id).pool
        subject = f"sg.task.pass.alice.forged.dispatched.{pool}.normal"
        on.site.broker.store(subject, b"NATS/1.0\r\n\r\n", b"not json")
        on.site.broker.store(f"sg.task.pass.alice.f2.dispatched.{pool}.normal", b"", b"{}")
        lane = on.site.broker.consumer(on.site.broker.ledger, f"lane=pass={pool}=normal")
        assert lane is not None
        await asyncio.sleep(1)
        assert lane.unsettled == 0
    assert gate.entered == 1


async def test_concurrency_bounds_what_one_instance_runs() -> None:
    """Ten tasks, three slots: never more than three handlers at a time, and all tasks end."""
    agent = Agent("narrow", version="1.0.0")
    inside = 0
    most = 0

    @agent.capability("work", concurrency=3)
    async def work(value: Number, ctx: Context) -> Number:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(7)
        inside -= 1
        return value

    async with stage(agent) as on:
        tasks = await on.mesh.submit_many(work, [Number(n) for n in range(10)])
        assert [await task.result() for task in tasks] == [Number(n) for n in range(10)]
        assert [on.history(task.id).crashes for task in tasks] == [0] * 10
    assert most == 3


async def test_idle_instance_gets_what_a_busy_one_cannot_run() -> None:
    """What arrives beyond the slots goes back within a moment, not after the lease."""
    gate = Gate()
    async with stage() as on:
        await on.join(gated(gate, concurrency=1))
        tasks = await on.mesh.submit_many("pass", [Number(n) for n in range(4)])
        await until(lambda: gate.inside == 1)
        await on.join(gated(gate, concurrency=3))
        async with asyncio.timeout(5):
            await until(lambda: gate.inside == 4)
        gate.open()
        for task in tasks:
            await task.result()


async def test_higher_priority_goes_first_when_slots_are_full() -> None:
    """Freed slots are filled from the highest lane down, whatever was submitted first."""
    agent = Agent("single", version="1.0.0")
    order: list[int] = []

    @agent.capability("work", concurrency=1)
    async def work(value: Number, ctx: Context) -> None:
        order.append(value.n)
        await asyncio.sleep(10)

    async with stage(agent) as on:
        first = await on.mesh.submit(work, Number(0))
        await until(lambda: order == [0])
        await asyncio.sleep(5)
        tasks = [
            await on.mesh.submit(work, Number(n), priority=priority)
            for n, priority in enumerate(["low", "normal", "high", "low", "high"], start=1)
        ]
        for task in [first, *tasks]:
            await task.result()
    assert order == [0, 3, 5, 2, 1, 4]


async def test_stop_in_the_midst_of_everything_loses_nothing() -> None:
    """Instances come and go while tasks arrive: each task ends, none counts a crash."""
    agent = Agent("busy", version="1.0.0")

    @agent.capability("work", concurrency=2)
    async def work(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(0.01 * (value.n % 7))
        return value

    async with stage() as on:
        await on.join(agent)
        tasks = [await on.mesh.submit(work, Number(n)) for n in range(60)]
        for pause in (0, 0, 0.01, 0.013, 0.02, 0.05):
            await asyncio.sleep(pause)
            member = on.site.members[-1]
            await on.join(agent)
            await member.worker.stop()
        assert [(await task.result()).n for task in tasks] == list(range(60))
        histories = [on.history(task.id) for task in tasks]
    assert [history.voids for history in histories] == [[]] * 60
    assert {history.crashes for history in histories} == {0}
    assert {history.failures for history in histories} == {0}


async def test_a_dispatch_that_comes_twice_at_once_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a cut: a lane made anew and a restarted broker both hand it over, and each one's read finds it new."""
    gate = Gate()
    async with stage() as on:
        first = await on.join(gated(gate))
        [feeder] = first.worker._feeders.values()
        begin = feeder._begin

        def twice(delivery: Delivery) -> None:
            first.worker._receiving._reconnected()
            begin(delivery)
            begin(delivery)

        monkeypatch.setattr(feeder, "_begin", twice)
        handle = await on.mesh.submit("pass", Number(1))
        await until(lambda: gate.inside > 0)
        await asyncio.sleep(1)
        assert gate.inside == 1
        gate.open()
        assert await handle.result() == {"n": 1}
    assert gate.entered == 1
    assert on.events(handle.id) == ["submitted", "dispatched", "completed"]
