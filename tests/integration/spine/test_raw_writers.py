"""Raw writers at every state of a task: whatever they append, it ends as it should, once, for every reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchgear import (
    Agent,
    Context,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskFailed,
    TaskHandle,
    TaskRejected,
)
from switchgear.client.mesh import Mesh
from switchgear.errors import Permanent, Retryable
from switchgear.lifecycle.history import History
from tests.integration.spine.attacks import Target, attack
from tests.integration.spine.rawwriter import Raw
from tests.integration.spine.stage import (
    SOON,
    Gate,
    Replica,
    Stage,
    Text,
    history_of,
    reach,
    scope_of,
    until,
)

pytestmark = pytest.mark.integration


@dataclass
class Scene:
    """A task that is being brought into a state."""

    stage: Stage
    mesh: Mesh
    raw: Raw
    gate: Gate
    runs: list[int] = field(default_factory=list[int])
    replica: Replica | None = None

    def agent(self, name: str = "worker") -> Agent:
        """An agent whose first attempt fails where the input says so."""
        agent = Agent(name, version="1.0.0")

        @agent.capability("work")
        async def work(value: Text, ctx: Context) -> Text:
            self.runs.append(ctx.attempt)
            await self.gate(value.text)
            if value.text == "fails once" and ctx.attempt == 1:
                raise Retryable("not yet")
            if value.text == "fails":
                raise Permanent("never")
            return Text(f"{value.text}, attempt {ctx.attempt}")

        assert work.name == "work"
        return agent

    async def coordinate(self) -> None:
        """Start a coordinator."""
        self.replica = await self.stage.coordinate()

    async def nobody_coordinates(self) -> None:
        """Stop it: the task stays in its state."""
        assert self.replica is not None
        await self.replica.stop()

    async def submit(self, text: str, **options: Any) -> TaskHandle[Text]:
        """Submit the task."""
        return await self.mesh.submit("work", Text(text), **options)

    async def cancel(self, handle: TaskHandle[Any]) -> None:
        """Cancel it, as a permitted client does."""
        scope = scope_of(handle)
        body = self.raw.body(scope, "cancel-requested", reason="enough")
        await self.raw.honest(scope, "cancel-requested", body)


Finish = Callable[[], Awaitable[object]]
State = Callable[[Scene], Awaitable[tuple[TaskHandle[Text], Finish]]]


async def nothing() -> None:
    """The task has ended already."""


async def queued(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """Just submitted: no coordinator has seen it."""
    await scene.stage.join(scene.agent())
    scene.gate.open()
    return await scene.submit("a"), scene.coordinate


async def capacity(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """Nobody offers it yet."""
    await scene.coordinate()
    handle = await scene.submit("a")
    await reach(handle, "waiting")
    scene.gate.open()
    return handle, lambda: scene.stage.join(scene.agent())


async def held(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """An agent runs it."""
    await scene.coordinate()
    await scene.stage.join(scene.agent())
    handle = await scene.submit("a")
    await scene.gate.holds()

    async def finish() -> None:
        scene.gate.open()

    return handle, finish


async def loose(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """Its holder has handed it back, nobody has taken it yet."""
    await scene.coordinate()
    member = await scene.stage.join(scene.agent())
    handle = await scene.submit("a")
    await scene.gate.holds()
    await member.worker.stop()
    scene.gate.open()
    return handle, lambda: scene.stage.join(scene.agent())


async def failed(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """Its first attempt has failed, no coordinator has seen that."""
    await scene.coordinate()
    await scene.stage.join(scene.agent())
    handle = await scene.submit("fails once")
    await scene.gate.holds()
    await scene.nobody_coordinates()
    scene.gate.open()
    await reach(handle, "attempt-failed")
    return handle, scene.coordinate


async def waiting(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It waits for a moment, by an entry such as coordinators will append."""
    handle, _ = await failed(scene)
    until = datetime.now(UTC) + timedelta(milliseconds=500)
    scope = scope_of(handle)
    body = scene.raw.body(scope, "waiting", reason="timer", until=until.isoformat())
    await scene.raw.honest(scope, "waiting", body)
    return handle, scene.coordinate


async def cancelling_held(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It shall end, and its holder has not been told."""
    handle, _ = await held(scene)
    await scene.nobody_coordinates()
    await scene.cancel(handle)
    return handle, scene.coordinate


async def cancelling_unheld(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It shall end, and nobody has seen that yet."""
    handle = await scene.submit("a")
    await scene.cancel(handle)
    return handle, scene.coordinate


async def completed(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It has a result."""
    handle, finish = await held(scene)
    await finish()
    await handle.result(timeout=SOON)
    return handle, nothing


async def rejected(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It was refused."""
    await scene.coordinate()
    return await ended(await scene.submit("a", priority="urgent"))


async def dead(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It failed for good."""
    await scene.coordinate()
    await scene.stage.join(scene.agent())
    scene.gate.open()
    return await ended(await scene.submit("fails"))


async def cancelled(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """It was cancelled before it ran."""
    await scene.coordinate()
    handle = await scene.submit("a")
    await reach(handle, "waiting")
    await scene.cancel(handle)
    return await ended(handle)


async def expired(scene: Scene) -> tuple[TaskHandle[Text], Finish]:
    """Its deadline passed before it ran."""
    await scene.coordinate()
    return await ended(await scene.submit("a", deadline=timedelta(milliseconds=300)))


async def ended(handle: TaskHandle[Text]) -> tuple[TaskHandle[Text], Finish]:
    """Wait for an end that is no result."""
    with pytest.raises(TaskFailed):
        await handle.result(timeout=SOON)
    return handle, nothing


FIRST, SECOND = {"text": "a, attempt 1"}, {"text": "fails once, attempt 2"}
STATES: list[tuple[State, object, list[int]]] = [
    (queued, FIRST, [1]),
    (capacity, FIRST, [1]),
    (held, FIRST, [1]),
    (loose, FIRST, [1, 1]),
    (failed, SECOND, [1, 2]),
    (waiting, SECOND, [1, 2]),
    (cancelling_held, TaskCancelled, [1]),
    (cancelling_unheld, TaskCancelled, []),
    (completed, FIRST, [1]),
    (rejected, TaskRejected, []),
    (dead, TaskDead, [1]),
    (cancelled, TaskCancelled, []),
    (expired, TaskExpired, []),
]
"""How to get there, how the task is to end, and which attempts are to run."""


async def outcome(handle: TaskHandle[Any]) -> object:
    """The result, or the kind of failure."""
    try:
        return await handle.result(object, timeout=SOON)
    except TaskFailed as error:
        return type(error)


def target(handle: TaskHandle[Text], history: History) -> Target:
    """What a raw writer can know of the task."""
    hold = history.hold or history.dispatched_at
    return Target(scope_of(handle), hold, history.attempt, history.ended is not None)


@pytest.mark.parametrize(
    ("state", "expected", "attempts"), STATES, ids=[state.__name__ for state, *_ in STATES]
)
async def test_raw_entries_change_nothing(
    stage: Stage,
    raw: Raw,
    gate: Gate,
    state: State,
    expected: object,
    attempts: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The task ends the same way, for who watches and for who comes later; every void entry is told."""
    scene = Scene(stage, await stage.client(), raw, gate)
    handle, finish = await state(scene)
    before = [one.stored.sequence for one in (await history_of(scene.mesh, handle)).valid]
    written = await attack(raw, target(handle, await history_of(scene.mesh, handle)))
    after = await history_of(scene.mesh, handle)
    assert before == [one.stored.sequence for one in after.valid]
    assert handle.id == (await handle.status()).id
    await finish()
    assert expected == await outcome(handle)
    later = await stage.client()
    assert expected == await outcome(await later.get(handle.id))
    assert attempts == scene.runs
    told = (await later.explain(handle.id)).voids if scene.replica else ()
    assert sorted(written) == [int(one.split()[1].rstrip(":")) for one in told]
    events = [event.sequence async for event in (await later.get(handle.id)).events()]
    assert set() == set(events) & set(written)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


async def test_forged_dispatch_in_the_holders_lane_is_not_run(
    stage: Stage, raw: Raw, gate: Gate
) -> None:
    """An honest append of an attempt that does not follow: its holder gets it, reads, and drops it."""
    scene = Scene(stage, await stage.client(), raw, gate)
    handle, finish = await held(scene)
    (lane,) = [
        one.subject for one in await raw.entries(scope_of(handle)) if one.event == "dispatched"
    ]
    event = lane.removeprefix(scope_of(handle)[:-1])
    name = f"lane=work={event.split('.')[1]}=normal"
    await raw.honest(scope_of(handle), event, raw.body(scope_of(handle), event))

    async def settled() -> bool:
        count = await raw.consumer("SG_LEDGER", name)
        return (count["num_pending"], count["num_ack_pending"]) == (0, 1)

    await until(settled)
    await finish()
    assert await outcome(handle) == FIRST
    assert gate.entered == ["a"]
    assert len((await scene.mesh.explain(handle.id)).voids) == 1
