"""Pipelines as capabilities: loads the files of a directory, and runs their steps by the context alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from switchgear.agent import host_paths as paths
from switchgear.agent.context import Context
from switchgear.agent.host_paths import Roots
from switchgear.contract import limits
from switchgear.contract.values import Retry
from switchgear.errors import Permanent, StepChanged, StepFailed, SwitchgearError, UsageError
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
    agent: Agent,
    directory: str | Path,
    *,
    concurrency: int = 4,
    host_paths: Collection[str | Path] | None = None,
) -> tuple[Declared[Any, Any], ...]:
    """Offer every pipeline file (.toml, .yaml) of a directory as a capability of the agent, named as the pipeline.

    `concurrency`: how many tasks of each one instance runs at a time. `host_paths`: directories of this host to which
    tasks may lead steps by their parameters, with all that is below; None: to any. Raises PipelineInvalid with all
    that is wrong in all files, NotFound, ExtraMissing for YAML without its package.
    """
    roots = paths.roots(host_paths)
    return tuple(
        _offer(agent, pipeline, concurrency, roots) for pipeline in files.load_directory(directory)
    )


def _offer(
    agent: Agent, pipeline: Pipeline, concurrency: int, roots: Roots = None
) -> Declared[Any, Any]:
    async def handler(request: Any, ctx: Context) -> Any:
        return await run(pipeline, msgspec.structs.asdict(request), ctx, roots)

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


async def run(
    pipeline: Pipeline, params: dict[str, Any], ctx: Context, roots: Roots = None
) -> PipelineResult:
    """Run a pipeline in a handler. Raises StepFailed of the step that failed, Permanent for what has no plan."""
    try:
        planned = plan.plan(pipeline, params, ctx.task.id)
    except plan.CannotPlan as error:
        raise Permanent(f"the pipeline {pipeline.name} cannot run: {error}") from error
    running = _Running(planned, ctx, roots)
    await ctx.gather(*(running.job(job) for job in planned.jobs))
    return running.result()


class _Running:
    """One run: jobs wait for what they need, and for a slot."""

    def __init__(self, planned: Plan, ctx: Context, roots: Roots) -> None:
        self._roots = roots
        self._plan = planned
        self._ctx = ctx
        self._ended: dict[str, Ended] = {}
        self._failures: dict[str, StepFailed] = {}
        self._left: SwitchgearError | None = None
        """Why the task goes on later, or not at all: nothing more begins."""
        self._over = {job.key: asyncio.Event() for job in planned.jobs}
        self._slots = asyncio.Semaphore(planned.pipeline.concurrency)

    async def job(self, job: Job) -> None:
        """See one job to its end; a failed one is told by `result`, when all have ended."""
        for one in self._plan.needed(job):
            await self._over[one.key].wait()
        async with self._slots:
            if self._left is None:
                try:
                    ended = self._ended[job.key] = await self._see(job)
                    done, total = len(self._ended), len(self._plan.jobs)
                    message = f"{job.key}: {ended.state}"
                    self._ctx.progress(done / total, message, done=done, of=total)
                except SwitchgearError as error:
                    # Those that run now come to their end, and are recorded: killed, they would run again.
                    self._left = error
        self._over[job.key].set()

    def result(self) -> PipelineResult:
        """The result, when all jobs have ended. Raises StepFailed, Permanent, and what left jobs undone."""
        if self._left is not None:
            raise self._left
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

    async def _see(self, job: Job) -> Ended:
        stopped = self._plan.pipeline.fail_fast and bool(self._failures)
        decision = plan.decide(self._plan, job, self._ended, stopped=stopped)
        if isinstance(decision, Leave):
            if decision.state == "failed":
                return self._failed(job, _invalid(job, decision.why), 0)
            return Ended(key=job.key, step=job.step.name, state=decision.state, why=decision.why)
        try:
            spec = specs.spec_of(self._plan, job, self._ended)
            paths.check(job.step, spec, self._roots)
        except (CannotEvaluate, UsageError) as error:
            return self._failed(job, _invalid(job, str(error)), 0)
        number = self._first(job)
        while True:
            try:
                return _succeeded(job, await self._ran(job, number, spec), number)
            except StepFailed as error:
                pause = _pause(job, error, number, spec)
                if pause is None:
                    return self._failed(job, error, number)
            number += 1
            # recorded: a run that begins anew does not wait again
            await self._ctx.sleep(f"{self._key(job, number)} pause", pause)

    async def _ran(self, job: Job, number: int, spec: StepSpec) -> RunResult:
        key = self._key(job, number)
        try:
            return await self._ctx.run(key, spec)
        except StepChanged:
            if self._ctx.attempt == 1 or not plan.varies(self._plan.pipeline, job.step):
                raise
            # It sees another outcome than in the attempt that recorded it: that was other work.
            return await self._ctx.run(f"{key} of attempt {self._ctx.attempt}", spec)

    def _key(self, job: Job, number: int) -> str:
        """The first try has the job's key; the further ones keys of their own, since each is recorded.

        What asks for a status is done in each attempt: it speaks of what happened there.
        """
        key = job.key if number == 1 else f"{job.key} try {number}"
        again = self._ctx.attempt > 1 and plan.asks_status(job.step)
        return f"{key} of attempt {self._ctx.attempt}" if again else key

    def _first(self, job: Job) -> int:
        """The try to begin with: the one that has succeeded, in an earlier attempt of the task."""
        ends = self._ctx._run.recording.records.ends  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - our own
        for number in range(2, job.step.retry.max_attempts + 1):
            found = ends.get(self._key(job, number))
            if found is not None and found.ok:
                return number
        return 1

    def _failed(self, job: Job, error: StepFailed, tries: int) -> Ended:
        if not job.step.allow_failure:
            self._failures[job.key] = error
        return Ended(
            key=job.key,
            step=job.step.name,
            state="failed",
            exit_code=error.exit_code,
            tries=tries,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            allowed=job.step.allow_failure,
            stdout=error.stdout,
        )


def _pause(job: Job, error: StepFailed, number: int, spec: StepSpec) -> timedelta | None:
    """How long to wait before the next try; None: there is none.

    Work of unknown outcome is tried again only where it may run twice.
    """
    policy, failure = job.step.retry, classify(error, step=job.key)
    known = failure.outcome_known or spec.repeatable
    if not known or failure.error_class not in policy.on or number >= policy.max_attempts:
        return None
    asked = timedelta(seconds=max(0.0, failure.retry_after or 0.0))
    return max(bound(policy, number), min(asked, limits.MAX_RETRY_AFTER))


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
