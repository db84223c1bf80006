"""Guards of one instance, on virtual time: permits, places, queues, refusals, and what is told of them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from switchgear.errors import BreakerOpen, Permanent, Retryable, StepFailed, UsageError
from switchgear.resilience.breaker import Breaker
from switchgear.resilience.classes import Verdict
from switchgear.steps.guard import MAX_DEPENDENCIES, MAX_SHOWN, MET, UNGUARDED, Changed, Guards
from switchgear.testing import virtual_time

QUICK = Breaker(in_a_row=2, open_for=timedelta(seconds=10), jitter=0.0)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Clock:
    """A monotonic clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def virtual() -> AsyncIterator[None]:
    """Waiting takes no time."""
    time = virtual_time.of_running_loop()
    time.enter()
    yield
    time.leave()


def made(clock: Callable[[], float], **policies: Breaker) -> tuple[Guards, list[Changed]]:
    """Guards, and what they told."""
    changes: list[Changed] = []
    return Guards(policies, monotonic=clock, dice=lambda: 0.0, on_change=changes.append), changes


async def fail(guards: Guards, name: str, error: Exception, times: int = 1) -> None:
    """So many calls that fail so."""
    for _ in range(times):
        with pytest.raises(type(error)):
            async with guards.guard(name):
                raise error


async def test_leaving_without_a_verdict_is_one(clock: Clock) -> None:
    """No exception is a success; an exception is a failure of its class, and goes on."""
    guards, changes = made(clock, llm=QUICK)
    await fail(guards, "llm", OSError("gone"))
    async with guards.guard("llm"):
        pass
    await fail(guards, "llm", OSError("gone"))
    assert changes == []
    await fail(guards, "llm", OSError("gone"))
    assert [(one.dependency, one.old, one.new) for one in changes] == [("llm", "closed", "open")]
    assert "OSError" in changes[0].why
    assert "gone" not in changes[0].why  # the text is the task's, and this is shown to everybody
    with pytest.raises(BreakerOpen) as refused:
        async with guards.guard("llm"):
            raise AssertionError
    error = refused.value
    assert (error.dependency, error.state, error.error_class) == ("llm", "open", "transient")
    assert error.retry_after == 10
    assert "2 calls in a row failed" in error.why


async def test_the_first_verdict_counts(clock: Clock) -> None:
    """What follows it is ignored: another verdict, and an exception."""
    guards, changes = made(clock, llm=QUICK)
    for _ in range(5):
        guarded = guards.guard("llm")
        permit = await guarded.__aenter__()
        permit.success()
        permit.failure("transient")
        permit.release()
        assert await guarded.__aexit__(OSError, OSError("ignored"), None) is None
    assert changes == []
    for _ in range(2):
        async with guards.guard("llm") as permit:
            permit.failure("timeout", "too slow")
            permit.success()
    assert changes[0].why.endswith("timeout: too slow")
    clock.now += 10
    async with guards.guard("llm") as permit:
        permit.release()
    async with guards.guard("llm"):
        pass
    assert changes[-1].new == "closed"


async def test_a_cancelled_call_says_nothing_and_gives_its_probe_back(clock: Clock) -> None:
    """Nor does one that another breaker refused, or that a bug ended."""
    guards, changes = made(clock, engine=QUICK, registry=QUICK)
    await fail(guards, "engine", OSError(), 2)
    await fail(guards, "registry", OSError(), 2)
    clock.now += 9
    begun = asyncio.Event()

    async def wait() -> None:
        async with guards.guard("engine"):
            begun.set()
            await asyncio.Event().wait()

    clock.now += 1
    task = asyncio.create_task(wait())
    await begun.wait()
    with pytest.raises(BreakerOpen, match="probes"):
        async with guards.guard("engine"):
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guards.room(["engine"]) == 1
    clock.now -= 1  # the registry is still refused
    with pytest.raises(BreakerOpen, match="registry"):
        async with guards.guard("engine"), guards.guard("registry"):
            pass
    assert guards.room(["engine"]) == 1
    await fail(guards, "engine", TypeError())
    assert guards.room(["engine"]) == 1
    assert changes[-1].new == "half-open"


async def test_each_dependency_has_its_own_breaker_and_policy(clock: Clock) -> None:
    """By name, by kind, for all others, or the default; one that opens leaks to no other."""
    by_kind = Breaker(in_a_row=1, open_for=timedelta(seconds=20), jitter=0.0)
    rest = Breaker(in_a_row=3, open_for=timedelta(seconds=40), jitter=0.0)
    guards, changes = made(clock, **{"llm": QUICK, "registry:*": by_kind, "*": rest})
    for name, times in (("llm", 2), ("registry:a", 1), ("registry:b", 1), ("other", 3)):
        await fail(guards, name, OSError(), times)
    assert [one.dependency for one in changes] == ["llm", "registry:a", "registry:b", "other"]
    assert guards.open_for(["registry:a"]) == timedelta(seconds=20)
    async with guards.guard("registry:c"), guards.guard("fourth"):
        pass
    plain, changes = made(clock)
    await fail(plain, "llm", OSError(), 4)
    assert changes == []
    await fail(plain, "llm", OSError())
    assert len(changes) == 1


async def test_what_may_be_pulled_follows_the_breakers(clock: Clock) -> None:
    """The longest of those that refuse; nothing for what nobody has called yet."""
    slow = Breaker(in_a_row=1, open_for=timedelta(seconds=60), jitter=0.0, probes=3)
    guards, _ = made(clock, a=QUICK, b=slow)
    assert guards.open_for(["a", "b", "unknown"]) is None
    assert (guards.room(["a", "b", "unknown"]), guards.troubled) == (None, False)
    await fail(guards, "a", OSError(), 2)
    await fail(guards, "b", OSError())
    assert guards.troubled
    assert guards.open_for(["a"]) == timedelta(seconds=10)
    assert guards.open_for(["a", "b"]) == timedelta(seconds=60)
    assert guards.room(["a", "b"]) == 0
    clock.now += 10
    assert (guards.open_for(["a"]), guards.room(["a"])) == (None, 1)
    assert (guards.room(["b"]), guards.room(["unknown"])) == (0, None)
    clock.now += 50
    assert (guards.open_for(["a", "b"]), guards.room(["a", "b"]), guards.room(["b"])) == (
        None, 1, 3,
    )  # fmt: skip


def limited(**more: object) -> Guards:
    """One dependency with two places and one turn."""
    policy = Breaker(concurrency=2, queue=1, queue_for=timedelta(seconds=30), **more)  # type: ignore[arg-type]
    time = asyncio.get_running_loop().time
    return Guards({"db": policy}, monotonic=time, dice=lambda: 0.0)


async def all_have_run() -> None:
    """Return when everybody has come as far as they can by themselves: in turns of the loop, not in time."""
    for _ in range(20):
        await asyncio.sleep(0)


class Callers:
    """Calls that go on until they are let go."""

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.inside = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.leave = asyncio.Semaphore(0)

    async def _call(self) -> None:
        async with self.guards.guard("db"):
            self.inside += 1
            try:
                await self.leave.acquire()
            finally:
                self.inside -= 1

    async def come(self, count: int = 1) -> None:
        """So many more come."""
        self.tasks += [asyncio.create_task(self._call()) for _ in range(count)]
        await all_have_run()

    async def go(self, count: int = 1) -> None:
        """So many leave."""
        for _ in range(count):
            self.leave.release()
        await all_have_run()


async def test_no_more_calls_go_on_than_there_are_places() -> None:
    """One more waits for its turn; those beyond it are refused, and may come later."""
    guards = limited()
    callers = Callers(guards)
    await callers.come(4)
    assert callers.inside == 2
    with pytest.raises(BreakerOpen) as refused:
        await callers.tasks[3]
    assert (refused.value.state, refused.value.error_class) == ("full", "rate-limited")
    assert refused.value.retry_after == 1
    (state,) = guards.snapshot(NOON)
    assert (state.state, state.busy, state.waiting) == ("closed", 2, 1)
    assert guards.open_for(["db"]) == timedelta(seconds=1)
    await callers.go()
    assert callers.inside == 2
    assert guards.open_for(["db"]) is None
    await callers.go(2)
    await asyncio.gather(*callers.tasks[:3])
    (state,) = guards.snapshot(NOON)
    assert (state.busy, state.waiting, state.calls) == (0, 0, 3)


@pytest.mark.usefixtures("virtual")
async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    """With what was waited for; the next in the queue has the turn."""
    guards = limited()
    callers = Callers(guards)
    await callers.come(3)
    await asyncio.sleep(31)
    with pytest.raises(BreakerOpen, match="no place was free within"):
        await callers.tasks[2]
    await callers.come()
    await callers.go(3)
    await asyncio.gather(callers.tasks[0], callers.tasks[1], callers.tasks[3])
    assert guards.snapshot(NOON)[0].waiting == 0


async def test_places_of_cancelled_callers_are_not_lost() -> None:
    """Inside, waiting, or cancelled in the very moment in which their turn comes."""
    guards = limited()
    callers = Callers(guards)
    await callers.come(3)
    callers.tasks[2].cancel()
    await asyncio.sleep(0)
    callers.tasks[0].cancel()
    await callers.come(2)
    assert callers.inside == 2
    callers.leave.release()
    await asyncio.sleep(0)  # the one that waited has its turn, and has not run yet
    callers.tasks[4].cancel()
    await all_have_run()
    await callers.come(2)
    assert callers.inside == 2
    await callers.go(10)
    await asyncio.gather(*callers.tasks, return_exceptions=True)
    (state,) = guards.snapshot(NOON)
    assert (state.busy, state.waiting) == (0, 0)


async def test_who_waits_for_a_place_is_told_when_the_breaker_opens() -> None:
    """Instead of waiting for what would be refused then."""
    guards = limited(in_a_row=1)
    callers = Callers(guards)
    await callers.come(3)
    assert callers.inside == 2
    guards.command("db", "open", "ana", "now")
    await all_have_run()
    with pytest.raises(BreakerOpen, match="held open"):
        await callers.tasks[2]
    await callers.go(2)
    await asyncio.gather(*callers.tasks[:2])
    (state,) = guards.snapshot(NOON)
    assert (state.busy, state.waiting, state.calls) == (0, 0, 0)


async def test_a_failure_of_one_of_several_dependencies_is_that_ones() -> None:
    """The others are given back; a step's own failure shows that all of them answered."""
    loop = asyncio.get_running_loop()
    guards = Guards({"*": QUICK}, monotonic=loop.time, dice=lambda: 0.0)

    async def work(error: Exception | None) -> str:
        async def body() -> str:
            if error is not None:
                raise error
            return "done"

        return await guards.around(("dagger", "registry:a"), body)

    def calls() -> dict[str, tuple[int, float]]:
        return {one.dependency: (one.calls, one.failure_rate) for one in guards.snapshot(NOON)}

    assert await work(None) == "done"
    assert calls() == {"dagger": (1, 0.0), "registry:a": (1, 0.0)}
    for _ in range(1):
        with pytest.raises(StepFailed):
            await work(
                StepFailed("429", key="x", error_class="rate-limited", dependency="registry:a")
            )
    assert calls() == {"dagger": (1, 0.0), "registry:a": (2, 0.5)}
    with pytest.raises(StepFailed):
        await work(StepFailed("exit 1", key="x", error_class="step"))
    assert calls() == {"dagger": (2, 0.0), "registry:a": (3, 0.333)}
    with pytest.raises(StepFailed):
        await work(StepFailed("took too long", key="x", error_class="timeout"))
    assert calls() == {"dagger": (2, 0.0), "registry:a": (3, 0.333)}
    with pytest.raises(OSError, match="unexpected"):
        await work(OSError("unexpected"))
    assert calls() == {"dagger": (3, 0.333), "registry:a": (3, 0.333)}
    with pytest.raises(BreakerOpen, match="inner"):
        await work(BreakerOpen("inner", dependency="inner"))
    assert calls()["dagger"][0] == 3
    with pytest.raises(StepFailed):
        await work(StepFailed("gone", key="x", error_class="transient", dependency="dagger"))
    with pytest.raises(BreakerOpen, match="dagger"):
        await work(None)
    assert calls()["registry:a"] == (3, 0.333)


async def test_a_policy_for_all_else_is_not_for_what_steps_of_any_length_ask_for(
    clock: Clock,
) -> None:
    """What is slow for a service is not for a build: it shows no full disk."""
    slow = Breaker(slow_after=timedelta(seconds=1), minimum_calls=1)
    for policies, state in (({"*": slow}, "closed"), ({"resource:*": slow}, "open")):
        guards, _ = made(clock, **policies)
        async with guards.guard("resource:disk"):
            clock.now += 3600
        assert [one.state for one in guards.snapshot(NOON)] == [state]


async def test_a_resource_counts_only_what_names_it(clock: Clock) -> None:
    """An error that names nothing is not the disk's, whatever else is asked for; a step's own end shows it well."""
    guards, _ = made(clock)
    needed = ("resource:disk", "git:a", "resource:memory")

    async def work(error: Exception) -> None:
        async def body() -> None:
            raise error

        with pytest.raises(type(error)):
            await guards.around(needed, body)

    def failed() -> list[tuple[str, int, float]]:
        return sorted(
            (one.dependency, one.calls, one.failure_rate) for one in guards.snapshot(NOON)
        )

    await work(OSError("unexpected"))
    assert failed() == [("git:a", 1, 1.0), ("resource:disk", 0, 0.0), ("resource:memory", 0, 0.0)]
    await work(OSError(errno.ENOSPC, "full"))
    await work(MemoryError())
    assert failed() == [("git:a", 1, 1.0), ("resource:disk", 1, 1.0), ("resource:memory", 1, 1.0)]
    await work(StepFailed("exit 1", key="x", error_class="step"))
    assert failed() == [("git:a", 2, 0.5), ("resource:disk", 2, 0.5), ("resource:memory", 2, 0.5)]
    needed = ("resource:disk",)
    await work(OSError("unexpected"))
    assert failed()[1] == ("resource:disk", 2, 0.5)


async def test_an_instance_says_what_it_met_to_whoever_asks(clock: Clock) -> None:
    """Each attempt has a list of its own, also of what refused it."""
    guards, _ = made(clock)
    guards.command("b", "open", "ana", "")
    met: set[str] = set()
    token = MET.set(met)
    async with guards.guard("a"):
        pass
    with pytest.raises(BreakerOpen):
        async with guards.guard("b"):
            pass
    MET.reset(token)
    async with guards.guard("c"):
        pass
    assert met == {"a", "b"}


async def test_undos_are_let_through_and_count_for_nothing(clock: Clock) -> None:
    """Whatever the breaker says, and however many places are taken."""
    guards, _ = made(clock, db=Breaker(concurrency=1, queue=0, in_a_row=1))
    guards.command("db", "open", "ana", "")
    token = UNGUARDED.set(True)
    async with guards.guard("db"), guards.guard("db"):
        assert guards.snapshot(NOON)[0].busy == 0
    await fail(guards, "db", OSError())
    UNGUARDED.reset(token)
    (state,) = guards.snapshot(NOON)
    assert (state.state, state.calls, state.busy) == ("forced-open", 0, 0)


async def test_how_they_stand_is_told_in_the_time_of_day(clock: Clock) -> None:
    """The open ones first; who holds one, since when and why."""
    guards, _ = made(clock, a=QUICK, b=QUICK, declared=QUICK)
    async with guards.guard("a"):
        pass
    await fail(guards, "b", OSError("gone"), 2)
    clock.now += 5
    guards.command("c", "open", "ana", "moved")
    clock.now += 2
    c, b, a, declared = guards.snapshot(NOON)
    assert (c.dependency, c.state, c.forced_by, c.forced_why) == (
        "c",
        "forced-open",
        "ana",
        "moved",
    )
    assert c.forced_at == c.since == NOON - timedelta(seconds=2)
    guards.command("c", "open", "ana", "x" * 5000)
    shown = guards.snapshot(NOON)[0]
    assert (
        shown.forced_why == "x" * 199 + "…"
    )  # the record has all of it; announcements have an end
    assert len(shown.why) < 250
    assert (b.state, b.since, b.until) == (
        "open", NOON - timedelta(seconds=7), NOON + timedelta(seconds=3),
    )  # fmt: skip
    assert (b.failure_rate, b.calls, b.opened) == (1.0, 2, 1)
    assert (a.dependency, a.calls, a.failure_rate) == ("a", 1, 0.0)
    assert (declared.dependency, declared.calls) == ("declared", 0)


async def test_names_without_end_do_not_fill_the_memory(clock: Clock) -> None:
    """Closed ones that were asked for longest ago are forgotten; declared and open ones are kept."""
    guards, _ = made(clock, declared=QUICK)
    await fail(guards, "down", OSError(), 5)
    for number in range(2 * MAX_DEPENDENCIES):
        clock.now += 0.01
        async with guards.guard(f"endpoint:{number}"):
            pass
    assert len(guards.snapshot(NOON)) == MAX_SHOWN
    assert guards.snapshot(NOON)[0].dependency == "down"
    assert guards.open_for(["down"]) is not None
    async with guards.guard("x" * 1000):
        pass
    assert max(len(one.dependency) for one in guards.snapshot(NOON)) == 128


def always(error: BaseException) -> Verdict:
    """The same of every error."""
    del error
    return Verdict("transient")


async def test_a_judge_says_what_an_exception_means(clock: Clock) -> None:
    """Of all guards, or of one call."""
    changes: list[Changed] = []
    guards = Guards(
        {"*": QUICK},
        monotonic=clock,
        dice=lambda: 0.0,
        on_change=changes.append,
        judge=lambda error: Verdict("bug" if isinstance(error, OSError) else "timeout"),
    )
    await fail(guards, "a", OSError(), 5)
    assert changes == []
    await fail(guards, "a", Permanent("strange"), 2)
    assert [one.new for one in changes] == ["open"]
    for _ in range(2):
        with pytest.raises(OSError, match="b"):
            async with guards.guard("b", always):
                raise OSError("b")
    assert changes[-1].dependency == "b"


def test_a_policy_that_cannot_be_used_is_refused(clock: Clock) -> None:
    """With the dependency and the field."""
    with pytest.raises(UsageError, match=r"db.*probes"):
        made(clock, db=Breaker(probes=0))


async def test_a_probe_that_showed_nothing_is_told_since_another_may_take_its_place(
    clock: Clock,
) -> None:
    """Who waits for the place may be another capability, which nothing else would wake."""
    told: list[int | None] = []
    guards = Guards(
        {"llm": QUICK},
        monotonic=clock,
        dice=lambda: 0.0,
        on_probe_free=lambda: told.append(guards.room(["llm"])),
    )
    await fail(guards, "llm", OSError("gone"), times=2)
    clock.now += 10
    assert told == []
    async with guards.guard("llm") as permit:
        permit.release()
    await fail(guards, "llm", TypeError("a bug of the caller"))
    assert told == [1, 1]


async def test_a_call_that_is_asked_to_wait_keeps_its_breaker_open_for_so_long(
    clock: Clock,
) -> None:
    """By an exception, by a verdict, and around several; what time alone lets through is due then."""
    guards, _ = made(clock, llm=QUICK, db=QUICK, engine=QUICK)
    assert guards.due() is None
    await fail(guards, "llm", Retryable("busy", retry_after=70.0), 2)
    assert guards.open_for(["llm"]) == guards.due() == timedelta(seconds=70)
    for _ in range(2):
        async with guards.guard("db") as permit:
            permit.failure("rate-limited", "429", 50.0)

    async def work() -> None:
        raise StepFailed(
            "429", key="x", error_class="rate-limited", dependency="engine", retry_after=60.0
        )

    for _ in range(2):
        with pytest.raises(StepFailed):
            await guards.around(["engine"], work)
    assert guards.open_for(["db"]) == guards.due() == timedelta(seconds=50)
    assert guards.open_for(["engine"]) == timedelta(seconds=60)
