"""Steps on their way from processes to an engine: both executors as they are, the SDK unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import pytest

from switchgear.contract.rollout import Decision, Rollout, RolloutRule
from switchgear.errors import StepFailed
from switchgear.steps.executor import Asked, RunOn
from switchgear.steps.executors.process import ProcessExecutor
from switchgear.steps.result import Outcome, RunResult
from switchgear.steps.rollout import AROUND, RolloutPlan, Surroundings
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import StepSpec, command
from tests.dagger.engine import Engine, Fault
from tests.dagger.steps import IMAGE, Bench
from tests.patience import PATIENCE

SPEC = command("sh", "-c", "echo fine").idempotent()


class Ran(NamedTuple):
    """A step's end, and the decision that its checkpoint would have."""

    result: RunResult | StepFailed
    decision: Decision


class Patient(Surroundings):
    """Waits for a shadow on a busy machine, too."""

    @contextmanager
    def aside(self, wanted: timedelta) -> Generator[timedelta]:
        del wanted
        yield timedelta(seconds=30)


async def run(bench: Bench, rule: RolloutRule, spec: StepSpec = SPEC) -> Ran:
    """Run the step under the rule, on an agent with both executors."""

    async def find(capability: str) -> Rollout:
        return Rollout(capability=capability, rules={"*": rule})

    async def never(asked: Asked, run_on: RunOn) -> Outcome:
        raise AssertionError(asked)

    process = ProcessExecutor(StepSettings(isolation="preferred"))
    plan = RolloutPlan(find, never, {"process": process, "dagger": bench.executor})
    runner = Runner([process, bench.executor], plan=plan, engine_image=IMAGE)
    around = Patient()
    token = AROUND.set(around)
    try:
        async with asyncio.timeout(PATIENCE):
            result = await runner.run(Asked(spec, "it", "task-1", "check"))
    except StepFailed as failed:
        result = failed
    finally:
        AROUND.reset(token)
    assert around.decision is not None
    return Ran(result, around.decision)


async def test_a_step_that_does_the_same_on_both_has_no_difference(bench: Bench) -> None:
    result, decision = await run(bench, RolloutRule(mode="shadow"))
    assert isinstance(result, RunResult)
    assert (result.executor, result.stdout) == ("process", "fine\n")
    assert decision.comparison is not None
    assert (decision.comparison.differences, decision.comparison.skipped) == ((), "")
    assert min(decision.comparison.served, decision.comparison.shadow) > timedelta(0)


@pytest.mark.parametrize("serve", ["process", "dagger"])
async def test_the_same_failure_on_both_is_no_difference_and_fails_the_step(
    bench: Bench, serve: str
) -> None:
    spec = command("sh", "-c", "echo bad; exit 3").idempotent()
    rule = RolloutRule(mode="shadow", serve=serve)  # type: ignore[arg-type]
    result, decision = await run(bench, rule, spec)
    assert isinstance(result, StepFailed)
    assert result.exit_code == 3
    assert decision.comparison is not None
    assert decision.comparison.differences == ()


async def test_what_differs_is_seen(bench: Bench) -> None:
    """Here the folder in which a step begins that names none."""
    spec = command("sh", "-c", "pwd").idempotent()
    result, decision = await run(bench, RolloutRule(mode="shadow"), spec)
    assert isinstance(result, RunResult)
    assert decision.comparison is not None
    [different] = decision.comparison.differences
    assert different.what == "stdout"
    assert different.served != different.shadow


async def test_an_engine_that_is_gone_says_nothing_of_the_step(
    bench: Bench, engine: Engine
) -> None:
    engine.faults.append(Fault("drop-before", times=9))
    result, decision = await run(bench, RolloutRule(mode="shadow"))
    assert isinstance(result, RunResult)
    assert decision.comparison is not None
    assert decision.comparison.differences == ()
    assert decision.comparison.skipped == "dagger failed: transient"


async def test_a_lost_answer_is_not_run_elsewhere(bench: Bench, engine: Engine) -> None:
    """The engine did the work, or did not: nobody knows."""
    engine.faults.append(Fault("drop-after", times=9))
    spec = command("sh", "-c", "echo once")
    result, decision = await run(bench, RolloutRule(mode="fallback"), spec)
    assert isinstance(result, StepFailed)
    assert not result.outcome_known
    assert (decision.executor, decision.fell_back) == ("dagger", "")


async def test_a_pull_that_is_denied_falls_back(bench: Bench, engine: Engine) -> None:
    """Nothing ran: the process does the work, and the decision says why."""
    body = {
        "data": None,
        "errors": [{"message": "denied: 403 Forbidden", "path": ["container", "from"]}],
    }
    engine.faults.append(Fault("answer", contains="from", body=body, times=9))
    result, decision = await run(bench, RolloutRule(mode="fallback"))
    assert isinstance(result, RunResult)
    assert result.executor == "process"
    assert decision.executor == "process"
    assert "SG1503" in decision.fell_back


async def test_a_step_whose_outputs_were_lost_is_not_run_elsewhere(
    bench: Bench, engine: Engine
) -> None:
    """It did its work in the engine: there is no mesh here that keeps what it left."""
    spec = command("sh", "-c", "echo it > x").workdir("/tmp/w").output("x", "x")
    result, decision = await run(bench, RolloutRule(mode="fallback"), spec)
    assert isinstance(result, StepFailed)
    assert not result.outcome_known
    assert (decision.executor, decision.fell_back) == ("dagger", "")
    assert engine.host.started == 1
