"""How this agent's steps are run: one runner with its executors, made when the first step asks for it.

Above: `worker`, which closes it. Below: `steps.runner`. What else has a say is composed here: breakers (the guard)
and rollout (the plan).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from switchgear.steps.rollouts import RolloutTable

if TYPE_CHECKING:
    from switchgear.agent.run import OnLine
    from switchgear.bus.port import Blobs
    from switchgear.bus.side_streams import Documents
    from switchgear.steps.executor import Asked, Executor, Guard, RunOn
    from switchgear.steps.guard import Guards
    from switchgear.steps.result import Outcome, RunResult
    from switchgear.steps.runner import Runner


class Executing:
    """The `RunCommand` of a worker."""

    def __init__(
        self,
        make: Callable[[], Runner] | None = None,
        guards: Guards | None = None,
        documents: Documents | None = None,
        changed: Callable[[str], None] | None = None,
    ) -> None:
        """`make`: how to make the runner; None: from this process's settings, its executors behind `guards`.

        `documents` hold the rollouts, which then choose among the executors; None: there are none. `changed` is told
        the capability whose rollout is another one now.
        """
        self._rollouts = None if documents is None else RolloutTable(documents, changed)
        self._make = make or partial(composed, guards, self._rollouts)
        self._runner: Runner | None = None

    async def __call__(self, asked: Asked, on_line: OnLine, blobs: Blobs) -> RunResult:
        """Run the step. Raises StepFailed, ConfigError for settings that cannot be used."""
        if self._runner is None:
            self._runner = self._make()
        return await self._runner.run(asked, on_line=on_line, blobs=blobs)

    async def close(self) -> None:
        """Let go of what the executors hold."""
        try:
            if self._rollouts is not None:
                await self._rollouts.close()
        finally:
            if self._runner is not None:
                await self._runner.close()


def composed(guards: Guards | None = None, rollouts: RolloutTable | None = None) -> Runner:
    """A runner as the environment configures it. Imported here: an agent without commands never pays for it."""
    from switchgear.steps.executors.dagger.executor import DaggerExecutor
    from switchgear.steps.executors.process import ProcessExecutor
    from switchgear.steps.settings import StepSettings

    settings = StepSettings.load(os.environ)
    engine = DaggerExecutor.configured(settings, os.environ, guards)
    process = ProcessExecutor(settings)
    executors = [process] if engine is None else [process, engine]
    return planned(executors, guarded(guards), rollouts, settings.engine_image)


def planned(
    executors: Sequence[Executor],
    guard: Guard | None,
    rollouts: RolloutTable | None,
    engine_image: str = "",
) -> Runner:
    """A runner of these executors, whose plan is the capability's rollout; the rest as for `Runner`."""
    from switchgear.steps.rollout import RolloutPlan
    from switchgear.steps.runner import Runner

    if rollouts is None:
        return Runner(executors, guard=guard, engine_image=engine_image)

    async def without(asked: Asked, run_on: RunOn) -> Outcome:
        return await runner.by_image(asked, run_on)

    plan = RolloutPlan(rollouts.find, without, {executor.name: executor for executor in executors})
    runner = Runner(executors, plan=plan, guard=guard, engine_image=engine_image)
    return runner


def guarded(guards: Guards | None) -> Guard | None:
    """What asks the instance's breakers around each execution."""
    if guards is None:
        return None

    async def guard(
        asked: Asked, dependencies: tuple[str, ...], execute: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        del asked
        return await guards.around(dependencies, execute)

    return guard
