"""Clients, a coordinator and agents on a real server: from a submission to its result, and what can be seen of it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from datetime import timedelta

import pytest

from switchgear import Agent, Capability, Conflict, Context, TaskDead, TaskRejected
from switchgear.client.mesh import Mesh
from switchgear.errors import NotFound, Permanent
from tests.integration.spine.rawwriter import Raw
from tests.integration.spine.stage import (
    OWNER,
    SOON,
    Gate,
    Stage,
    Text,
    gated,
    history_of,
    scope_of,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

WORK = Capability("work", Text, Text)
EVENTS = ["submitted", "dispatched", "completed"]


async def test_call_returns_the_result(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    gate.open()
    await stage.join(gated(gate))
    assert Text("a 1 gated") == await mesh.call(WORK, Text("a"), timeout=SOON)


async def test_agent_may_come_before_any_coordinator(stage: Stage, gate: Gate) -> None:
    """Everything waits for the last of them, and nothing else."""
    mesh = await stage.client()
    handle = await mesh.submit(WORK, Text("a"))
    await stage.join(gated(gate))
    gate.open()
    await stage.coordinate()
    assert Text("a 1 gated") == await handle.result(timeout=SOON)


async def test_many_submissions_end_in_the_inputs_order_and_as_they_end(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    gate.open()
    await stage.join(gated(gate, concurrency=16))
    handles = await mesh.submit_many(WORK, [Text(str(n)) for n in range(100)])
    ended = [one async for one in mesh.as_completed(handles, timeout=SOON)]
    results = await asyncio.gather(*(one.result(timeout=SOON) for one in handles))
    assert [Text(f"{n} 1 gated") for n in range(100)] == results
    assert {one.id for one in handles} == {one.id for one in ended}
    assert sorted(str(n) for n in range(100)) == sorted(gate.entered)


async def test_events_tell_the_whole_life(mesh: Mesh, stage: Stage) -> None:
    """Ledger entries and progress, in order, for who watches from the start and who comes later."""
    agent = Agent("reporter", version="1.0.0")
    watched = asyncio.Event()

    @agent.capability("report")
    async def report(value: Text, ctx: Context) -> Text:
        async with asyncio.timeout(PATIENCE):
            await watched.wait()
        ctx.progress(0.5, "half", files=3)
        return value

    await stage.join(agent)
    handle = await mesh.submit(report, Text("a"))
    told: list[tuple[str, str]] = []
    async with asyncio.timeout(PATIENCE):
        async for event in handle.events():
            told.append((event.event, event.detail))
            if event.event == "dispatched":
                watched.set()
    assert ("progress", "half") in told
    assert [event for event, _ in told if event != "progress"] == EVENTS
    later = [event.event async for event in (await mesh.get(handle.id)).events()]
    assert [event for event in later if event != "progress"] == EVENTS
    assert later.count("progress") == 1  # the newest


async def test_status_explain_and_get_of_a_running_and_an_ended_task(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    member = await stage.join(gated(gate))
    handle = await mesh.submit(WORK, Text("a"))
    await gate.holds()
    row = await mesh.status(handle.id)
    assert (row.state, row.capability, row.owner, row.attempt) == ("held", "work", OWNER, 1)
    assert (await mesh.explain(handle.id)).state == "held"
    gate.open()
    again = await mesh.get(handle.id)
    assert await again.result(timeout=SOON) == {"text": "a 1 gated"}
    row = await again.status()
    assert ("completed", member.bus.name) == (row.state, row.agent)
    told = await mesh.explain(handle.id)
    assert (told.state, told.voids) == ("completed", ())
    assert told.route is not None
    assert told.route.reason == "the only pool that fits"


async def test_agents_and_capabilities_are_listed(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    member = await stage.join(gated(gate, concurrency=3))
    await until(lambda: _sees(mesh, member.bus.name))
    (row,) = (await mesh.capabilities()).rows
    assert (row.offer.name, row.offer.version, row.instances, row.free) == ("work", "1.0.0", 1, 3)


async def _sees(mesh: Mesh, instance: str) -> bool:
    return [instance] == [one.instance for one in (await mesh.agents()).instances]


async def test_unknown_tasks_are_not_found(mesh: Mesh) -> None:
    for ask in (mesh.get, mesh.status, mesh.explain):
        with pytest.raises(NotFound):
            await ask("nosuchtask")


async def test_foreign_tasks_are_not_found(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    """Another principal's id leads nowhere."""
    gate.open()
    await stage.join(gated(gate))
    handle = await mesh.submit(WORK, Text("a"))
    await handle.result(timeout=SOON)
    bob = await stage.client("bob")
    for ask in (bob.get, bob.status, bob.explain):
        with pytest.raises(NotFound):
            await ask(handle.id)


async def test_misfit_input_is_rejected_with_its_path(mesh: Mesh, stage: Stage, gate: Gate) -> None:
    member = await stage.join(gated(gate))
    await until(lambda: _sees(mesh, member.bus.name))
    with pytest.raises(TaskRejected, match=r"\$\.text") as caught:
        await mesh.call("work", {"text": 1}, timeout=SOON)
    assert caught.value.cause_code == "SG1203"
    assert gate.entered == []


async def test_permanent_failure_is_not_tried_again(mesh: Mesh, stage: Stage) -> None:
    agent = Agent("refuser", version="1.0.0")
    runs: list[int] = []

    @agent.capability("refuse")
    async def refuse(value: Text, ctx: Context) -> Text:
        runs.append(ctx.attempt)
        raise Permanent("never")

    await stage.join(agent)
    with pytest.raises(TaskDead, match="never"):
        await mesh.call(refuse, Text("a"), timeout=SOON)
    assert runs == [1]


async def test_key_is_one_task_for_two_clients_and_a_later_one(stage: Stage, gate: Gate) -> None:
    """The same key, input and options give the same task, also after the first client has gone."""
    await stage.coordinate()
    await stage.join(gated(gate))
    first, second = await stage.client(), await stage.client()
    one, two = await asyncio.gather(
        first.submit(WORK, Text("a"), key="k"), second.submit(WORK, Text("a"), key="k")
    )
    await gate.holds()
    await first.close()
    third = await stage.client()
    three = await third.submit(WORK, Text("a"), key="k")
    gate.open()
    assert {one.id} == {two.id, three.id}
    assert [Text("a 1 gated")] * 2 == [await each.result(timeout=SOON) for each in (two, three)]
    fourth = await third.submit(WORK, Text("a"), key="k")
    assert Text("a 1 gated") == await fourth.result(timeout=SOON)
    assert gate.entered == ["a"]


async def test_key_with_another_input_or_option_is_a_conflict(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    handle = await mesh.submit(WORK, Text("a"), key="k")
    other = await stage.client()
    with pytest.raises(Conflict):
        await other.submit(WORK, Text("b"), key="k")
    with pytest.raises(Conflict):
        await mesh.submit(WORK, Text("a"), key="k", priority="high")
    gate.open()
    await stage.join(gated(gate))
    assert Text("a 1 gated") == await handle.result(timeout=SOON)


async def test_large_payloads_travel_as_blobs_both_ways(mesh: Mesh, stage: Stage, raw: Raw) -> None:
    """Above 256 KiB the entry carries the digest only, and what comes out is what went in."""
    import hashlib
    import json

    agent = Agent("mirror", version="1.0.0")

    @agent.capability("mirror")
    async def mirror(value: Text, ctx: Context) -> Text:
        return Text(value.text[::-1])

    await stage.join(agent)
    text = "".join(chr(97 + n % 26) for n in range(700_000))
    handle = await mesh.submit(mirror, Text(text))
    assert Text(text[::-1]) == await handle.result(timeout=SOON)
    entries = {one.event: json.loads(one.data) for one in await raw.entries(scope_of(handle))}

    def blob_of(whole: str) -> dict[str, object]:
        data = json.dumps({"text": whole}, separators=(",", ":")).encode()
        return {"digest": hashlib.sha256(data).hexdigest(), "size": len(data)}

    assert blob_of(text) == entries["submitted"]["input_blob"]
    assert blob_of(text) == entries["dispatched"]["input_blob"]
    assert blob_of(text[::-1]) == entries["completed"]["output_blob"]
    assert max(len(one.data) for one in await raw.entries(scope_of(handle))) < 4096


async def test_cancel_entry_reaches_the_handler(
    mesh: Mesh, stage: Stage, gate: Gate, raw: Raw
) -> None:
    """What any permitted client appends is consumed, told to the holder, and ended by it."""
    from switchgear import TaskCancelled

    member = await stage.join(gated(gate))
    handle = await mesh.submit(WORK, Text("a"))
    await gate.holds()
    scope = scope_of(handle)
    body = raw.body(scope, "cancel-requested", reason="changed my mind")
    await raw.honest(scope, "cancel-requested", body)
    with pytest.raises(TaskCancelled, match="changed my mind"):
        await handle.result(timeout=SOON)
    assert gate.cancelled == ["a"]
    history = await history_of(mesh, handle)
    assert member.bus.name == history.valid[-1].entry.writer
    assert (await mesh.status(handle.id)).state == "cancelled"


async def test_deadline_of_a_held_task_stops_its_handler(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    from switchgear import TaskExpired

    await stage.join(gated(gate))
    handle = await mesh.submit(WORK, Text("a"), deadline=timedelta(seconds=3))
    await gate.holds()
    with pytest.raises(TaskExpired):
        await handle.result(timeout=SOON)
    assert gate.entered == gate.cancelled == ["a"]


SCRIPT = """
import sys
from datetime import timedelta
from switchgear import connect
with connect(sys.argv[1]) as mesh:
    handles = mesh.submit_many("work", [{"text": str(n)} for n in range(5)], key="batch")
    print(sorted(one.result(timeout=timedelta(seconds=60))["text"] for one in handles))
    print(sum(1 for _ in mesh.as_completed(handles, timeout=timedelta(seconds=60))))
    print([event.event for event in mesh.get(handles[0].id).events()])
    print(mesh.explain(handles[0].id).state, [one.agent for one in mesh.agents().instances])
"""


async def test_script_without_an_event_loop_uses_the_same_mesh(
    mesh: Mesh, stage: Stage, gate: Gate
) -> None:
    gate.open()
    member = await stage.join(gated(gate))
    await until(lambda: _sees(mesh, member.bus.name))
    script = await create_subprocess_exec(
        sys.executable, "-W", "error", "-c", SCRIPT, stage.url, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(2 * PATIENCE):
        said, complaint = await script.communicate()
    assert (script.returncode, complaint) == (0, b"")
    assert said.decode().splitlines() == [
        str([f"{n} 1 gated" for n in range(5)]),
        "5",
        str(EVENTS),
        "completed ['gated']",
    ]
