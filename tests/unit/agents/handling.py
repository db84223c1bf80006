"""Runs a handler without a mesh: its steps as real processes, its calls answered by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from switchgear.agent.context import Context
from switchgear.agent.run import Run
from switchgear.agent.step import run_step
from switchgear.agent.task_info import TaskInfo
from switchgear.contract.capability import reference
from switchgear.errors import NotDeclared
from switchgear.steps import runner
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec

Answers = dict[str, Callable[[Any], Any]]


class _Answered(Context):
    """Records nothing, and answers a call by the capability's name."""

    def __init__(self, answers: Answers, declared: frozenset[str], messages: list[str]) -> None:
        super().__init__(cast("Run", SimpleNamespace(gathers=0)))
        self._answers = answers
        self._declared = declared
        self._messages = messages

    @property
    def task(self) -> TaskInfo:
        return TaskInfo("task", "task", None, "it", "owner", datetime.now(UTC), None, None)

    async def step(self, key: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return (await run_step(key, fn, args, kwargs)).value

    async def run(self, key: str, spec: StepSpec) -> RunResult:
        return await runner.run(spec, key=key)

    async def call(self, capability: Any, input: Any, **_options: Any) -> Any:
        name = reference(capability).name
        if name not in self._declared:
            raise NotDeclared(f"it calls {name}, which it does not declare")
        return self._answers[name](input)

    def progress(self, fraction: float | None = None, message: str = "", **_: float) -> None:
        del fraction
        self._messages.append(message)


def context(
    *,
    answers: Answers | None = None,
    calls: Iterable[str] = (),
    progress: list[str] | None = None,
) -> Context:
    """A context; progress messages are added to the list."""
    return _Answered(answers or {}, frozenset(calls), [] if progress is None else progress)
