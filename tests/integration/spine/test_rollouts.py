"""Rollouts on a real server: changed live, taken back at once, seen in the history, counted by the read model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from switchgear import Agent, Context, command
from switchgear.agent.executing import Executing, guarded, planned
from switchgear.agent.worker import Worker
from switchgear.client.mesh import Mesh
from switchgear.contract import entries, subjects
from switchgear.contract.rollout import Decision
from switchgear.errors import RolloutRefused, WaitTimeout
from switchgear.projections.service import observe
from switchgear.server import EmbeddedServer
from switchgear.steps.executor import Health, OnLine, Unsupported
from switchgear.steps.guard import Guards
from switchgear.steps.result import Outcome
from switchgear.steps.rollouts import RolloutTable
from switchgear.steps.runner import Runner
from switchgear.steps.spec import StepSpec
from switchgear.steps.workspace import Workspace
from tests.integration.spine.stage import Gate, Stage, Text, history_of, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


class Fake:
    """An executor that runs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stdout = "fine"
        self.runs = 0
        self.hangs = False

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        del spec

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        del spec
        return ("dagger",) if self.name == "dagger" else ()

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        del spec, on_line, workspace
        self.runs += 1
        if self.hangs:
            await asyncio.Event().wait()
        return Outcome(
            exit_code=0,
            stdout=self.stdout,
            executor=self.name,
            isolation="none",
        )

    async def health(self) -> Health:
        return Health(ok=True)

    async def close(self) -> None:
        return


class Linting:
    """An agent with two executors, whose tasks have two steps with a gate between them."""

    def __init__(self, gate: Gate) -> None:
        self.process, self.dagger = Fake("process"), Fake("dagger")
        self.table: RolloutTable | None = None
        self.agent = Agent("linter", version="1.0.0")

        @self.agent.capability("lint")
        async def lint(value: Text, ctx: Context) -> Text:
            one = await ctx.run("one", command("lint").idempotent())
            await gate(value.text)
            two = await ctx.run("two", command("lint").idempotent())
            return Text(f"{one.executor} {two.executor}")

        @self.agent.capability(
            "hurry", timeout=timedelta(seconds=2), stall_timeout=timedelta(seconds=2)
        )
        async def hurry(value: Text, ctx: Context) -> Text:
            return Text((await ctx.run("one", command("lint").idempotent())).executor + value.text)

    async def join(self, stage: Stage) -> None:
        """Serve, until the stage ends."""
        bus = await stage.bus("linter", "linter")
        self.table = table = RolloutTable(bus.documents)
        runner = planned([self.process, self.dagger], None, table)
        worker = Worker(self.agent, bus, run_command=Executing(lambda: runner))
        stage.leave(table.close)
        stage.leave(worker.stop)
        await worker.start()

    async def join_guarded(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[Guards]:
        """Serve behind breakers, as an agent does by itself; they are there when a step has run."""
        given: list[Guards] = []

        def made(guards: Guards, rollouts: RolloutTable) -> Runner:
            given.append(guards)
            return planned([self.process, self.dagger], guarded(guards), rollouts)

        monkeypatch.setattr("switchgear.agent.executing.composed", made)
        worker = Worker(self.agent, await stage.bus("linter", "linter"))
        stage.leave(worker.stop)
        await worker.start()
        return given

    async def knows(self, mode: str | None, pattern: str = "*", capability: str = "lint") -> None:
        """Wait until the agent has heard of it."""

        async def heard() -> bool:
            assert self.table is not None
            found = await self.table.find(capability)
            rule = None if found is None else found.rules.get(pattern)
            return (None if rule is None else rule.mode) == mode

        await until(heard)


@pytest.fixture
def open_gate(gate: Gate) -> Gate:
    gate.open()
    return gate


@pytest_asyncio.fixture
async def linting(stage: Stage, mesh: Mesh, gate: Gate) -> Linting:
    made = Linting(gate)
    await made.join(stage)
    return made


@pytest_asyncio.fixture
async def observed(stage: Stage, mesh: Mesh, tmp_path: Path) -> AsyncIterator[Mesh]:
    """The mesh with a read model."""
    ready = asyncio.Event()
    bus = await stage.bus("observe", "observe")
    model = asyncio.create_task(observe(bus, tmp_path / "model.sqlite", ready=ready.set))
    await ready.wait()
    yield mesh
    model.cancel()
    await asyncio.gather(model, return_exceptions=True)


async def decisions(mesh: Mesh, handle: Any) -> list[Decision | None]:
    """Of the task's steps, in order."""
    history = await history_of(mesh, handle)
    return [
        valid.entry.decision
        for valid in history.valid
        if isinstance(valid.entry, entries.Checkpoint)
    ]


async def test_a_change_holds_from_the_next_step_and_back_takes_it_back_at_once(
    mesh: Mesh, linting: Linting, gate: Gate
) -> None:
    """Also for tasks that are under way: nobody is started anew."""
    first = await mesh.submit("lint", Text("a"))
    await gate.holds(1)
    await mesh.rollouts.set("lint", "dagger", why="trying")
    await linting.knows("dagger")
    gate.open()
    assert await first.result() == {"text": "process dagger"}
    assert await mesh.call("lint", Text("b")) == {"text": "dagger dagger"}
    gate.shut()
    last = await mesh.submit("lint", Text("c"))
    await gate.holds(3)
    await mesh.rollouts.back("lint")
    await linting.knows(None)
    gate.open()
    assert await last.result() == {"text": "dagger process"}

    [before, after] = await decisions(mesh, first)
    assert before is None
    assert after is not None
    assert (after.executor, after.mode, after.rule) == ("dagger", "dagger", "*")
    [rollout] = await mesh.rollouts.list()
    assert rollout.rules == {}
    assert (rollout.before["*"].by, rollout.before["*"].why) == (mesh.principal, "trying")


async def test_to_go_back_serves_tasks_at_once_although_the_engine_is_away(
    stage: Stage, mesh: Mesh, open_gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its attempts needed before the change keeps no task from being pulled."""
    linting = Linting(open_gate)
    given = await linting.join_guarded(stage, monkeypatch)
    await mesh.rollouts.set("lint", "dagger")
    assert await mesh.call("lint", Text("a")) == {"text": "dagger dagger"}
    given[0].command("dagger", "open", "ada", "it is away")
    handle = await mesh.submit("lint", Text("b"))
    with pytest.raises(WaitTimeout):
        await handle.result(timeout=timedelta(seconds=0.5))
    await mesh.rollouts.set("lint", "process")
    assert await handle.result(timeout=timedelta(seconds=PATIENCE)) == {"text": "process process"}


async def test_a_percentage_divides_the_tasks_as_it_says_they_are(
    mesh: Mesh, linting: Linting, open_gate: Gate
) -> None:
    """Both steps of a task on the same side; a task that was on dagger at 30 % is there at 70 %."""
    from switchgear.resilience.rollout import place

    await mesh.rollouts.set("lint", "percent", percent=30)
    await linting.knows("percent")
    handles = [await mesh.submit("lint", Text(str(number))) for number in range(20)]
    for handle in handles:
        where = "dagger" if place(handle.id) < 30 else "process"
        assert await handle.result() == {"text": f"{where} {where}"}
        for decision in await decisions(mesh, handle):
            assert decision is not None
            assert decision.why.startswith("30 % of the tasks run on dagger, this one is at ")


async def test_a_step_may_have_a_rule_of_its_own(
    mesh: Mesh, linting: Linting, open_gate: Gate
) -> None:
    await mesh.rollouts.set("lint", "dagger", step="two")
    await linting.knows("dagger", "two")
    assert await mesh.call("lint", Text("a")) == {"text": "process dagger"}


async def test_the_report_says_when_a_capability_is_ready(
    observed: Mesh, linting: Linting, open_gate: Gate
) -> None:
    """Enough runs, no difference, fast enough; a change begins anew."""
    await observed.rollouts.set("lint", "shadow")
    await linting.knows("shadow")
    for number in range(2):
        assert await observed.call("lint", Text(str(number))) == {"text": "process process"}
    assert linting.dagger.runs == linting.process.runs == 4

    async def ready() -> bool:
        [report] = await observed.rollouts.report("lint", runs=4, ratio=1e6)
        return report.ready

    await until(ready)
    [report] = await observed.rollouts.report("lint", runs=4)
    assert (report.counts.compared, report.counts.same) == (4, 4)
    assert report.counts.ratio is not None
    [late] = await observed.rollouts.report("lint", runs=5, ratio=report.counts.ratio / 2)
    assert not late.ready
    assert len(late.missing) == 2

    linting.dagger.stdout = "odd"
    handle = await observed.submit("lint", Text("odd"))
    await handle.result()
    events = [one.detail async for one in handle.events() if one.event == "checkpoint"]
    assert any("shadow: ran on process; dagger differs in stdout" in one for one in events)

    async def seen() -> bool:
        [report] = await observed.rollouts.report("lint", runs=4)
        return report.counts.compared == 6

    await until(seen)
    [report] = await observed.rollouts.report("lint", runs=4)
    assert not report.ready
    assert report.counts.differences == {"stdout": 2}
    assert report.counts.examples == (handle.id,)
    moments = (await observed.timeline(handle.id)).moments
    assert any("dagger differs in stdout" in one.detail for one in moments)

    await observed.rollouts.set("lint", "shadow", why="mended")
    [report] = await observed.rollouts.report("lint", runs=4)
    assert report.counts.decisions == 0


async def test_a_shadow_that_hangs_takes_nothing_of_the_time_that_a_task_has(
    mesh: Mesh, linting: Linting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its timeout nor its stall: without the shadow it would have ended in time, so it does with it."""
    monkeypatch.setattr("switchgear.steps.rollout.LEAST_PATIENCE", timedelta(seconds=4))
    linting.dagger.hangs = True
    await mesh.rollouts.set("hurry", "shadow")
    await linting.knows("shadow", capability="hurry")
    handle = await mesh.submit("hurry", Text(""))
    assert await handle.result() == {"text": "process"}
    [decision] = await decisions(mesh, handle)
    assert decision is not None
    assert decision.comparison is not None
    assert decision.comparison.skipped == "it took too long beside the run that served"


async def test_a_shadow_leaves_a_task_with_a_deadline_half_of_its_time(
    mesh: Mesh, linting: Linting
) -> None:
    linting.dagger.hangs = True
    await mesh.rollouts.set("hurry", "shadow")
    await linting.knows("shadow", capability="hurry")
    handle = await mesh.submit("hurry", Text(""), deadline=timedelta(seconds=6))
    assert await handle.result() == {"text": "process"}


async def test_changes_that_come_together_all_stand(mesh: Mesh) -> None:
    """Each is stored in place of what it read."""
    steps = [f"step{number}" for number in range(8)]
    await asyncio.gather(*(mesh.rollouts.set("lint", "dagger", step=step) for step in steps))
    [rollout] = await mesh.rollouts.list("lint")
    assert sorted(rollout.rules) == steps


async def test_what_makes_no_sense_is_refused_with_its_code(mesh: Mesh) -> None:
    with pytest.raises(RolloutRefused, match="SG1521"):
        await mesh.rollouts.back("lint")
    with pytest.raises(RolloutRefused, match="percentage"):
        await mesh.rollouts.set("lint", "percent")
    with pytest.raises(RolloutRefused, match="percentage"):
        await mesh.rollouts.set("lint", "percent", percent=101)
    with pytest.raises(RolloutRefused, match="dagger is for all tasks"):
        await mesh.rollouts.set("lint", "dagger", percent=5)
    await mesh.rollouts.set("lint", "dagger")
    await mesh.rollouts.remove("lint")
    assert await mesh.rollouts.list("other") == []


async def test_rules_outlast_a_restart_of_the_broker(
    mesh: Mesh, linting: Linting, open_gate: Gate, server: EmbeddedServer
) -> None:
    """An agent goes on by what it knew, and hears of changes again afterwards."""
    await mesh.rollouts.set("lint", "dagger")
    await linting.knows("dagger")
    server.kill()
    await server.restart()
    assert await mesh.call("lint", Text("a")) == {"text": "dagger dagger"}
    await mesh.rollouts.back("lint")
    await linting.knows(None)
    assert await mesh.call("lint", Text("b")) == {"text": "process process"}


async def test_a_document_that_cannot_be_read_changes_nothing(
    mesh: Mesh, linting: Linting, open_gate: Gate
) -> None:
    await mesh.rollouts.set("lint", "dagger")
    await linting.knows("dagger")
    await mesh.bus.documents.put(subjects.rollout("lint"), b'{"capability":"lint","rules":7}')
    await mesh.bus.documents.put(subjects.rollout("other"), b'{"capability":"x","rules":{}}')
    assert await mesh.call("lint", Text("a")) == {"text": "dagger dagger"}
    assert await mesh.rollouts.list() == []
