"""Pipelines as capabilities: loads the files of a directory, and runs their steps by the context alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from switchgear.agent.context import Context
from switchgear.contract.values import Retry
from switchgear.errors import Permanent, StepFailed, UsageError
from switchgear.pipelines import files, parameters, plan, specs
from switchgear.pipelines.evaluating import CannotEvaluate
from switchgear.pipelines.plan import Ended, Job, Leave, Plan
from switchgear.resilience.backoff import bound
from switchgear.resilience.classify import classify

if TYPE_CHECKING:
    from switchgear.agent.declare import Agent, Declared
    from switchgear.pipelines.model import Pipeline
    from switchgear.steps.result import RunResult
    from switchgear.steps.spec import StepSpec

TAIL = 4000
"""Characters of a step's output that the result keeps."""


class PipelineResult(Struct, frozen=True, kw_only=True):
    """What came of a pipeline: every step, and the outputs that the file declares."""

    pipeline: str
    steps: tuple[Ended, ...]
    """Each step, and each combination of its matrix: state, exit code, duration, artifacts, the end of its output."""
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])

    def step(self, key: str) -> Ended:
        """The step of this key, such as `test[python=3.12]`. Raises KeyError."""
        for one in self.steps:
            if one.key == key:
                return one
        raise KeyError(key)


def load_pipelines(
    agent: Agent, directory: str | Path, *, concurrency: int = 4
) -> tuple[Declared[Any, Any], ...]:
    """Offer every pipeline file (.toml, .yaml) of a directory as a capability of the agent, named as the pipeline.

    `concurrency`: how many tasks of each one instance runs at a time. Raises PipelineInvalid with all that is wrong
    in all files, NotFound, ExtraMissing for YAML without its package.
    """
    return tuple(
        _offer(agent, pipeline, concurrency) for pipeline in files.load_directory(directory)
    )


def _offer(agent: Agent, pipeline: Pipeline, concurrency: int) -> Declared[Any, Any]:
    async def handler(request: Any, ctx: Context) -> Any:
        return await run(pipeline, msgspec.structs.asdict(request), ctx)

    handler.__annotations__ = {
        "request": parameters.input_type(pipeline),
        "ctx": Context,
        "return": PipelineResult,
    }
    handler.__qualname__ = f"pipeline {pipeline.name}"
    handler.__doc__ = pipeline.description
    offer = agent.capability(
        pipeline.name,
        timeout=pipeline.timeout,
        retry=Retry(max_attempts=pipeline.attempts),
        concurrency=concurrency,
    )
    return offer(handler)


async def run(pipeline: Pipeline, params: dict[str, Any], ctx: Context) -> PipelineResult:
    """Run a pipeline in a handler. Raises StepFailed of the step that failed, Permanent for what has no plan."""
    try:
        planned = plan.plan(pipeline, params, ctx.task.id)
    except plan.CannotPlan as error:
        raise Permanent(f"the pipeline {pipeline.name} cannot run: {error}") from error
    running = _Running(planned, ctx)
    await ctx.gather(*(running.job(job) for job in planned.jobs))
    return running.result()


class _Running:
    """One run: jobs wait for what they need, and for a slot."""

    def __init__(self, planned: Plan, ctx: Context) -> None:
        self._plan = planned
        self._ctx = ctx
        self._ended: dict[str, Ended] = {}
        self._failures: dict[str, StepFailed] = {}
        self._over = {job.key: asyncio.Event() for job in planned.jobs}
        self._slots = asyncio.Semaphore(planned.pipeline.concurrency)

    async def job(self, job: Job) -> None:
        """See one job to its end; a failed one is told by `result`, when all have ended."""
        for one in self._plan.needed(job):
            await self._over[one.key].wait()
        async with self._slots:
            stopped = self._plan.pipeline.fail_fast and bool(self._failures)
            decision = plan.decide(self._plan, job, self._ended, stopped=stopped)
            if isinstance(decision, Leave):
                ended = self._left(job, decision)
            else:
                ended = await self._run(job)
        self._ended[job.key] = ended
        self._over[job.key].set()
        done, total = len(self._ended), len(self._plan.jobs)
        self._ctx.progress(done / total, f"{job.key}: {ended.state}", done=done, of=total)

    def result(self) -> PipelineResult:
        """The result, when all jobs have ended. Raises StepFailed, Permanent."""
        if self._failures:
            raise self._failure()
        try:
            outputs = plan.result(self._plan, self._ended)
        except CannotEvaluate as error:
            why = str(error)
            raise Permanent("an output of the pipeline has no value", why=why) from error
        steps = tuple(self._ended[job.key] for job in self._plan.jobs)
        kept = tuple(msgspec.structs.replace(one, stdout=one.stdout[-TAIL:]) for one in steps)
        return PipelineResult(pipeline=self._plan.pipeline.name, steps=kept, outputs=outputs)

    def _failure(self) -> StepFailed:
        """The failure that decides: one that no retry mends before the others, then in the order of the plan."""
        on = Retry().on
        failed = [job.key for job in self._plan.jobs if job.key in self._failures]
        failed.sort(key=lambda key: self._failures[key].error_class in on)
        error = self._failures[failed[0]]
        states = [f"{one.key} {one.state}" for one in self._ended.values() if not one.is_fine]
        done = sum(one.state == "success" for one in self._ended.values())
        told = f"{done} of {len(self._ended)} steps succeeded; {', '.join(states)}"
        error.why = f"{error.why}\n{told}" if error.why else told
        return error

    def _left(self, job: Job, leave: Leave) -> Ended:
        if leave.state == "failed":
            error = _invalid(job, leave.why)
            return self._failed(job, error, 0, 0)
        return Ended(key=job.key, step=job.step.name, state=leave.state, why=leave.why)

    async def _run(self, job: Job) -> Ended:
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 1
        try:
            spec = specs.spec_of(self._plan, job, self._ended)
        except (CannotEvaluate, UsageError) as error:
            return self._failed(job, _invalid(job, str(error)), 0, 0)
        while True:
            try:
                ran = await self._ctx.run(_key(job, number), spec)
            except StepFailed as error:
                if not _again(job, error, number, spec):
                    return self._failed(job, error, number, loop.time() - began)
            else:
                return _succeeded(job, ran, number)
            await self._pause(job, number)
            number += 1

    async def _pause(self, job: Job, number: int) -> None:
        """Wait before the next try, as recorded: a run that begins anew does not wait again."""
        retry = job.step.retry
        await self._ctx.sleep(f"{_key(job, number + 1)} pause", bound(retry, number))

    def _failed(self, job: Job, error: StepFailed, tries: int, seconds: float) -> Ended:
        if not job.step.allow_failure:
            self._failures[job.key] = error
        return Ended(
            key=job.key,
            step=job.step.name,
            state="failed",
            exit_code=error.exit_code,
            duration=timedelta(seconds=seconds),
            tries=tries,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            allowed=job.step.allow_failure,
            stdout=error.stdout,
        )


def _key(job: Job, number: int) -> str:
    """The first try has the job's key; the further ones keys of their own, since each is recorded."""
    return job.key if number == 1 else f"{job.key} try {number}"


def _again(job: Job, error: StepFailed, number: int, spec: StepSpec) -> bool:
    """Whether the step's policy repeats this failure; work of unknown outcome only where it may run twice."""
    failure = classify(error, step=job.key)
    policy = job.step.retry.of(failure.error_class)
    known = failure.outcome_known or spec.repeatable
    return known and failure.error_class in policy.on and number < policy.max_attempts


def _succeeded(job: Job, ran: RunResult, tries: int) -> Ended:
    return Ended(
        key=job.key,
        step=job.step.name,
        state="success",
        exit_code=ran.exit_code,
        duration=ran.duration,
        tries=tries,
        artifacts=ran.outputs,
        stdout=ran.stdout,
    )


def _invalid(job: Job, why: str) -> StepFailed:
    return StepFailed(
        f"step {job.key} cannot run as the pipeline says",
        key=job.key,
        error_class="invalid",
        why=why,
        fix="correct the pipeline's file, or the parameters",
    )
