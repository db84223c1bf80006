"""Steps that move from one executor to another: run on one, on both, or on the next."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from switchgear.contract.artifact import Artifact
from switchgear.contract.rollout import Decision, Mode, Rollout, RolloutRule
from switchgear.errors import BreakerOpen, StepFailed
from switchgear.steps.executor import Asked, RunOn, Unsupported
from switchgear.steps.guard import MET
from switchgear.steps.result import Outcome
from switchgear.steps.rollout import AROUND, RolloutPlan, Surroundings
from switchgear.steps.spec import StepSpec, command, container
from tests.unit.steps.test_executors import Recording

SPEC = command("true").idempotent()


def outcome(executor: str, seconds: float = 1, **fields: Any) -> Outcome:
    plain: dict[str, Any] = {"exit_code": 0, "isolation": "none"}
    return Outcome(executor=executor, duration=timedelta(seconds=seconds), **(plain | fields))


class Executors:
    """Two fake executors, and what was asked of them."""

    def __init__(self, **ends: Any) -> None:
        self.ends = {"process": outcome("process"), "dagger": outcome("dagger", 2)} | ends
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.quiet: list[str] = []

    async def __call__(self, name: str, *, quiet: bool = False) -> Outcome:
        self.asked.append(name)
        self.quiet += [name] * quiet
        end = self.ends[name]
        if end is HANGS:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
        if isinstance(end, BaseException):
            raise end
        await asyncio.sleep(0)
        return end


HANGS: Any = object()


class Able(Recording):
    """An executor that is asked what it can; a process runs no image."""

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        if self.name == "process" and spec.image is not None:
            return Unsupported(feature=f"the image {spec.image}", why="", fix="")
        return None


class Hurried(Surroundings):
    """Waits for no shadow, and notes for how long it was to."""

    wanted: timedelta | None = None

    @contextmanager
    def aside(self, wanted: timedelta) -> Generator[timedelta]:
        self.wanted = wanted
        yield timedelta(seconds=0.01)


async def by_default(asked: Asked, run_on: RunOn) -> Outcome:
    return await run_on("process")


async def run(
    executors: Executors,
    rule: RolloutRule | None,
    *,
    spec: Any = SPEC,
    has: tuple[str, ...] = ("process", "dagger"),
    around: Surroundings | None = None,
) -> tuple[Outcome | BaseException, Decision | None]:
    """What came of a step under this rule, and the decision that its checkpoint would have."""
    found = None if rule is None else Rollout(capability="check", rules={"*": rule})

    async def find(capability: str) -> Rollout | None:
        assert capability == "check"
        return found

    plan = RolloutPlan(find, by_default, {name: Able(name) for name in has})
    around = around or Hurried()
    token = AROUND.set(around)
    try:
        end: Any = await plan(Asked(spec, "lint", "task-1", "check"), executors)
    except (StepFailed, BreakerOpen) as error:
        end = error
    finally:
        AROUND.reset(token)
    return end, around.decision


async def test_without_a_rule_the_default_decides_and_nothing_is_told() -> None:
    executors = Executors()
    end, decision = await run(executors, None)
    assert (executors.asked, decision) == (["process"], None)
    assert isinstance(end, Outcome)


async def test_outside_of_tasks_no_rule_is_looked_for() -> None:
    async def find(capability: str) -> Rollout | None:
        raise AssertionError(capability)

    executors = Executors()
    plan = RolloutPlan(find, by_default, {})
    assert (await plan(Asked(SPEC, "lint"), executors)).executor == "process"


@pytest.mark.parametrize(
    ("mode", "percent", "where"),
    [
        ("process", 100, "process"),
        ("dagger", 100, "dagger"),
        ("percent", 100, "dagger"),
        ("percent", 0, "process"),
    ],
)
async def test_one_executor_runs_and_the_decision_says_why(
    mode: Mode, percent: float, where: str
) -> None:
    executors = Executors()
    end, decision = await run(executors, RolloutRule(mode=mode, percent=percent))
    assert executors.asked == [where]
    assert isinstance(end, Outcome)
    assert decision is not None
    assert (decision.executor, decision.mode, decision.rule) == (where, mode, "*")
    assert decision.why


@pytest.mark.parametrize("serve", ["process", "dagger"])
async def test_both_run_in_shadow_and_the_one_that_serves_counts(serve: Any) -> None:
    executors = Executors()
    end, decision = await run(executors, RolloutRule(mode="shadow", serve=serve))
    assert sorted(executors.asked) == ["dagger", "process"]
    assert executors.quiet == [{"process": "dagger", "dagger": "process"}[serve]]
    assert isinstance(end, Outcome)
    assert end.executor == serve
    assert decision is not None
    assert decision.comparison is not None
    assert decision.comparison.differences == ()


def artifact(letter: str) -> Artifact:
    return Artifact(digest=letter * 64, size=1)


def failed(error_class: str = "step", **fields: Any) -> StepFailed:
    return StepFailed("it broke", key="lint", error_class=error_class, **fields)


@pytest.mark.parametrize(
    ("process", "dagger", "different"),
    [
        ({}, {}, []),
        ({"exit_code": 1}, {"exit_code": 1}, []),
        ({"exit_code": 1}, {"exit_code": 0}, ["exit-code"]),
        ({"timed_out": True}, {}, ["exit-code"]),
        ({"outputs": {"a": artifact("a")}}, {"outputs": {"a": artifact("a")}}, []),
        ({"outputs": {"a": artifact("a")}}, {"outputs": {"a": artifact("b")}}, ["outputs"]),
        ({"outputs": {"a": artifact("a")}}, {}, ["outputs"]),
        ({"stdout": "one\n"}, {"stdout": "one"}, []),
        ({"stdout": "one"}, {"stdout": "two"}, ["stdout"]),
        ({"stderr": "one"}, {"stderr": "two"}, []),
    ],
)
async def test_exit_code_outputs_and_stdout_are_compared(
    process: dict[str, Any], dagger: dict[str, Any], different: list[str]
) -> None:
    executors = Executors(process=outcome("process", **process), dagger=outcome("dagger", **dagger))
    _, decision = await run(executors, RolloutRule(mode="shadow"))
    assert decision is not None
    assert decision.comparison is not None
    assert [one.what for one in decision.comparison.differences] == different


async def test_what_differs_is_shown_from_where_it_differs() -> None:
    same = "x" * 5000
    executors = Executors(
        process=outcome("process", stdout=f"{same} red {same}"),
        dagger=outcome("dagger", stdout=f"{same} blue {same}"),
    )
    _, decision = await run(executors, RolloutRule(mode="shadow"))
    assert decision is not None
    assert decision.comparison is not None
    [one] = decision.comparison.differences
    assert "red" in one.served
    assert "blue" in one.shadow
    assert len(one.served) <= 200
    _, decision = await run(executors, RolloutRule(mode="shadow", compare_stdout=False))
    assert decision is not None
    assert decision.comparison is not None
    assert decision.comparison.differences == ()


@pytest.mark.parametrize(
    ("process", "dagger", "different", "skipped"),
    [
        (outcome("process"), failed("step"), ["failure"], ""),
        (outcome("process"), failed("invalid"), ["failure"], ""),
        (failed("invalid"), failed("invalid"), [], ""),
        (
            outcome("process"),
            failed("transient", dependency="dagger"),
            [],
            "dagger failed: transient",
        ),
        (
            outcome("process"),
            BreakerOpen("closed", dependency="dagger"),
            [],
            "the breaker of dagger was open",
        ),
        (outcome("process"), OSError(28, "full"), [], "resource:disk failed: resource"),
        (outcome("process"), KeyError("oops"), [], "something failed: transient"),
        (outcome("process"), HANGS, [], "it took too long beside the run that served"),
    ],
)
async def test_a_shadow_that_fails_only_shows_in_the_comparison(
    process: Any, dagger: Any, different: list[str], skipped: str
) -> None:
    """What says nothing of the step, such as an engine that is down, is no difference."""
    executors = Executors(process=process, dagger=dagger)
    end, decision = await run(executors, RolloutRule(mode="shadow"))
    assert end is process
    assert decision is not None
    assert decision.comparison is not None
    assert [one.what for one in decision.comparison.differences] == different
    assert decision.comparison.skipped == skipped
    assert executors.cancelled == (["dagger"] if dagger is HANGS else [])


async def test_durations_are_what_a_task_waits_for() -> None:
    """A container's own clock knows nothing of the engine's session, the image and the files."""

    class Slow(Executors):
        async def __call__(self, name: str, *, quiet: bool = False) -> Outcome:
            if name == "dagger":
                await asyncio.sleep(0.05)
            return await super().__call__(name, quiet=quiet)

    executors = Slow(process=outcome("process", 9), dagger=outcome("dagger", 0))
    _, decision = await run(executors, RolloutRule(mode="shadow"), around=Surroundings())
    assert decision is not None
    assert decision.comparison is not None
    assert decision.comparison.shadow >= timedelta(seconds=0.05) > timedelta(0)
    assert timedelta(0) < decision.comparison.served < decision.comparison.shadow


async def test_a_cache_hit_is_compared_but_not_timed() -> None:
    executors = Executors(dagger=outcome("dagger", 0.001, cached=True))
    _, decision = await run(executors, RolloutRule(mode="shadow"))
    assert decision is not None
    assert decision.comparison is not None
    assert (decision.comparison.served, decision.comparison.shadow) == (timedelta(0), timedelta(0))
    assert decision.comparison.skipped == ""


async def test_a_step_that_is_not_idempotent_is_not_run_twice_unless_told() -> None:
    executors = Executors()
    _, decision = await run(executors, RolloutRule(mode="shadow"), spec=command("true"))
    assert executors.asked == ["process"]
    assert decision is not None
    assert "not marked idempotent" in decision.why
    await run(executors, RolloutRule(mode="shadow", twice=True), spec=command("true"))
    assert sorted(executors.asked) == ["dagger", "process", "process"]


async def test_an_agent_without_the_other_executor_serves_without_a_shadow() -> None:
    executors = Executors()
    _, decision = await run(executors, RolloutRule(mode="shadow"), has=("process",))
    assert executors.asked == ["process"]
    assert decision is not None
    assert decision.why == "not shadowed: this agent has no executor dagger"


@pytest.mark.parametrize("mode", ["dagger", "shadow", "fallback"])
@pytest.mark.parametrize(
    "spec", [SPEC.on_host(), SPEC.mount("/out", "/srv", read_only=False)], ids=["told", "writes"]
)
async def test_a_step_that_needs_this_host_runs_as_a_process_once(
    mode: Mode, spec: StepSpec
) -> None:
    """Two processes would compare well, and say nothing of an engine; what an engine writes is lost."""
    executors = Executors()
    _, decision = await run(executors, RolloutRule(mode=mode), spec=spec)
    assert executors.asked == ["process"]
    assert decision is not None
    assert (decision.executor, decision.why) == (
        "process",
        "the step needs this host: it only runs as a process",
    )


@pytest.mark.parametrize("mode", ["process", "percent", "shadow", "fallback"])
async def test_an_image_runs_on_the_engine_under_any_rule(mode: Mode) -> None:
    """A rule for all steps of a capability must not break the one that has an image."""
    executors = Executors()
    rule = RolloutRule(mode=mode, percent=0)
    _, decision = await run(executors, rule, spec=container("x:1").exec("true").idempotent())
    assert executors.asked == ["dagger"]
    assert decision is not None
    assert (decision.executor, decision.why) == (
        "dagger",
        "the step needs the image x:1: it only runs on dagger",
    )


async def test_a_shadow_may_take_as_long_again_as_the_run_that_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs the task no more than that, and nothing where it is faster."""

    class Slow(Executors):
        async def __call__(self, name: str, *, quiet: bool = False) -> Outcome:
            if name == "process":
                await asyncio.sleep(0.02)
            return await super().__call__(name, quiet=quiet)

    around = Hurried()
    await run(Slow(dagger=HANGS), RolloutRule(mode="shadow"), around=around)
    assert around.wanted == timedelta(seconds=5), "the least"
    monkeypatch.setattr("switchgear.steps.rollout.LEAST_PATIENCE", timedelta(0))
    await run(Slow(dagger=HANGS), RolloutRule(mode="shadow"), around=around)
    assert around.wanted is not None
    assert around.wanted >= timedelta(seconds=0.02)


async def test_nobody_waits_for_a_shadow_of_what_did_not_run() -> None:
    refused, around = BreakerOpen("open", dependency="dagger", state="open"), Hurried()
    executors = Executors(dagger=refused, process=HANGS)
    end, decision = await run(executors, RolloutRule(mode="shadow", serve="dagger"), around=around)
    assert (end, around.wanted) == (refused, None)
    assert decision is not None
    assert decision.comparison is not None
    assert decision.comparison.skipped == "the breaker of dagger was open"


async def test_a_cancelled_step_leaves_neither_run_behind() -> None:
    executors = Executors(process=HANGS, dagger=HANGS)
    running = asyncio.create_task(run(executors, RolloutRule(mode="shadow")))
    while len(executors.asked) < 2:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(executors.cancelled) == ["dagger", "process"]


@pytest.mark.parametrize(
    ("error", "falls"),
    [
        (failed("transient", dependency="dagger"), True),
        (failed("invalid"), True),
        (BreakerOpen("closed", dependency="dagger"), True),
        (failed("transient", dependency="dagger", outcome_known=False), False),
        (failed("transient", outcome_known=False, idempotent=True), False),
        (failed("step"), False),
    ],
)
async def test_only_a_failure_that_took_no_effect_falls_back(
    error: Exception, *, falls: bool
) -> None:
    executors = Executors(dagger=error)
    end, decision = await run(executors, RolloutRule(mode="fallback"))
    assert executors.asked == (["dagger", "process"] if falls else ["dagger"])
    assert decision is not None
    if falls:
        assert isinstance(end, Outcome)
        assert decision.executor == "process"
        assert decision.fell_back.startswith("SG15")
    else:
        assert end is error
        assert (decision.executor, decision.fell_back) == ("dagger", "")


@pytest.mark.parametrize(("second", "raised"), [("invalid", "dagger"), ("transient", "process")])
async def test_a_step_that_cannot_run_elsewhere_fails_as_it_did_first(
    second: str, raised: str
) -> None:
    """An image is no process: what is to be mended is the engine."""
    errors = {
        "dagger": failed("transient", dependency="dagger"),
        "process": failed(second),
    }
    executors = Executors(**errors)
    end, decision = await run(executors, RolloutRule(mode="fallback"))
    assert executors.asked == ["dagger", "process"]
    assert end is errors[raised]
    assert decision is not None
    assert decision.executor == raised


async def test_what_the_second_left_in_doubt_is_told_and_not_how_the_first_failed() -> None:
    """It ran there: told as the first failure, which took no effect, it would be run again."""
    second = StepFailed("too large", key="it", error_class="invalid", outcome_known=False)
    executors = Executors(dagger=failed("transient", dependency="dagger"), process=second)
    end, decision = await run(executors, RolloutRule(mode="fallback"))
    assert end is second
    assert decision is not None
    assert decision.executor == "process"


async def test_an_exit_code_is_an_outcome_and_never_falls_back() -> None:
    executors = Executors(dagger=outcome("dagger", exit_code=3))
    end, _ = await run(executors, RolloutRule(mode="fallback"))
    assert executors.asked == ["dagger"]
    assert isinstance(end, Outcome)
    assert end.exit_code == 3


async def test_a_step_whose_decision_nobody_wants_runs_all_the_same() -> None:
    async def find(capability: str) -> Rollout | None:
        return Rollout(capability=capability, rules={"*": RolloutRule(mode="dagger")})

    executors = Executors()
    plan = RolloutPlan(find, by_default, {})
    assert (await plan(Asked(SPEC, "lint", "t", "check"), executors)).executor == "dagger"


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        (RolloutRule(mode="shadow"), {"process"}),
        (RolloutRule(mode="shadow", serve="dagger"), {"dagger"}),
        (RolloutRule(mode="fallback"), {"process"}),
        (RolloutRule(mode="dagger"), {"dagger"}),
    ],
)
async def test_only_what_the_step_cannot_do_without_counts_as_needed(
    rule: RolloutRule, needed: set[str]
) -> None:
    """Else the open breaker of an engine would stop a capability that is served without it."""

    class Asking(Executors):
        async def __call__(self, name: str, *, quiet: bool = False) -> Outcome:
            met = MET.get()
            assert met is not None
            met.add(name)
            return await super().__call__(name, quiet=quiet)

    refused = BreakerOpen("the breaker of dagger is open", dependency="dagger", state="open")
    dagger: Any = refused if rule.mode == "fallback" else outcome("dagger")
    found: set[str] = set()
    token = MET.set(found)
    try:
        end, _ = await run(Asking(dagger=dagger), rule)
    finally:
        MET.reset(token)
    assert isinstance(end, Outcome)
    assert found == needed
