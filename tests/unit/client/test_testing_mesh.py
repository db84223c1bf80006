"""`switchgear.testing`: virtual time, fakes, and what a test mesh does otherwise than a real one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from switchgear import (
    Agent,
    Capability,
    Context,
    Permanent,
    StepFailed,
    TaskDead,
    TaskRejected,
    UsageError,
    command,
    testing,
)
from switchgear.steps import runner
from switchgear.steps.executor import Asked
from switchgear.testing import virtual_time
from tests.patience import PATIENCE
from tests.unit.agent.stage import Number, Text
from tests.unit.steps.sandboxes import needs_sandbox

search = Capability("search", Text, Number)


def asker() -> Agent:
    agent = Agent("asker", version="1.0.0")

    @agent.capability("ask", calls=[search])
    async def ask(value: Text, ctx: Context) -> Number:
        return await ctx.call(search, value)

    @agent.capability("run")
    async def run(value: Text, ctx: Context) -> Text:
        result = await ctx.run("tool", command("echo", value.text).expect(0, 2))
        return Text(f"{result.exit_code} {result.stdout}{result.stderr}")

    return agent


async def test_hours_pass_in_no_time_and_time_never_runs_back() -> None:
    """A handler may sleep for a day; afterwards the loop's clock goes on from there."""
    agent = Agent("sleeper", version="1.0.0")

    @agent.capability("sleep", timeout=None)
    async def sleep(value: Number, ctx: Context) -> Number:
        await asyncio.sleep(value.n)
        return value

    loop = asyncio.get_running_loop()
    before = loop.time()
    async with testing.mesh(agent) as mesh:
        handle = await mesh.submit(sleep, Number(7200))
        await handle.result()
        row = await handle.status()
        assert row.updated_at - row.submitted_at == timedelta(hours=2)
    assert loop.time() - before >= 7200  # which the test's own time limit allows only virtually
    after = loop.time()
    await asyncio.sleep(0.01)
    assert 0.01 <= loop.time() - after < PATIENCE


async def test_time_waits_for_threads_and_processes() -> None:
    """What really runs is not overtaken by timeouts that are longer than it takes."""
    async with testing.mesh():
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(time.sleep, 0.1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print('done')", stdout=subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            out, _ = await process.communicate()
        assert out == b"done\n"
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.to_thread(threading.Event().wait, 0.2)
        assert 0.04 < loop.time() - before < PATIENCE


async def test_meshes_may_overlap() -> None:
    """Time stays virtual until the last one ends, and they know nothing of each other."""
    async with testing.mesh(asker()) as one:
        async with testing.mesh(asker()) as two:
            one.fake(search, returns=Number(1))
            two.fake(search, returns=Number(2))
            assert await one.call("ask", Text("x")) == {"n": 1}
            assert await two.call("ask", Text("x")) == {"n": 2}
        await asyncio.sleep(3600)
        assert await one.call("ask", Text("x")) == {"n": 1}


async def test_what_nobody_offers_fails_at_once() -> None:
    """TaskRejected names the capability and how to fake it; no virtual time passes."""
    async with testing.mesh(asker()) as mesh:
        began = mesh.site.clock.now()
        with pytest.raises(TaskRejected) as caught:
            await mesh.call("serach", Text("x"))
        assert caught.value.cause_code == "SG1204"
        assert "serach" in caught.value.what
        assert "mesh.fake('serach', returns=…)" in caught.value.fix
        assert mesh.site.clock.now() == began


async def test_fake_gives_a_value_or_what_a_function_makes_of_the_input() -> None:
    """Plain, async and raising functions; the latest fake counts, also when one runs already."""

    def length(value: Text) -> Number:
        return Number(len(value.text))

    async def later(value: Text) -> Number:
        await asyncio.sleep(60)
        return Number(len(value.text))

    def refuse(value: Text) -> Number:
        raise Permanent(f"no {value.text}")

    async with testing.mesh(asker()) as mesh:
        mesh.fake(search, returns=Number(5))
        assert await mesh.call(search, Text("x")) == Number(5)
        assert await mesh.call("ask", Text("x")) == {"n": 5}
        mesh.fake(search, returns=length)
        assert await mesh.call("ask", Text("four")) == {"n": 4}
        mesh.fake(search, returns=later)
        assert await mesh.call("ask", Text("seven..")) == {"n": 7}
        mesh.fake("search", returns=refuse)
        with pytest.raises(TaskDead, match="no way"):
            await mesh.call("ask", Text("way"))


async def test_fake_that_comes_after_the_start_is_used() -> None:
    """A fake may be set while tasks run."""
    async with testing.mesh(asker()) as mesh:
        assert await mesh.call("run", Text("x")) == {"text": "0 x\n"}
        mesh.fake(search, returns=Number(1))
        assert await mesh.call("ask", Text("x")) == {"n": 1}


@pytest.mark.parametrize("version", ["*", "2", "2.3", ">=1.2,<2", "==3.1.4", ">4", "!=1.0.0"])
async def test_fake_has_a_version_that_the_caller_accepts(version: str) -> None:
    """Whatever range the reference asks for, its fake is inside."""
    wanted = Capability("search", Text, Number, version=version)
    async with testing.mesh() as mesh:
        mesh.fake(wanted, returns=Number(1))
        assert await mesh.call(wanted, Text("x")) == Number(1)


async def test_fake_of_another_type_is_refused_at_once() -> None:
    """Not when the task runs, but where the test is wrong."""
    async with testing.mesh(asker()) as mesh:
        with pytest.raises(UsageError, match="the fake of search"):
            mesh.fake(search, returns=Text("x"))
        with pytest.raises(UsageError, match="the fake of ask"):
            mesh.fake("ask", returns="x")


async def test_fake_stands_in_for_an_agents_own_capability_in_this_mesh_only() -> None:
    """The declared agent is not changed."""
    agent = asker()
    async with testing.mesh(agent) as mesh:
        mesh.fake("run", returns=Text("faked"))
        assert await mesh.call("run", Text("x")) == {"text": "faked"}
    async with testing.mesh(agent) as mesh:
        assert await mesh.call("run", Text("x")) == {"text": "0 x\n"}


async def test_fake_run_ends_as_told() -> None:
    """Expected exit codes give a result; the command is not run."""
    async with testing.mesh(asker()) as mesh:
        mesh.fake_run("tool", stdout="out", exit_code=2, stderr="err")
        assert await mesh.call("run", Text("x")) == {"text": "2 outerr"}


@needs_sandbox
async def test_fake_run_fails_as_the_real_runner_does() -> None:
    """An unexpected exit code gives the same StepFailed, field by field, but for where it ran: nowhere."""
    spec = command("sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(StepFailed) as real:
        await runner.run(spec, key="tool")
    async with testing.mesh() as mesh:
        mesh.fake_run("tool", stdout="out\n", exit_code=3, stderr="err\n")
        with pytest.raises(StepFailed) as fake:
            await mesh.site.runs(Asked(spec, "tool"), lambda _, __: None, mesh.site.bus("x").blobs)
    assert vars(fake.value) | {"executor": "process", "isolation": real.value.isolation} == vars(
        real.value
    )


async def test_replace_of_an_unknown_resource_is_refused() -> None:
    """The resource belongs to none of the mesh's agents."""
    other = Agent("other", version="1.0.0")

    @other.resource
    async def client() -> AsyncIterator[int]:
        yield 1

    async with testing.mesh(asker()) as mesh:
        with pytest.raises(UsageError, match="client"):
            mesh.replace(client, 2)


async def test_same_seed_gives_the_same_ids_and_times() -> None:
    """Two runs of one test see the same ledger, another seed gives other ids."""

    async def ledger(seed: int) -> list[tuple[str, int]]:
        async with testing.mesh(asker(), seed=seed) as mesh:
            mesh.fake(search, returns=Number(5))
            await mesh.call("ask", Text("x"))
            tasks = await mesh.submit_many("ask", [Text("y")] * 5)
            for task in tasks:
                await task.result()
            stored = mesh.site.broker.ledger.beyond(0)
            return [(one.subject, one.time_ns) for one in stored]

    first = await ledger(1)
    assert first == await ledger(1)
    assert first != await ledger(2)


async def test_lists_and_timelines_are_complete() -> None:
    """The read model is asked only when it has read all there is."""
    async with testing.mesh(asker()) as mesh:
        mesh.fake(search, returns=Number(5))
        handle = await mesh.submit("ask", Text("x"))
        await handle.result()
        found = await mesh.list()
        assert [(row.capability, row.state) for row in found.tasks] == [
            ("search", "completed"),
            ("ask", "completed"),
        ]
        timeline = await mesh.timeline(handle.id)
        assert len(timeline.moments) == 7
        assert found.lag == 0


async def test_mesh_that_is_left_early_leaves_nothing_running() -> None:
    """A test may end while handlers run: they are stopped, and no task of the loop is left."""
    agent = Agent("sleeper", version="1.0.0")
    stopped: list[int] = []

    @agent.capability("sleep", timeout=None)
    async def sleep(value: Number, ctx: Context) -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            stopped.append(value.n)

    before = asyncio.all_tasks()
    async with testing.mesh(agent) as mesh:
        await mesh.submit(sleep, Number(1))
        await asyncio.sleep(60)
    assert stopped == [1]
    assert asyncio.all_tasks() == before


async def test_loop_that_cannot_be_patched_is_refused() -> None:
    """There is no selector to wait in: the error says what to use."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        with pytest.raises(UsageError, match="virtual time"):
            virtual_time.VirtualTime(loop)
    finally:
        loop.close()


def test_missing_packages_are_named() -> None:
    """Without what the coordinator needs, the import says which extra has it."""
    script = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from switchgear import ExtraMissing\n"
        "try:\n    import switchgear.testing\n"
        "except ExtraMissing as error:\n    print(error.fix)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert out == "pip install 'switchgear[testing]'\n"
