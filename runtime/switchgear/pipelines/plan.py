"""One run of a pipeline: its jobs, and what is to become of each when what it needs has ended. Pure.

A job is a step with one combination of its matrix's values. Its states: `success`, `failed`, `skipped` by its own
`if`, and `blocked`: not run, because something that it needs failed, or was blocked itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import product
from typing import Any, Literal, NamedTuple, cast

from msgspec import Struct, field

from switchgear.contract.artifact import Artifact
from switchgear.pipelines import evaluating, expression, graph, template
from switchgear.pipelines.checking import needs_of
from switchgear.pipelines.evaluating import CannotEvaluate, Scope
from switchgear.pipelines.model import MAX_COMBINATIONS, MAX_JOBS, Pipeline, Step

MAX_KEY = 256
"""Characters of a job's key."""
State = Literal["success", "failed", "skipped", "blocked"]


class CannotPlan(Exception):
    """Parameters with which the pipeline has no jobs, or too many; the text says why."""


class Job(NamedTuple):
    """A step with one combination of values."""

    key: str
    """Such as `test[python=3.12]`."""
    step: Step
    matrix: dict[str, Any]

    @property
    def combination(self) -> str:
        """Such as `python=3.12,os=linux`; empty without a matrix."""
        return ",".join(f"{axis}={evaluating.text(one)}" for axis, one in self.matrix.items())


class Ended(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a job ended: one line of the result."""

    key: str
    step: str
    state: State
    exit_code: int | None = None
    """None where it did not run, or did not get as far."""
    duration: timedelta = timedelta(0)
    """Of the try that succeeded."""
    tries: int = 0
    artifacts: dict[str, Artifact] = field(default_factory=dict[str, Artifact])
    why: str = ""
    """Why it was skipped, blocked, or failed."""
    allowed: bool = False
    """Whether it failed, and may."""
    stdout: str = ""
    """The end of its output."""

    @property
    def is_fine(self) -> bool:
        """Whether what needs it may run."""
        return self.state in {"success", "skipped"} or self.allowed


class Plan(NamedTuple):
    """The jobs of one run, each after all that it needs."""

    pipeline: Pipeline
    params: dict[str, Any]
    task: str
    jobs: tuple[Job, ...]

    def of(self, step: str) -> tuple[Job, ...]:
        """The jobs of a step."""
        return tuple(job for job in self.jobs if job.step.name == step)

    def needed(self, job: Job) -> tuple[Job, ...]:
        """The jobs that it waits for."""
        return tuple(one for name in job.step.needs for one in self.of(name))


def plan(pipeline: Pipeline, params: Mapping[str, Any], task: str) -> Plan:
    """The jobs for these parameters. Raises CannotPlan."""
    jobs: list[Job] = []
    for name in graph.order(needs_of(pipeline)):
        jobs += _jobs(pipeline.step(name), params)
    if len(jobs) > MAX_JOBS:
        raise CannotPlan(f"{len(jobs)} jobs are more than {MAX_JOBS}")
    taken: set[str] = set()
    for job in jobs:
        if len(job.key) > MAX_KEY:
            raise CannotPlan(f"the name of a job of {job.step.name} is longer than {MAX_KEY}")
        if job.key in taken:
            raise CannotPlan(f"two jobs are named {job.key}")
        taken.add(job.key)
    return Plan(pipeline, dict(params), task, tuple(jobs))


def combinations(step: Step, axes: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """All combinations of these axes' values that the step does not exclude; one without an axis."""
    found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [
        one
        for one in found
        if not any(
            row and all(one.get(axis) == value for axis, value in row.items())
            for row in step.exclude
        )
    ]


def _jobs(step: Step, params: Mapping[str, Any]) -> list[Job]:
    if not step.matrix:
        return [Job(step.name, step, {})]
    axes = {axis: _axis(step, axis, given, params) for axis, given in step.matrix.items()}
    number = 1
    for values in axes.values():
        number *= len(values)
    if number > MAX_COMBINATIONS:
        raise CannotPlan(f"{step.name}: {number} combinations are more than {MAX_COMBINATIONS}")
    jobs = [Job("", step, one) for one in combinations(step, axes)]
    return [job._replace(key=f"{step.name}[{job.combination}]") for job in jobs]


def _axis(
    step: Step, axis: str, given: tuple[Any, ...] | str, params: Mapping[str, Any]
) -> tuple[Any, ...]:
    if not isinstance(given, str):
        return given
    try:
        value = template.value(given, {"params": params})
    except CannotEvaluate as error:
        raise CannotPlan(f"{step.name}: {given}: {error}") from error
    if not isinstance(value, list):
        raise CannotPlan(f"{step.name}: {given} is no list")
    values = cast("list[Any]", value)
    if any(not isinstance(one, str | int | float) for one in values):
        raise CannotPlan(f"{step.name}: the axis {axis} holds more than texts and numbers")
    return tuple(dict.fromkeys(values))


# what becomes of a job


class Run(NamedTuple):
    """It runs now."""


class Leave(NamedTuple):
    """It does not run."""

    state: State
    why: str


def decide(plan: Plan, job: Job, ended: Mapping[str, Ended], *, stopped: bool) -> Run | Leave:
    """What to do with a job whose needed jobs have all ended.

    `stopped`: a job has failed, and the pipeline fails fast.
    """
    needed = [ended[one.key] for one in plan.needed(job)]
    bad = next((one for one in needed if not one.is_fine), None)
    blocked = f"{bad.key} {_has(bad)}" if bad is not None else ""
    if not blocked and stopped:
        blocked = "another step has failed"
    if blocked and not asks_status(job.step):
        return Leave("blocked", blocked)
    if job.step.condition:
        node = expression.parse(job.step.condition)
        try:
            if not evaluating.truth(evaluating.evaluate(node, scope(plan, job, ended))):
                return Leave("skipped", f"if {job.step.condition}")
        except CannotEvaluate as error:
            return Leave("failed", f"if {job.step.condition}: {error}")
    missing = missing_artifact(plan, job, ended)
    return Leave("blocked", missing) if missing else Run()


def asks_status(step: Step) -> bool:
    """Whether its `if` asks how what it needs ended: then what it does is of one attempt."""
    return bool(step.condition) and expression.asks_status(expression.parse(step.condition))


def varies(pipeline: Pipeline, step: Step) -> bool:
    """Whether what it sees of other steps may be other things in a later attempt."""
    above = [pipeline.step(name) for name in graph.above(needs_of(pipeline), step.name)]
    return any(one.allow_failure or asks_status(one) for one in above)


def missing_artifact(plan: Plan, job: Job, ended: Mapping[str, Ended]) -> str:
    """Which artifact it cannot do without is not there; empty for none."""
    for mount in job.step.mounts:
        if mount.artifact is None or mount.optional:
            continue
        step, output = mount.artifact
        for one in plan.of(step):
            if output not in ended[one.key].artifacts:
                return f"there is no artifact {output} of {one.key}, which {_has(ended[one.key])}"
    return ""


def scope(plan: Plan, job: Job | None, ended: Mapping[str, Ended]) -> dict[str, Any]:
    """What the job's expressions see; without a job, what those of the result see."""
    needs = needs_of(plan.pipeline)
    seen = graph.above(needs, job.step.name) if job is not None else set(needs)
    needed = [ended[one.key] for one in plan.needed(job)] if job is not None else []
    return {
        "params": plan.params,
        "matrix": job.matrix if job is not None else {},
        "steps": {name: _seen(plan, name, ended) for name in seen},
        "pipeline": {"name": plan.pipeline.name},
        "task": {"id": plan.task},
        "always": lambda: True,
        "success": lambda: all(one.is_fine for one in needed),
        "failed": lambda: any(not one.is_fine for one in needed),
    }


def result(plan: Plan, ended: Mapping[str, Ended]) -> dict[str, Any]:
    """The pipeline's own outputs. Raises CannotEvaluate."""
    names: Scope = scope(plan, None, ended)
    return {name: template.value(text, names) for name, text in plan.pipeline.outputs.items()}


def _seen(plan: Plan, name: str, ended: Mapping[str, Ended]) -> dict[str, Any]:
    """What expressions see of a step: with a matrix the worst outcome, else all of it."""
    jobs = [ended[one.key] for one in plan.of(name)]
    ranked: tuple[State, ...] = ("failed", "blocked", "success", "skipped")
    states = {one.state for one in jobs}
    outcome = next((state for state in ranked if state in states), "skipped")
    step = plan.pipeline.step(name)
    if step.matrix:
        return {"outcome": outcome}
    [one] = jobs
    digests = {output: artifact.digest for output, artifact in one.artifacts.items()}
    return {
        "outcome": outcome,
        "exit_code": one.exit_code,
        "stdout": one.stdout.rstrip("\n"),
        "outputs": {output: digests.get(output) for output in step.outputs},
    }


def _has(one: Ended) -> str:
    return {"failed": "failed", "blocked": "did not run", "skipped": "was skipped"}.get(
        one.state, "succeeded"
    )
