"""Runs a step where its plan says, under its guard, and judges the end: a `RunResult`, or a `StepFailed` that says why.

Above: the context's `run`. Below: executors, which this module knows by their protocol only.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from switchgear.errors import StepFailed, UsageError
from switchgear.resilience.process_failures import process_end, process_verdict
from switchgear.steps import aftermath, shortage
from switchgear.steps.executor import Asked
from switchgear.steps.guard import UNGUARDED
from switchgear.steps.result import RunResult
from switchgear.steps.workspace import Workspace

if TYPE_CHECKING:
    from switchgear.bus.port import Blobs
    from switchgear.steps.executor import Executor, Guard, OnLine, Plan, RunOn
    from switchgear.steps.result import Outcome
    from switchgear.steps.settings import StepSettings
    from switchgear.steps.spec import StepSpec

_WHY = 2000
"""Characters of the error output that an error repeats."""


class Runner:
    """Steps of one process: its executors, the plan that chooses among them, the guard in front of each."""

    def __init__(
        self,
        executors: Iterable[Executor],
        *,
        plan: Plan | None = None,
        guard: Guard | None = None,
        environ: Mapping[str, str] | None = None,
        engine_image: str = "",
    ) -> None:
        """`plan`: None: an image runs on the engine where there is one, all else as a process.

        `environ`: what `env://` secrets are read from; None: this process's. `engine_image`: the image on the engine
        for specs that name none; empty: they need a process.
        """
        self.executors = {executor.name: executor for executor in executors}
        self._plan = plan or self.by_image
        self._guard = guard or _unguarded
        self._environ = os.environ if environ is None else environ
        self._engine_image = engine_image

    async def run(
        self, asked: Asked, *, on_line: OnLine | None = None, blobs: Blobs | None = None
    ) -> RunResult:
        """Run the step; whatever ends this call, nothing of the step runs on.

        Raises `StepFailed` with error_class "invalid" (it cannot run as written, or not here), "timeout" (time
        limit), "resource" (killed by somebody else's SIGKILL, as the kernel does when memory ends), "step" (any other
        unexpected exit), or what an executor or a guard says.
        """

        def run_on(name: str, *, quiet: bool = False) -> Awaitable[Outcome]:
            return self._run_on(*self._placed(name, asked), None if quiet else on_line, blobs)

        if not asked.spec.commands:
            raise UsageError(
                f"step {asked.key} runs nothing",
                why="its spec has no command",
                fix='add one: .exec("make", "test")',
            )
        return judge(asked, await self._plan(asked, run_on))

    async def by_image(self, asked: Asked, run_on: RunOn) -> Outcome:
        """The plan that holds where nobody gives another."""
        spec = asked.spec
        wanted = spec.image is not None or (self._engine_image and not spec.needs_host)
        return await run_on("dagger" if wanted and "dagger" in self.executors else "process")

    def _placed(self, name: str, asked: Asked) -> tuple[str, Asked]:
        """The executor that runs it, and what that one gets: an engine runs images, and nothing that is the host's."""
        if name != "dagger":
            return name, asked
        if asked.spec.needs_host:
            return "process", asked
        spec = self._on_engine(asked.spec)
        services = tuple(replace(one, spec=self._on_engine(one.spec)) for one in spec.services)
        return name, asked._replace(spec=replace(spec, services=services))

    def _on_engine(self, spec: StepSpec) -> StepSpec:
        return replace(spec, image=spec.image or self._engine_image or None)

    async def close(self) -> None:
        """Let go of what the executors hold."""
        for executor in self.executors.values():
            await executor.close()

    async def _run_on(
        self, name: str, asked: Asked, on_line: OnLine | None, blobs: Blobs | None
    ) -> Outcome:
        executor = self.executors.get(name)
        if executor is None:
            raise StepFailed(
                f"step {asked.key} is to run on the executor {name}, which this agent does not have",
                key=asked.key,
                error_class="invalid",
                fix=f"configure it, or choose one of {', '.join(sorted(self.executors))}",
            )
        lacking = executor.unsupported(asked.spec)
        if lacking is not None:
            raise StepFailed(
                f"step {asked.key} needs {lacking.feature}, which the {name} executor cannot give",
                key=asked.key,
                error_class="invalid",
                why=lacking.why,
                fix=lacking.fix,
            )

        async def execute() -> Outcome:
            workspace = Workspace(asked.key, blobs=blobs, environ=self._environ)
            try:
                async with workspace:
                    if not UNGUARDED.get():  # what is undone may be what filled the disk
                        shortage.ensure_room(workspace.directory)
                    outcome = await executor.execute(
                        asked.spec, on_line=on_line, workspace=workspace
                    )
            except Exception as error:
                failed = _of_step(asked, error, in_doubt=workspace.in_doubt)
                if failed is None:
                    raise
                raise failed from error
            return replace(outcome, notes=(*outcome.notes, *workspace.notes))

        try:
            return await self._guard(asked, executor.dependencies(asked.spec), execute)
        except StepFailed as failed:
            failed.idempotent = asked.spec.repeatable
            failed.executor = failed.executor or name
            raise


async def run(
    spec: StepSpec,
    *,
    key: str,
    on_line: OnLine | None = None,
    blobs: Blobs | None = None,
    settings: StepSettings | None = None,
) -> RunResult:
    """Run one step as a process, outside of an agent. Raises `StepFailed` as `Runner.run`."""
    from switchgear.steps.executors.process import ProcessExecutor
    from switchgear.steps.settings import StepSettings

    executor = ProcessExecutor(settings or StepSettings.load(os.environ))
    runner = Runner([executor])
    return await runner.run(Asked(spec, key), on_line=on_line, blobs=blobs)


async def _unguarded(
    asked: Asked, dependencies: tuple[str, ...], execute: Callable[[], Awaitable[Outcome]]
) -> Outcome:
    del asked, dependencies
    return await execute()


def _of_step(asked: Asked, error: Exception, *, in_doubt: bool) -> StepFailed | None:
    """The error of the step that this one means; None: it stays what it is.

    `in_doubt`: its commands may have taken effect. Whatever fails then, such as to keep what they left, is no reason to
    run them again.
    """
    found = shortage.found_in(error, asked.spec)
    if found is not None:
        return shortage.failure(asked.key, found, error, outcome_known=not in_doubt)
    if not in_doubt:
        return None
    if isinstance(error, StepFailed):
        error.outcome_known = False
        return None
    return aftermath.lost(asked.key, error)


def judge(asked: Asked, outcome: Outcome) -> RunResult:
    """The result, if the step ended as its spec expects; raises the StepFailed that it means otherwise. Pure."""
    if outcome.timed_out or outcome.exit_code not in asked.spec.exit_codes:
        raise _failure(asked.spec, asked.key, outcome)
    return RunResult(
        exit_code=outcome.exit_code,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        truncated=outcome.truncated,
        duration=outcome.duration,
        outputs=outcome.outputs,
        executor=outcome.executor,
        isolation=outcome.isolation,
        limits=outcome.limits,
        cached=outcome.cached,
        notes=outcome.notes,
    )


def _failure(spec: StepSpec, key: str, outcome: Outcome) -> StepFailed:
    tail = outcome.stderr.strip()[-_WHY:]
    found = process_verdict(outcome.exit_code, timed_out=outcome.timed_out)
    if outcome.timed_out:
        what = f"step {key} ran longer than its limit of {spec.time_limit}"
    else:
        what = f"step {key} {process_end(outcome.exit_code)}"
    if found.error_class == "resource":
        tail = tail or "somebody killed it; the kernel does so when memory ends"
    failed = StepFailed(
        what,
        key=key,
        exit_code=outcome.exit_code,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        error_class=found.error_class,
        outcome_known=found.outcome_known,
        dependency=found.dependency,
        idempotent=spec.repeatable,
        why=tail,
        fix="; ".join(filter(None, (found.fix, *outcome.notes))),
    )
    failed.executor, failed.isolation = outcome.executor, outcome.isolation
    return failed
