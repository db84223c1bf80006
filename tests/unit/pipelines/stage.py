"""Runs a pipeline without a mesh: a context that answers by the key, and notes what began and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from switchgear.agent import pipelines
from switchgear.agent.context import Context
from switchgear.agent.pipelines import PipelineResult
from switchgear.agent.run import Run
from switchgear.agent.task_info import TaskInfo
from switchgear.errors import StepFailed, SwitchgearError
from switchgear.lifecycle.recording import NOTHING
from switchgear.pipelines import files
from switchgear.pipelines.model import Pipeline
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec

Answer = Callable[[str, StepSpec], RunResult | SwitchgearError | None]


class Stage(Context):
    """A context for one run; `answer` gives a key's end, None for success."""

    def __init__(self, answer: Answer = lambda _key, _spec: None) -> None:
        recording = SimpleNamespace(records=NOTHING)
        super().__init__(cast("Run", SimpleNamespace(gathers=0, recording=recording)))
        self._answer = answer
        self.events: list[tuple[str, str]] = []
        """`began` or `ended`, and the key."""
        self.specs: dict[str, StepSpec] = {}
        self.slept: list[tuple[str, timedelta]] = []
        self.most = 0
        """The most that ran at a time."""
        self._now = 0

    @property
    def task(self) -> TaskInfo:
        return TaskInfo("task-1", "task-1", None, "it", "owner", datetime.now(UTC), None, None)

    @property
    def attempt(self) -> int:
        return 1

    async def run(self, key: str, spec: StepSpec) -> RunResult:
        assert key not in self.specs, f"{key} ran twice"
        self.specs[key] = spec
        self.events.append(("began", key))
        self._now += 1
        self.most = max(self.most, self._now)
        # Keys take turns of their own length, so that ends come in many orders.
        for _ in range(sum(key.encode()) % 5):
            await asyncio.sleep(0)
        self._now -= 1
        self.events.append(("ended", key))
        answered = self._answer(key, spec)
        if isinstance(answered, SwitchgearError):
            raise answered
        return answered or RunResult(exit_code=0, stdout=f"{key}\n")

    async def sleep(self, key: str, until: timedelta | datetime) -> None:
        assert isinstance(until, timedelta)
        self.slept.append((key, until))

    def progress(self, fraction: float | None = None, message: str = "", **_: float) -> None:
        del fraction, message

    @property
    def order(self) -> list[str]:
        """Keys in the order in which they began."""
        return [key for event, key in self.events if event == "began"]


def failed(key: str, *, error_class: str = "step", exit_code: int = 1) -> StepFailed:
    """A failure of this step."""
    return StepFailed(f"step {key} failed", key=key, exit_code=exit_code, error_class=error_class)


async def ran(pipeline: Pipeline | str, stage: Stage, **params: Any) -> PipelineResult:
    """Run a pipeline, or the TOML of one."""
    if isinstance(pipeline, str):
        pipeline = files.parse("made.toml", pipeline)
    defaults = {one.name: one.default for one in pipeline.parameters}
    return await pipelines.run(pipeline, {**defaults, **params}, stage)
