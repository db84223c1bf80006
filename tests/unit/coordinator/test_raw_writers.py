"""Raw writers: entries that break rule 1 are void in every state, and the task ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, TaskDead, ids
from switchgear.contract import codec, entries, values
from tests.unit.agent.stage import NULL, START, Gate, Number, Stage, Text, stage, until

DIGEST = "0" * 64
FAILURE = values.Failure(error_class="bug", code="SG1510", message="forged", retryable=False)
FIELDS: dict[str, dict[str, Any]] = {
    "submitted": {"input": NULL, "digest": DIGEST},
    "rejected": {"code": "SG1204", "reason": "forged"},
    "dispatched.forged.normal": {
        "attempt": 1,
        "input": NULL,
        "route": values.Route(reason="forged"),
        "retry": values.Retry(),
        "submitted": 1,
    },
    "taken-over": {"hold": 2, "deliveries": 2, "how": "crash"},
    "released": {"hold": 2, "why": "drain"},
    "checkpoint": {"hold": 2, "key": "k", "kind": "step", "ok": True, "result": NULL},
    "waiting": {"reason": "capacity"},
    "signalled": {"name": "go", "payload": NULL},
    "attempt-failed": {"hold": 2, "error": FAILURE},
    "cancel-requested": {"reason": "forged"},
    "completed": {"hold": 2, "output": NULL},
    "dead": {"error": FAILURE},
    "cancelled": {"reason": "forged"},
    "expired": {},
}


def gated(gate: Gate) -> Agent:
    agent = Agent("gated", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> Text:
        await gate()
        return Text(f"attempt {ctx.attempt}")

    return agent


def flood(on: Stage, scope: str) -> int:
    """Every event, without compare-and-set: as a client that is permitted to publish could."""
    for event, fields in FIELDS.items():
        on.append(scope, event, honest=False, **fields)
    return len(FIELDS)


async def queued(on: Stage, gate: Gate) -> tuple[str, int]:
    """Just submitted: no coordinator has seen it."""
    handle = await on.mesh.submit("work", Number(1))
    return handle.id, flood(on, on.scope(handle.id))


async def waiting(on: Stage, gate: Gate) -> tuple[str, int]:
    """Nobody offers it yet."""
    handle = await on.mesh.submit("work", Number(1))
    await on.reach(handle.id, "waiting")
    written = flood(on, on.scope(handle.id))
    await asyncio.sleep(100)
    await on.join(gated(gate))
    return handle.id, written


async def held(on: Stage, gate: Gate) -> tuple[str, int]:
    """An agent runs it."""
    await on.join(gated(gate))
    handle = await on.mesh.submit("work", Number(1))
    await until(lambda: gate.inside == 1)
    return handle.id, flood(on, on.scope(handle.id))


async def loose(on: Stage, gate: Gate) -> tuple[str, int]:
    """Its holder handed it back."""
    member = await on.join(gated(gate))
    handle = await on.mesh.submit("work", Number(1))
    await until(lambda: gate.inside == 1)
    await member.worker.stop()
    written = flood(on, on.scope(handle.id))
    await on.join(gated(gate))
    return handle.id, written


async def crashed(on: Stage, gate: Gate) -> tuple[str, int]:
    """Its holder is dead, its lease not yet over."""
    member = await on.join(gated(gate))
    handle = await on.mesh.submit("work", Number(1))
    await until(lambda: gate.inside == 1)
    await on.site.crash(member)
    written = flood(on, on.scope(handle.id))
    await on.join(gated(gate))
    return handle.id, written


@pytest.mark.parametrize("state", [queued, waiting, held, loose, crashed])
async def test_entries_without_compare_and_set_are_void_at_every_state(
    state: Callable[[Stage, Gate], Coroutine[Any, Any, tuple[str, int]]],
) -> None:
    """Whatever is written raw, the task completes once, with its own result, for every reader."""
    gate = Gate()
    async with stage() as on:
        task, written = await state(on, gate)
        if state is queued:
            await on.join(gated(gate))
        gate.open()
        assert await (await on.mesh.get(task)).result() == {"text": "attempt 1"}
        history = on.history(task)
        assert len(history.voids) == written
        assert history.ended == "completed"
        assert len((await on.mesh.explain(task)).voids) == written


async def test_entries_after_the_end_change_nothing() -> None:
    """An ended task stays as it is, even for honest entries that come late."""
    gate = Gate()
    gate.open()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("work", Number(1))
        await handle.result()
        flood(on, on.scope(handle.id))
        for event in ("cancel-requested", "signalled", "submitted"):
            on.append(on.scope(handle.id), event, honest=True, **FIELDS[event])
        await asyncio.sleep(60)
        assert await (await on.mesh.get(handle.id)).result() == {"text": "attempt 1"}
    assert gate.entered == 1


async def test_void_entries_before_a_submission_do_not_block_it() -> None:
    """A raw entry can open a scope; the key's own submission still stands, with the right expectation."""
    gate = Gate()
    gate.open()
    async with stage(gated(gate)) as on:
        probe = await on.mesh.submit("work", Number(1), key="probe")
        task = ids.derived_id("key", "alice", "work", "k")
        assert ids.derived_id("key", "alice", "work", "probe") == probe.id
        scope = f"sg.task.work.alice.{task}.>"
        on.append(scope, "cancel-requested", honest=False, reason="forged")
        on.append(scope, "completed", honest=True, hold=1, output=NULL)
        handle = await on.mesh.submit("work", Number(1), key="k")
        assert handle.id == task
        assert await handle.result() == {"text": "attempt 1"}


async def test_forged_header_repeats_are_void() -> None:
    """The broker checks the first of repeated headers: such an entry proves nothing."""
    gate = Gate()
    async with stage(gated(gate)) as on:
        handle = await on.mesh.submit("work", Number(1))
        await until(lambda: gate.inside == 1)
        scope = on.scope(handle.id)
        last = on.history(handle.id).last
        entry = entries.CancelRequested(
            v=1,
            id="forged",
            task=handle.id,
            time=START,
            writer="mallory",
            status=values.Status(state="cancelling", submitted_at=START),
            reason="forged",
        )
        name = b"Nats-Expected-Last-Subject-Sequence"
        headers = (
            (b"NATS/1.0\r\n" + name + b": %d\r\n" % last + name + b"-Subject: " + scope.encode())
            + b"\r\n"
            + name.lower()
            + b": 1\r\n\r\n"
        )
        on.site.broker.store(f"{scope[:-1]}cancel-requested", headers, codec.encode(entry))
        gate.open()
        assert await handle.result() == {"text": "attempt 1"}
        assert [void.stored.sequence for void in on.history(handle.id).voids] == [last + 1]


async def test_void_failure_is_not_retried_and_a_real_one_is() -> None:
    """A forged attempt-failed starts no attempt; the handler's own does."""
    gate = Gate()
    agent = Agent("gated", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        await gate()
        raise OSError("real")

    async with stage(agent) as on:
        handle = await on.mesh.submit(work, Number(1))
        await until(lambda: gate.inside == 1)
        on.append(on.scope(handle.id), "attempt-failed", honest=False, hold=2, error=FAILURE)
        await asyncio.sleep(60)
        assert gate.entered == 1
        gate.open()
        with pytest.raises(TaskDead, match="real"):
            await handle.result()
    assert gate.entered == 3


async def test_rubbish_at_every_intake_stalls_nobody() -> None:
    """Bad UTF-8, deep nesting, wrong subjects: acked or rejected, and the next task runs."""
    gate = Gate()
    gate.open()
    async with stage(gated(gate)) as on:
        broker = on.site.broker
        events = [event for event in FIELDS if not event.startswith("dispatched")]
        for n, data in enumerate([b"", b"\xff\xfe", b"[" * 200_000, b'{"v":9}', b"null"]):
            for event in events:
                broker.store(f"sg.task.work.alice.bad{n}.{event}", b"", data)
            broker.store(f"sg.due.work.alice.bad{n}.capacity", b"", data)
            broker.store(f"sg.due.bad subject{n}", b"", data)
            broker.announce(f"sg.announce.bad.i{n}", data or b"-", timedelta(seconds=30))
            for verb in ("explain", "lanes", "drain", "holder", "capabilities"):
                broker.publish(f"sg.api.{verb}.alice", data, reply="_INBOX.none")
        async with asyncio.timeout(60):
            assert await on.mesh.call("work", Number(1)) == {"text": "attempt 1"}
        await asyncio.sleep(30)
        for name in ("intake-submitted", "intake-transitions"):
            consumer = broker.consumer(broker.ledger, name)
            assert consumer is not None
            assert consumer.unsettled == 0
        due = broker.consumer(broker.timers, "intake-due")
        assert due is not None
        assert due.unsettled == 0
