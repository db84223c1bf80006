"""Steps and commands of a handler: run once, recorded at their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.agent.chunks import STEP
from switchgear.agent.digests import of_arguments, of_values
from switchgear.agent.recording import Ran
from switchgear.agent.step import is_idempotent, returned, run_step
from switchgear.contract import codec
from switchgear.errors import (
    BreakerOpen,
    NotRecordable,
    StepChanged,
    StepFailed,
    SwitchgearError,
    Unavailable,
    UsageError,
)
from switchgear.steps import aftermath
from switchgear.tasks import payload

if TYPE_CHECKING:
    from datetime import datetime

    from switchgear.agent.recording import Kind
    from switchgear.agent.run import Run
    from switchgear.contract.rollout import Decision
    from switchgear.steps.result import RunResult
    from switchgear.steps.spec import StepSpec

FENCE = "SWITCHGEAR_FENCE"
"""The environment variable in which a command finds its task's fence."""


async def step(run: Run, key: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a function as a step, or return what an earlier run recorded of it."""
    digest = of_arguments(args, kwargs)
    found = run.recording.find(key, "step", digest)
    if found is not None:
        return await run.recording.value(found, returned(fn))
    await run.begin()
    with run.waits.working():
        began = run.attempt.clock.now()
        token = STEP.set(key)
        try:
            body = run.services.instrument(run.task.id, key, fn)
            seed, services = f"{run.task.id}/{key}", run.services
            ran = await run_step(
                key,
                body,
                args,
                kwargs,
                seed=seed,
                judge=services.judge,
                guards=services.guards,
                left=run.left,
            )
        except SwitchgearError as error:
            await _failed(run, key, "step", digest, error, began)
            raise
        finally:
            STEP.reset(token)
        twice = is_idempotent(fn)
        stored = await _stored(run, key, "step", digest, ran.data, began, idempotent=twice)
        took = run.attempt.clock.now() - began
        await run.recording.done(
            key,
            "step",
            digest,
            stored,
            duration=took,
            ran=Ran("function", retries=ran.retries),
        )
        return ran.value


async def command(run: Run, key: str, spec: StepSpec) -> RunResult:
    """Run a command, or return what an earlier run recorded of it."""
    from switchgear.agent.around import Around
    from switchgear.steps.executor import Asked
    from switchgear.steps.result import RunResult
    from switchgear.steps.rollout import AROUND

    digest = of_values(spec)
    found = run.recording.find(key, "run", digest)
    if found is not None:
        return await run.recording.value(found, RunResult)
    await run.begin()
    with run.waits.working():
        began = run.attempt.clock.now()
        # What an engine may answer from its cache must not differ with the holder.
        fenced = spec if spec.reusable else spec.env(**{FENCE: str(run.attempt.hold)})
        around = Around(run)
        token = AROUND.set(around)
        try:
            execute = run.services.instrument(run.task.id, key, run.services.run_command)
            asked = Asked(fenced, key, run.task.id, run.task.capability)
            result = await execute(asked, run.reports.output, run.attempt.bus.blobs)
        except SwitchgearError as error:
            await _failed(run, key, "run", digest, error, began, around.decision)
            raise
        finally:
            AROUND.reset(token)
        data = codec.encode(result)
        twice, decision = spec.repeatable, around.decision
        stored = await _stored(run, key, "run", digest, data, began, decision, idempotent=twice)
        took = run.attempt.clock.now() - began
        ran = Ran(result.executor, result.isolation, decision=decision)
        await run.recording.done(key, "run", digest, stored, duration=took, ran=ran)
        return msgspec.json.decode(data, type=RunResult)


async def _stored(
    run: Run,
    key: str,
    kind: Kind,
    digest: str,
    data: bytes,
    began: datetime,
    decision: Decision | None = None,
    *,
    idempotent: bool,
) -> payload.Payload:
    """Store the result of what ran. Raises StepFailed of an unknown outcome where the store does not take it."""
    try:
        return await payload.store(run.attempt.bus.blobs, data)
    except Unavailable as error:
        lost = aftermath.lost(key, error, idempotent=idempotent)
        await _failed(run, key, kind, digest, lost, began, decision)
        raise lost from error


async def _failed(
    run: Run,
    key: str,
    kind: Kind,
    digest: str,
    error: SwitchgearError,
    began: datetime,
    decision: Decision | None = None,
) -> None:
    """Record the failure; a mistake of the code is none of the step's, and may be mended before the next run."""
    if isinstance(error, NotRecordable | StepChanged | UsageError):
        return
    if isinstance(error, BreakerOpen):
        run.attempt.refused = True
        return  # nothing was done: the next run asks again
    took = run.attempt.clock.now() - began
    executor, isolation = "" if decision is None else decision.executor, ""
    if isinstance(error, StepFailed):
        executor, isolation = error.executor or executor, error.isolation
    ran = Ran(executor, isolation, decision=decision)
    await run.recording.failed(key, kind, digest, error, duration=took, ran=ran)
