"""`mesh.faults`, `advance`, `runs`, `crash_everywhere`: what tests of agents break, and what they see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from switchgear import (
    Agent,
    Approval,
    Capability,
    Context,
    Permanent,
    Retry,
    Retryable,
    StepFailed,
    TaskDead,
    UsageError,
    command,
    step,
    testing,
)
from switchgear.contract import codec, entries
from switchgear.testing.mesh import MemoryMesh
from tests.unit.agent.stage import Number

DAY = timedelta(days=1)


@dataclass
class Question:
    text: str


@dataclass
class Query:
    text: str


@dataclass
class Hits:
    urls: list[str]


@dataclass
class Answer:
    text: str
    urls: list[str]


search = Capability("web-search", Query, Hits)
researcher = Agent("researcher", version="1.0.0")


class Llm:
    """A language model that never changes its mind."""

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for token in ("because ", prompt):
            yield token


@researcher.resource
async def llm() -> AsyncIterator[Llm]:
    yield Llm()


@step(retry=Retry(max_attempts=5))
async def think(ctx: Context, prompt: str) -> str:
    parts = list[str]()
    async for token in ctx.use(llm).stream(prompt):
        parts.append(token)
        ctx.emit(token)
    return "".join(parts)


@researcher.capability("research", calls=[search])
async def research(q: Question, ctx: Context) -> Answer:
    hits, draft = await ctx.gather(
        ctx.call(search, Query(q.text)), ctx.step("draft", think, ctx, q.text)
    )
    review = await ctx.wait_for_signal(
        "review", Approval, question=draft, timeout=timedelta(hours=8)
    )
    if not review.approved:
        raise Permanent(review.note)
    return Answer(draft, hits.urls)


undone: list[str] = []
worker = Agent("worker", version="1.0.0")


def double(n: int) -> int:
    return 2 * n


async def triple(n: int) -> int:
    return 3 * n


def undo_double(n: int) -> None:
    undone.append(f"undone {n}")


@worker.capability("work", retry=Retry(max_attempts=2))
async def work(value: Number, ctx: Context) -> Number:
    async with ctx.saga() as saga:
        saga.undo("restore", undo_double, value.n)
        two = await ctx.step("double", double, value.n)
        await ctx.sleep("rest", timedelta(minutes=1))
        six = await ctx.step("triple", triple, two)
    return Number(six)


@worker.capability("build", retry=Retry(max_attempts=1))
async def build(value: Number, ctx: Context) -> str:
    try:
        return (await ctx.run("make", command("echo", str(value.n)))).stdout
    except StepFailed as error:
        return f"{error.key} {error.what}"


def how(mesh: MemoryMesh, task: str) -> list[str]:
    """How the task was taken over, each time."""
    taken = mesh.site.broker.ledger.under(f"sg.task.*.tester.{task}.taken-over")
    return [codec.decoder(entries.TakenOver).decode(one.data).how for one in taken]


async def test_crash() -> None:
    async with testing.mesh(researcher) as mesh:
        mesh.fake(search, returns=Hits(["a"]))
        mesh.faults.crash(after="draft")
        task = await mesh.submit(research, Question("why?"))
        await task.signal("review", Approval(True))  # noqa: FBT003 - as the guide writes it
        assert (await task.result()).urls == ["a"]
        assert mesh.runs(task, "draft") == 1


async def test_crash_before_the_end_is_recorded_runs_the_body_again() -> None:
    async with testing.mesh(worker) as mesh:
        mesh.faults.crash(before="double")
        task = await mesh.submit(work, Number(7))
        assert await task.result() == Number(42)
        assert (mesh.runs(task, "double"), mesh.runs(task, "triple")) == (2, 1)
        assert how(mesh, task.id) == ["crash"]


async def test_each_crash_happens_once_and_in_order() -> None:
    async with testing.mesh(worker) as mesh:
        mesh.faults.crash(before="double")
        mesh.faults.crash(before="double")
        mesh.faults.crash(after="triple")
        task = await mesh.submit(work, Number(7))
        assert await task.result() == Number(42)
        assert (mesh.runs(task, "double"), mesh.runs(task, "triple")) == (3, 1)


async def test_hanging_process_loses_its_lease_and_what_it_records_is_refused() -> None:
    """The other runs the body again; the result is recorded once."""
    async with testing.mesh(worker) as mesh:
        mesh.faults.lose_lease(at="double")
        task = await mesh.submit(work, Number(7))
        assert await task.result() == Number(42)
        assert mesh.runs(task, "double") == 2
        under = mesh.site.broker.ledger.under(f"sg.task.work.tester.{task.id}.>")
        events = [one.subject.rpartition(".")[2] for one in under]
        assert events.count("taken-over") == 1
        done = [one for one in under if b'"key":"double"' in one.data]
        assert len([one for one in done if one.subject.endswith(".checkpoint")]) == 1


async def test_instance_that_hung_takes_work_again() -> None:
    async with testing.mesh(worker) as mesh:
        mesh.faults.lose_lease(at="double")
        await mesh.call(work, Number(7))
        assert len(mesh.site.members) == 2
        hung, other = mesh.site.members
        await mesh.site.crash(other)
        assert hung.bus.link.alive
        assert await mesh.call(work, Number(1)) == Number(6)


async def test_failed_step_is_tried_again_as_its_error_says() -> None:
    async with testing.mesh(worker) as mesh:
        mesh.faults.fail("triple", Retryable("not now"))
        task = await mesh.submit(work, Number(7))
        assert await task.result() == Number(42)
        assert (mesh.runs(task, "double"), mesh.runs(task, "triple")) == (1, 2)


async def test_final_failure_runs_the_undos_and_a_failing_undo_is_tried() -> None:
    undone.clear()
    async with testing.mesh(worker) as mesh:
        mesh.faults.fail("triple", Permanent("never"), times=None)
        task = await mesh.submit(work, Number(7))
        with pytest.raises(TaskDead):
            await task.result()
        assert undone == ["undone 7"]
        assert mesh.runs(task, "restore") == 1
    undone.clear()
    async with testing.mesh(worker) as mesh:
        mesh.faults.fail("triple", Permanent("never"), times=None)
        mesh.faults.fail("restore", Permanent("neither"))
        with pytest.raises(TaskDead) as caught:
            await mesh.call(work, Number(7))
        assert "restore" in str(caught.value)
        assert not undone


async def test_failed_command_ends_as_a_command_does() -> None:
    async with testing.mesh(worker) as mesh:
        mesh.fake_run("make", stdout="made")
        mesh.faults.fail("make", OSError("disk full"))
        task = await mesh.submit(build, Number(1))
        assert await task.result() == "make step make failed: disk full"
        assert await mesh.call(build, Number(2)) == "made"


async def test_time_advances_by_exactly_so_much_with_all_that_is_due() -> None:
    async with testing.mesh(worker) as mesh:
        began = mesh.site.clock.now()
        task = await mesh.submit(work, Number(7))
        await mesh.advance(timedelta(seconds=59))
        assert (await task.status()).state == "waiting"
        assert mesh.site.clock.now() - began == timedelta(seconds=59)
        await mesh.advance(timedelta(seconds=2))
        assert (await task.status()).state == "completed"
        with pytest.raises(UsageError):
            await mesh.advance(-DAY)


async def test_fault_that_never_happens_fails_the_test() -> None:
    """A key may be misspelled: the test would prove nothing."""
    plans: dict[str, Callable[[MemoryMesh], None]] = {
        r"crash\(after='duoble'\)": lambda mesh: mesh.faults.crash(after="duoble"),
        r"lose_lease\(at='duoble'\)": lambda mesh: mesh.faults.lose_lease(at="duoble"),
        r"fail\('duoble'\)": lambda mesh: mesh.faults.fail("duoble", Permanent("x")),
    }
    for name, plan in plans.items():
        with pytest.raises(UsageError, match=name) as caught:  # noqa: PT012 - it is raised at the end
            async with testing.mesh(worker) as mesh:
                plan(mesh)
                await mesh.call(work, Number(7))
        assert "'double', 'rest', 'triple'" in caught.value.why


async def test_own_error_of_a_test_is_not_hidden_by_a_fault_that_never_happened() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - as above
        async with testing.mesh(worker) as mesh:
            mesh.faults.crash(after="double")
            raise ZeroDivisionError


async def test_faults_are_checked_when_they_are_asked_for() -> None:
    async with testing.mesh(worker) as mesh:
        for before, after in (("a", "b"), (None, None)):
            with pytest.raises(UsageError):
                mesh.faults.crash(before=before, after=after)
        with pytest.raises(UsageError):
            mesh.faults.fail("double", Permanent("x"), times=0)


async def test_task_survives_a_crash_at_every_end() -> None:
    """Undisturbed, and before and after each of its five ends and its own."""
    results = await testing.crash_everywhere(work, Number(7), worker)
    assert set(map(repr, results.values())) == {repr(Number(42))}
    ends = ["work/double", "work/rest", "work/triple", "work completed"]
    wanted = [f"{n} {side} {end}" for n, end in enumerate(ends) for side in ("before", "after")]
    assert list(results) == ["undisturbed", *wanted]


async def test_crash_everywhere_sets_the_stage_and_does_what_the_task_needs() -> None:
    results = await testing.crash_everywhere(
        research,
        Question("why?"),
        researcher,
        prepare=lambda mesh: mesh.fake(search, returns=Hits(["a"])),
        meanwhile=lambda _, task: task.signal("review", Approval(approved=True)),
    )
    assert all(one == Answer("because why?", ["a"]) for one in results.values())
    ends = {name.partition(" after ")[2] for name in results} - {""}
    keys = {f"research/{key}" for key in ("web-search", "draft", "review")}
    assert ends == {*keys, "research completed"}


async def test_crash_that_changes_the_outcome_is_named() -> None:
    """A handler that counts on memory of its own: the note says where it was killed."""
    agent = Agent("forgetful", version="1.0.0")
    memory: dict[str, int] = {}

    @agent.capability("remember")
    async def remember(value: Number, ctx: Context) -> Number:
        if await ctx.step("double", double, value.n) and ctx.fence not in memory.values():
            memory.setdefault(ctx.task.id, ctx.fence)
        if memory[ctx.task.id] != ctx.fence:
            raise Permanent("somebody else began this")
        await ctx.step("triple", triple, value.n)
        memory.pop(ctx.task.id)
        return value

    with pytest.raises(TaskDead) as caught:
        await testing.crash_everywhere(remember, Number(7), agent)
    assert caught.value.__notes__ == ["killed: 1 before remember/triple"]
