"""What a coordinator refuses, where it routes, and what it waits for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import pytest

from switchgear import Agent, Capability, Context, Retry, TaskDead, TaskRejected
from switchgear.contract.stored import expect_headers, header_block
from tests.unit.agent.stage import Number, Text, stage


class Bounded(msgspec.Struct):
    """An input with what JSON Schema can tell."""

    names: list[Annotated[str, msgspec.Meta(min_length=1)]]
    depth: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0


class Even(msgspec.Struct):
    """An input with what no schema can tell."""

    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("it must be even")


def worker(name: str = "worker", *, version: str = "1.0.0", **labels: str) -> Agent:
    agent = Agent(name, version=version, labels=labels)

    @agent.capability("where")
    async def where(value: Number, ctx: Context) -> Text:
        return Text(f"{name} {version}")

    return agent


def strict() -> tuple[Agent, list[Any]]:
    agent = Agent("strict", version="1.0.0")
    ran: list[Any] = []

    @agent.capability("bounded")
    async def bounded(value: Bounded, ctx: Context) -> None:
        ran.append(value)

    @agent.capability("even")
    async def even(value: Even, ctx: Context) -> None:
        ran.append(value)

    return agent, ran


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"names": ["a", ""]}, "$.names[1]"),
        ({"names": ["a"], "depth": 9}, "$.depth"),
        ({"names": ["a"], "depth": "1"}, "$.depth"),
        ({}, "$"),
        ([], "$"),
        (None, "$"),
    ],
)
async def test_input_that_violates_the_schema_is_rejected_at_admission(
    value: Any, path: str
) -> None:
    """SG1203 with the path of the bad field; the handler never sees it."""
    agent, ran = strict()
    async with stage(agent) as on:
        handle = await on.mesh.submit("bounded", value)
        with pytest.raises(TaskRejected) as caught:
            await handle.result()
        assert caught.value.cause_code == "SG1203"
        assert on.events(handle.id) == ["submitted", "rejected"]
        assert getattr(on.history(handle.id).end, "path", "") == path
    assert ran == []


async def test_input_that_only_the_agent_can_check_is_a_permanent_failure() -> None:
    """InvalidInput: dead after one attempt, with the reason."""
    agent, ran = strict()
    async with stage(agent) as on:
        with pytest.raises(TaskDead, match="must be even") as caught:
            await on.mesh.call("even", {"n": 3})
        assert (caught.value.cause_code, caught.value.error_class) == ("SG1507", "invalid")
        await on.mesh.call("even", {"n": 2})
    assert ran == [Even(2)]


async def test_blob_input_is_checked_like_any_other() -> None:
    """A large input that violates the schema is rejected too."""
    agent, ran = strict()
    async with stage(agent) as on:
        with pytest.raises(TaskRejected) as caught:
            await on.mesh.call("bounded", {"names": ["x" * 300_000], "depth": -1})
        assert caught.value.cause_code == "SG1203"
        await on.mesh.call("bounded", {"names": ["x" * 300_000]})
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"priority": "urgent"}, "SG1201"),
        ({"deadline": timedelta(seconds=-1)}, "SG1202"),
        ({"retry": Retry(max_attempts=0)}, "SG1209"),
        ({"retry": Retry(factor=0.5)}, "SG1209"),
    ],
)
async def test_options_that_cannot_be_kept_are_rejected(options: Any, code: str) -> None:
    """With the code of what is wrong, before anybody runs it."""
    async with stage(worker()) as on:
        with pytest.raises(TaskRejected) as caught:
            await (await on.mesh.submit("where", Number(1), **options)).result()
        assert caught.value.cause_code == code


async def test_version_that_is_no_range_is_rejected() -> None:
    """SG1206 says how to write one."""
    async with stage(worker()) as on:
        wanted = Capability("where", Number, Text, version="newest, please")
        with pytest.raises(TaskRejected) as caught:
            await on.mesh.call(wanted, Number(1))
        assert caught.value.cause_code == "SG1206"


async def test_require_agent_rejects_what_nobody_offers() -> None:
    """Once the reader has settled, at once; SG1204 says what to do."""
    async with stage(worker()) as on:
        handle = await on.mesh.submit("nobody", Number(1), require_agent=True)
        with pytest.raises(TaskRejected) as caught:
            await handle.result(timeout=timedelta(seconds=1))
        assert caught.value.cause_code == "SG1204"
        assert await on.mesh.call("where", Number(1)) == {"text": "worker 1.0.0"}


@pytest.mark.parametrize(
    ("version", "expected"),
    [("*", "b 2.1.0"), ("1.2", "a 1.2.7"), (">=1,<2", "a 1.2.7"), ("==2.1.0", "b 2.1.0")],
)
async def test_newest_version_in_the_range_is_chosen(version: str, expected: str) -> None:
    """Of several agents the newest that fits runs the task."""
    async with stage(worker("a", version="1.2.7"), worker("b", version="2.1.0")) as on:
        wanted = Capability("where", Number, Text, version=version)
        assert await on.mesh.call(wanted, Number(1)) == Text(expected)


async def test_labels_choose_the_agent() -> None:
    """Only an agent with all labels runs it; the decision tells why others did not."""
    async with stage(worker("cpu"), worker("gpu", device="gpu", zone="a")) as on:
        handle = await on.mesh.submit("where", Number(1), labels={"device": "gpu"})
        assert await handle.result() == {"text": "gpu 1.0.0"}
        told = await on.mesh.explain(handle.id)
        assert told.route is not None
        refused = {one.refused for one in told.route.candidates}
        assert "label device is missing, not gpu" in refused


async def test_task_without_an_agent_waits_and_says_so() -> None:
    """It waits for capacity; `explain` says that nobody offers it, and who did last."""
    async with stage() as on:
        handle = await on.mesh.submit("where", Number(1))
        await on.reach(handle.id, "waiting")
        told = await on.mesh.explain(handle.id)
        assert "nobody offers" in told.sentences[-1]
        member = await on.join(worker())
        await handle.result()
        await member.worker.stop()
        later = await on.mesh.submit("where", Number(2))
        await on.reach(later.id, "waiting")
        told = await on.mesh.explain(later.id)
        assert f"last offered by worker 1.0.0 ({member.bus.name})" in told.sentences[-1]
        assert (await later.status()).state == "waiting"


async def test_new_agent_wakes_those_who_wait_at_once() -> None:
    """All tasks of the capability start when the first instance is announced, not at the re-check."""
    async with stage() as on:
        tasks = await on.mesh.submit_many("where", [Number(n) for n in range(20)])
        await asyncio.sleep(1000)
        joined = on.site.clock.now()
        await on.join(worker())
        for task in tasks:
            assert await task.result() == {"text": "worker 1.0.0"}
        assert on.site.clock.now() - joined < timedelta(seconds=1)
        assert on.events(tasks[0].id) == ["submitted", "waiting", "dispatched", "completed"]


async def test_agent_that_does_not_fit_wakes_nobody_for_good() -> None:
    """A task that asks for a label goes on waiting until one with it comes."""
    async with stage() as on:
        handle = await on.mesh.submit("where", Number(1), labels={"device": "gpu"})
        await on.reach(handle.id, "waiting")
        await on.join(worker())
        await asyncio.sleep(100)
        assert on.events(handle.id) == ["submitted", "waiting"]
        told = await on.mesh.explain(handle.id)
        assert "Waiting" in told.sentences[-1]
        await on.join(worker("gpu", device="gpu"))
        assert await handle.result() == {"text": "gpu 1.0.0"}


async def test_lane_whose_pool_is_gone_is_emptied() -> None:
    """What a vanished version left in its lane goes to another after a minute."""
    async with stage() as on:
        old = await on.join(worker(version="1.0.0"))
        await asyncio.sleep(1)
        await on.site.crash(old)
        tasks = await on.mesh.submit_many("where", [Number(n) for n in range(3)])
        for task in tasks:
            await on.reach(task.id, "dispatched")
        await on.join(worker(version="2.0.0"))
        for task in tasks:
            assert await task.result() == {"text": "worker 2.0.0"}
            assert on.events(task.id) == ["submitted", "dispatched", "dispatched", "completed"]
            assert on.history(task.id).crashes == 0


async def test_waiting_task_expires_at_its_deadline() -> None:
    """A task that nobody ever offers to run ends at its deadline."""
    async with stage() as on:
        handle = await on.mesh.submit("where", Number(1), deadline=timedelta(hours=2))
        await handle.ended()
        assert on.events(handle.id)[-1] == "expired"
        assert on.site.clock.now() - (await handle.status()).submitted_at < timedelta(hours=3)


async def test_unreadable_submission_is_rejected_so_that_its_sender_hears_it() -> None:
    """Bytes that are no entry, but rightly appended, end as rejected with SG1205."""
    async with stage(worker()) as on:
        for n, data in enumerate([b"\xff", b"[" * 100_000, b'{"v":2}', b"{}"]):
            scope = f"sg.task.where.alice.bad{n}.>"
            headers = header_block(expect_headers(0, scope))
            on.site.broker.store(f"{scope[:-1]}submitted", headers, data)
            handle = await on.mesh.get(f"bad{n}")
            with pytest.raises(TaskRejected) as caught:
                await handle.result()
            assert caught.value.cause_code == "SG1205"
        assert await on.mesh.call("where", Number(1)) == {"text": "worker 1.0.0"}


async def test_child_below_the_depth_limit_is_rejected() -> None:
    """A chain of calls ends at its ninth level, instead of never."""
    agent = Agent("deep", version="1.0.0")
    levels: list[str] = []

    @agent.capability("down", calls=["down"], concurrency=20)
    async def down(value: Number, ctx: Context) -> None:
        levels.append(ctx.task.id)
        await ctx.call("down", value)

    async with stage(agent) as on:
        with pytest.raises(TaskDead, match="SG1208"):
            await on.mesh.call(down, Number(1))
    assert len(levels) == 9
