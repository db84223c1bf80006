"""What an open breaker means for tasks and pulls: nothing is burnt, nothing spins, a probe decides (rules 6 and 9)."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from switchgear import (
    Agent,
    Breaker,
    BreakerOpen,
    Context,
    Permanent,
    Retry,
    Retryable,
    TaskDead,
    UsageError,
    command,
    step,
)
from switchgear.agent.breaking import LONGEST_DELAY, Breaking
from switchgear.agent.executing import Executing, guarded
from switchgear.contract import codec, entries, subjects
from switchgear.contract.announcement import BreakerState
from switchgear.contract.queries import Command
from switchgear.errors import StepFailed
from switchgear.lifecycle.history import History
from switchgear.resilience.classify import classify
from switchgear.steps.executor import Asked
from switchgear.steps.guard import Guards
from switchgear.steps.runner import Runner
from switchgear.testing import virtual_time
from switchgear.testing.site import Member
from tests.unit.agent.stage import Gate, Stage, Text, stage, until

if TYPE_CHECKING:
    from switchgear.agent.feeder import Feeder

ONE_TRY = Retry(max_attempts=1)
UNDONE = list[str]()
OPEN_FOR = timedelta(seconds=20)
POLICY = Breaker(in_a_row=3, open_for=OPEN_FOR, jitter=0.0)
IN_PLACE = Retry(max_attempts=10, initial=timedelta(milliseconds=10))


class Service:
    """What steps call: up or down for each instance that calls it."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        self.calls = 0
        self.error: Exception = OSError("connection refused")

    async def call(self) -> None:
        """One call."""
        self.calls += 1
        await asyncio.sleep(0.01)
        if not self.up:
            raise self.error


def calling(
    service: Service, policy: Breaker = POLICY, *, retry: Retry = IN_PLACE, concurrency: int = 4
) -> Agent:
    """An agent whose tasks are one call of the service each, tried again in place."""
    agent = Agent("caller", version="1.0.0")
    agent.breaker("svc", policy)

    @step(retry=retry, breaker="svc")
    async def call() -> str:
        await service.call()
        return "well"

    @agent.capability("call", concurrency=concurrency)
    async def handle(value: Text, ctx: Context) -> Text:
        return Text(f"{value.text} {await ctx.step('call', call)}")

    @agent.capability("other", concurrency=concurrency)
    async def other(value: Text, ctx: Context) -> Text:
        return value

    return agent


async def breakers(on: Stage, dependency: str = "svc") -> dict[str, BreakerState]:
    """The breaker as the instances announce it, by instance."""
    announced = (await on.mesh.agents()).instances
    return {
        one.instance: state
        for one in announced
        for state in one.breakers
        if state.dependency == dependency
    }


async def stands(on: Stage, state: str, dependency: str = "svc") -> BreakerState:
    """Wait until the only instance announces that its breaker is in this state."""
    async with asyncio.timeout(3600):
        while True:
            for one in (await breakers(on, dependency)).values():
                if one.state == state:
                    return one
            await asyncio.sleep(0.1)


def order(on: Stage, member: Member, action: Any, dependency: str = "svc") -> None:
    """What a coordinator sends for an operator."""
    command = Command(
        verb="breaker", action=action, dependency=dependency, by="alice", why="maintenance"
    )
    subject = subjects.control(member.worker.agent.name, member.bus.name)
    on.bus.core.publish(subject, codec.encode(command))


def attempts(history: History) -> list[tuple[int, int]]:
    """Attempt and failures that each valid entry of an agent shows."""
    return [
        (valid.entry.attempt, valid.entry.status.failures)
        for valid in history.valid
        if isinstance(valid.entry, entries.AgentEntry)
    ]


def releases(history: History) -> list[tuple[str, str]]:
    """Why it was handed back, and because of which dependency."""
    return [
        (valid.entry.why, valid.entry.dependency)
        for valid in history.valid
        if isinstance(valid.entry, entries.Released)
    ]


async def test_a_dependency_that_fails_burns_no_attempt_and_the_task_ends_when_it_is_back() -> None:
    """Tries fail in place until the breaker opens; the task goes back, is pulled as a probe, and completes."""
    service = Service(up=False)
    async with stage(calling(service)) as on:
        handle = await on.mesh.submit("call", Text("a"))
        history = await on.reach(handle.id, "released")
        assert service.calls == POLICY.in_a_row
        assert releases(history) == [("breaker", "svc")]
        service.up = True
        assert (await handle.result(Text)).text == "a well"
        history = on.history(handle.id)
        assert service.calls == POLICY.in_a_row + 1
        assert "attempt-failed" not in on.events(handle.id)
        assert set(attempts(history)) == {(1, 0)}
        told = [event.detail async for event in handle.events()]
        assert "breaker of svc" in told
        taken = [one.entry for one in history.valid if isinstance(one.entry, entries.TakenOver)]
        assert [one.how for one in taken] == ["released"]


async def test_while_a_breaker_is_open_its_capability_is_not_pulled_and_others_are() -> None:
    """Tasks wait in the lane, untouched; what does not need the dependency goes on."""
    service = Service(up=False)
    async with stage(calling(service)) as on:
        first = await on.mesh.submit("call", Text("a"))
        await on.reach(first.id, "released")
        more = [await on.mesh.submit("call", Text(str(n))) for n in range(5)]
        assert await on.mesh.call("other", Text("b")) == {"text": "b"}
        await asyncio.sleep(OPEN_FOR.total_seconds() / 2)
        for one in more:
            assert on.events(one.id)[-1] == "dispatched"
        assert len(releases(on.history(first.id))) == 1
        assert service.calls == POLICY.in_a_row
        service.up = True
        for one in (first, *more):
            await one.result(Text)
            assert set(attempts(on.history(one.id))) == {(1, 0)}


async def test_a_breaker_that_lets_probes_through_pulls_as_many_tasks_as_there_are_probes() -> None:
    """The others stay in the lane until it is known what became of them."""
    service, gate = Service(up=False), Gate()
    agent = calling(service, msgspec.structs.replace(POLICY, probes=2), concurrency=8)

    async def gated() -> None:
        service.calls += 1
        await gate()

    async with stage(agent) as on:
        first = await on.mesh.submit("call", Text("a"))
        await on.reach(first.id, "released")
        more = [await on.mesh.submit("call", Text(str(n))) for n in range(9)]
        service.call = gated  # what it does from now on
        await until(lambda: gate.inside == 2)
        await asyncio.sleep(OPEN_FOR.total_seconds() / 2)
        assert gate.entered == 2
        assert (await stands(on, "half-open")).busy == 2
        assert not any(releases(on.history(one.id)) for one in more)
        gate.open()
        for one in (first, *more):
            await one.result(Text)
        assert (await stands(on, "closed")).opened == 1


async def test_a_failed_probe_is_an_attempt_as_any_other_and_opens_the_breaker_for_longer() -> None:
    """Each probe of a dependency that stays down is a real failure; the waits between them grow to the cap."""
    service = Service(up=False)
    policy = msgspec.structs.replace(POLICY, max_open_for=timedelta(seconds=60))
    retry = Retry(max_attempts=1)
    async with stage(calling(service, policy, retry=retry)) as on:
        handles = [await on.mesh.submit("call", Text(str(n)), retry=ONE_TRY) for n in range(6)]
        for handle in handles:
            with pytest.raises(TaskDead, match="connection refused"):
                await handle.result()
        state = await stands(on, "open")
        assert state.opened == 3
        assert state.until is not None
        assert state.until - state.since == timedelta(seconds=60)
        assert "1 of 1 probes failed" in state.why


async def test_a_probe_that_hangs_does_not_keep_the_dependency_shut() -> None:
    """Others are pulled in its place once it is late, and close the breaker; what it answers then counts no more."""
    service, gate = Service(up=False), Gate()

    async def hang_once() -> None:
        service.calls += 1
        if service.calls == POLICY.in_a_row + 1:
            await gate()
            raise OSError("gone after all")

    async with stage(calling(service)) as on:
        first = await on.mesh.submit("call", Text("a"), retry=ONE_TRY)
        await on.reach(first.id, "released")
        more = [await on.mesh.submit("call", Text(str(n)), retry=ONE_TRY) for n in range(5)]
        service.call = hang_once
        await until(lambda: gate.inside == 1)
        await stands(on, "half-open")
        await asyncio.sleep(OPEN_FOR.total_seconds() / 2)
        assert service.calls == POLICY.in_a_row + 1
        await stands(on, "closed")
        gate.open()
        for one in (first, *more):
            await one.result(Text)
        state = await stands(on, "closed")
        assert (state.opened, state.failure_rate > 0) == (1, False)


async def test_probes_that_hang_one_after_another_are_made_ever_more_seldom() -> None:
    """Each takes a slot: a dependency that never answers would have all of them soon."""
    service, gate = Service(up=False), Gate()

    async def hang() -> None:
        service.calls += 1
        await gate()

    async with stage(calling(service, concurrency=8)) as on:
        first = await on.mesh.submit("call", Text("a"))
        await on.reach(first.id, "released")
        more = [await on.mesh.submit("call", Text(str(n))) for n in range(8)]
        service.call = hang
        begun = list[float]()
        for count in range(1, 5):
            await until(lambda count=count: gate.inside == count)
            begun.append(asyncio.get_running_loop().time())
        waits = [later - one for one, later in itertools.pairwise(begun)]
        assert waits == pytest.approx([20, 40, 80], abs=1)
        await asyncio.sleep(20)  # until it is announced the next time
        assert "3 probes are late" in (await stands(on, "half-open")).why
        gate.open()
        for one in (first, *more):
            await one.result(Text)
        await stands(on, "closed")


async def test_a_task_that_was_pulled_as_a_probe_and_does_not_ask_makes_room_for_others() -> None:
    """It may be busy with something else for hours."""
    service, gate = Service(up=False), Gate()
    agent = Agent("caller", version="1.0.0")
    agent.breaker("svc", POLICY)
    runs = list[str]()

    @step(retry=IN_PLACE, breaker="svc")
    async def call() -> None:
        await service.call()

    @agent.capability("call")
    async def handle(value: Text, ctx: Context) -> Text:
        runs.append(value.text)
        if len(runs) > 1 and value.text == runs[0]:
            await gate()
        await ctx.step("call", call)
        return value

    async with stage(agent) as on:
        first = await on.mesh.submit("call", Text("a"))
        await on.reach(first.id, "released")
        service.up = True
        await until(lambda: gate.inside == 1)
        more = [await on.mesh.submit("call", Text(str(n))) for n in range(5)]
        await asyncio.sleep(LONGEST_DELAY / 2)
        assert service.calls == POLICY.in_a_row
        async with asyncio.timeout(LONGEST_DELAY):
            for one in more:
                await one.result(Text)
        await stands(on, "closed")
        gate.open()
        await first.result(Text)


async def test_a_pull_just_before_a_look_that_is_due_does_not_put_it_off() -> None:
    """Two capabilities wait for breakers that let probes through at the same moment."""
    time = virtual_time.of_running_loop()
    time.enter()
    try:
        policies = {"*": msgspec.structs.replace(POLICY, in_a_row=1)}
        breaking = Breaking(policies, classify, lambda: None, seed="1")
        for name in ("a", "b"):
            tried = breaking.begin(f"needs-{name}")
            tried.met.add(name)
            with pytest.raises(OSError, match="refused"):
                async with breaking.guards.guard(name):
                    raise OSError("connection refused")
            breaking.end(tried)
        await asyncio.sleep(OPEN_FOR.total_seconds() + 0.0005)
        looked = asyncio.Event()
        breaking.feeders["needs-b"] = cast("Feeder", SimpleNamespace(look=looked.set))
        breaking.begin("needs-a")
        async with asyncio.timeout(1):
            await looked.wait()
        breaking.close()
    finally:
        time.leave()


async def test_a_service_that_asks_to_wait_is_left_alone_for_so_long() -> None:
    """Longer than the policy would; the task waits in its lane, and completes."""
    service = Service(up=False)
    service.error = Retryable("slow down", retry_after=100.0)
    agent = calling(service, msgspec.structs.replace(POLICY, in_a_row=1), retry=ONE_TRY)
    async with stage(agent) as on:
        first = await on.mesh.submit("call", Text("a"))
        state = await stands(on, "open")
        assert state.until is not None
        assert (state.until - state.since).total_seconds() == pytest.approx(100, abs=0.1)
        assert "it asked for 100 s" in state.why
        service.up = True
        await first.result(Text)
        assert service.calls == 2


async def test_a_class_that_does_not_speak_against_the_dependency_never_opens_its_breaker() -> None:
    """A step that fails by itself shows that the service answers."""
    service = Service(up=False)
    service.error = StepFailed("bad exit", key="call", error_class="step")
    async with stage(calling(service, retry=Retry(max_attempts=1))) as on:
        for n in range(20):
            with pytest.raises(TaskDead):
                await on.mesh.call("call", Text(str(n)))
        state = (await breakers(on)).popitem()[1]
        assert (state.state, state.failure_rate, state.opened) == ("closed", 0.0, 0)


async def test_what_few_tasks_need_stops_no_others_and_is_asked_for_seldom() -> None:
    """Their capability is pulled on; they themselves are handed back with growing delays, and not spun."""
    service = Service(up=False)
    agent = Agent("mixed", version="1.0.0")
    agent.breaker("svc", Breaker(in_a_row=3, open_for=timedelta(minutes=5), jitter=0.0))

    @step(retry=IN_PLACE, breaker="svc")
    async def call() -> None:
        await service.call()

    @agent.capability("mixed")
    async def mixed(value: Text, ctx: Context) -> Text:
        if value.text == "needs":
            await ctx.step("call", call)
        return value

    async with stage(agent) as on:
        for n in range(16):
            await on.mesh.call("mixed", Text(str(n)))
        needing = await on.mesh.submit("mixed", Text("needs"))
        await on.reach(needing.id, "released")
        for n in range(16):
            await on.mesh.call("mixed", Text(str(n)))
        await asyncio.sleep(240)
        count = len(releases(on.history(needing.id)))
        assert 3 <= count <= 10
        service.up = True
        await needing.result()
        assert set(attempts(on.history(needing.id))) == {(1, 0)}
        assert service.calls == 4


async def test_a_breaker_that_is_held_open_refuses_until_it_is_reset() -> None:
    """Who ordered it, when and why is announced; reset, it lets everything through, and forgets."""
    service = Service()
    async with stage() as on:
        member = await on.join(calling(service))
        assert (await stands(on, "closed")).forced_by == ""
        order(on, member, "open")
        state = await stands(on, "forced-open")
        assert (state.forced_by, state.forced_why) == ("alice", "maintenance")
        assert state.forced_at is not None
        handle = await on.mesh.submit("call", Text("a"))
        await on.reach(handle.id, "released")
        await asyncio.sleep(3600)
        assert len(releases(on.history(handle.id))) == 1
        assert service.calls == 0
        order(on, member, "reset")
        await handle.result()
        state = await stands(on, "closed")
        assert (state.forced_by, state.opened) == ("", 0)


async def test_an_order_that_says_nothing_to_do_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may send one: it is logged, and the instance goes on."""
    async with stage() as on:
        member = await on.join(calling(Service()))
        subject = subjects.control(member.worker.agent.name, member.bus.name)
        on.bus.core.publish(subject, codec.encode(Command(verb="breaker", dependency="svc")))
        assert await on.mesh.call("call", Text("a")) == {"text": "a well"}
        assert (await stands(on, "closed")).forced_by == ""
    assert "agent.command-refused" in caplog.text


async def test_a_breaker_that_is_held_closed_lets_all_through_whatever_they_meet() -> None:
    """Their failures are counted and shown, and decide nothing."""
    service = Service(up=False)
    async with stage() as on:
        member = await on.join(calling(service))
        order(on, member, "close")
        await stands(on, "disabled")
        handle = await on.mesh.submit("call", Text("a"), retry=ONE_TRY)
        with pytest.raises(TaskDead):
            await handle.result()
        assert service.calls == IN_PLACE.max_attempts
        await asyncio.sleep(15)
        state = await stands(on, "disabled")
        assert (state.failure_rate, state.calls) == (1.0, 10)


async def test_a_handler_may_go_on_without_what_a_breaker_refuses() -> None:
    """The error says what and for how long; a handler that catches it is not handed back."""
    service = Service()
    agent = Agent("wise", version="1.0.0")
    seen = list[BreakerOpen]()

    @step(breaker="svc")
    async def call() -> None:
        await service.call()

    @agent.capability("wise")
    async def wise(value: Text, ctx: Context) -> Text:
        try:
            await ctx.step("call", call)
        except BreakerOpen as refused:
            seen.append(refused)
            return Text("without")
        return Text("with")

    async with stage() as on:
        member = await on.join(agent)
        order(on, member, "open")
        await stands(on, "forced-open")
        assert await on.mesh.call("wise", Text("")) == {"text": "without"}
        (refused,) = seen
        assert (refused.dependency, refused.state, refused.code) == ("svc", "forced-open", "SG1520")
        assert refused.retry_after is not None
        assert "alice: maintenance" in str(refused)


async def test_a_refused_handler_leaves_its_children_to_its_next_run() -> None:
    """The call beside the refused step goes on; the next run takes its result."""
    service, gate = Service(up=False), Gate()
    agent = Agent("parent", version="1.0.0")
    agent.breaker("svc", POLICY)

    @step(retry=IN_PLACE, breaker="svc")
    async def call() -> str:
        await service.call()
        return "well"

    @agent.capability("child")
    async def child(value: Text, ctx: Context) -> Text:
        await gate(value.text)
        return Text("grown")

    @agent.capability("parent", calls=["child"])
    async def parent(value: Text, ctx: Context) -> Text:
        grown, well = await ctx.gather(ctx.call("child", value), ctx.step("call", call))
        return Text(f"{grown['text']} {well}")

    async with stage(agent) as on:
        handle = await on.mesh.submit("parent", Text("a"))
        await on.reach(handle.id, "released")
        service.up = True
        gate.open()
        assert (await handle.result(Text)).text == "grown well"
        assert gate.entered == 1


async def test_refusals_that_a_task_group_collects_are_one_refusal() -> None:
    """Handed back as any other; with another failure among them it is that failure."""
    service = Service()
    agent = Agent("grouping", version="1.0.0")

    @step(breaker="svc")
    async def call() -> None:
        await service.call()

    async def fail() -> None:
        raise OSError("other")

    @agent.capability("group")
    async def group(value: Text, ctx: Context) -> Text:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ctx.step("call", call))
            if value.text:
                tasks.create_task(fail())
        return value

    async with stage() as on:
        member = await on.join(agent)
        order(on, member, "open")
        await stands(on, "forced-open")
        failing = await on.mesh.submit("group", Text("x"), retry=ONE_TRY)
        with pytest.raises(TaskDead):
            await failing.result()
        order(on, member, "reset")
        await stands(on, "closed")
        order(on, member, "open")
        await stands(on, "forced-open")
        handle = await on.mesh.submit("group", Text(""))
        await asyncio.sleep(60)
        order(on, member, "reset")
        await handle.result()
        assert "attempt-failed" not in on.events(handle.id)


@step(breaker="svc")
async def cancel_booking(name: str) -> None:
    """An undo that calls what the breaker guards."""
    UNDONE.append(name)


async def reserve(name: str) -> str:
    """What is undone."""
    return name


async def test_an_undo_is_run_whatever_its_breaker_says() -> None:
    """To refuse it would leave what it is to undo."""
    service = Service()
    UNDONE.clear()
    agent = Agent("undoing", version="1.0.0")

    @agent.capability("book", retry=ONE_TRY)
    async def book(value: Text, ctx: Context) -> Text:
        async with ctx.saga() as saga:
            saga.undo("cancel", cancel_booking, value.text)
            await ctx.step("book", reserve, value.text)
            raise Permanent("full")

    async with stage() as on:
        member = await on.join(agent)
        order(on, member, "open")
        await stands(on, "forced-open")
        with pytest.raises(TaskDead, match="full"):
            await on.mesh.call("book", Text("a"))
        assert UNDONE == ["a"]
        assert service.calls == 0


async def on_engine(asked: Asked, run_on: Any) -> Any:
    """A plan."""
    return await run_on("engine")


def ignore(stream: str, line: str) -> None:
    """Hear a line."""
    del stream, line


class Needing:
    """An executor whose engine is down."""

    name = "engine"

    def __init__(self) -> None:
        self.runs = 0

    def unsupported(self, spec: Any) -> None:
        """Nothing."""
        del spec

    def dependencies(self, spec: Any) -> tuple[str, ...]:
        """Of every step."""
        del spec
        return ("engine", "registry:docker.io")

    async def execute(self, spec: Any, *, on_line: Any, workspace: Any) -> Any:
        """Fail."""
        del spec, on_line, workspace
        self.runs += 1
        raise StepFailed("gone", key="x", error_class="transient", dependency="engine")

    async def health(self) -> Any:
        """Not asked."""

    async def close(self) -> None:
        """Nothing to let go of."""


async def test_a_command_asks_the_breakers_of_what_its_executor_needs() -> None:
    """As a step does: what the executor names as failed is not called until it is back."""
    guards = Guards({}, monotonic=asyncio.get_running_loop().time, dice=lambda: 0.0)
    executor = Needing()
    running = Executing(lambda: Runner([executor], plan=on_engine, guard=guarded(guards)))
    asked = Asked(command("echo"), "echo")
    blobs: Any = None
    for _ in range(5):
        with pytest.raises(StepFailed):
            await running(asked, ignore, blobs)
    with pytest.raises(BreakerOpen, match="engine"):
        await running(asked, ignore, blobs)
    assert executor.runs == 5


@pytest.mark.parametrize(
    ("dependency", "policy", "fault"),
    [
        ("svc", Breaker(failure_rate=0), "failure_rate"),
        ("svc", Breaker(window=0), "window"),
        ("", Breaker(), "characters"),
        ("x" * 200, Breaker(), "characters"),
        ("taken", Breaker(), "already"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused_where_it_is_declared(
    dependency: str, policy: Breaker, fault: str
) -> None:
    """With the field that is wrong."""
    agent = Agent("a", version="1.0.0")
    agent.breaker("taken", Breaker())
    with pytest.raises(UsageError, match=fault):
        agent.breaker(dependency, policy)
