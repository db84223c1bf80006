"""Runs a handler without a mesh: its steps as real processes, its calls answered by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from switchgear.agent.calls import Calls
from switchgear.agent.context import Context, Surroundings, TaskInfo
from switchgear.contract.capability import Capability
from switchgear.steps import runner
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec

Answers = dict[str, Callable[[Any], Any]]


class _Answered:
    """Stands for the bus: answers a call by the capability's name."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def call(
        self,
        _task: TaskInfo,
        wanted: Capability[Any, Any],
        input: Any,
        _key: str,
        _timeout: timedelta | None,
    ) -> Any:
        return self._answers[wanted.name](input)


async def _run(key: str, spec: StepSpec) -> RunResult:
    return await runner.run(spec, key=key)


def context(
    *,
    answers: Answers | None = None,
    calls: Iterable[str] = (),
    progress: list[str] | None = None,
) -> Context:
    """A context; progress messages are added to the list."""
    task = TaskInfo("task", "task", None, "it", "owner", datetime.now(UTC), None, None)
    messages = [] if progress is None else progress

    def report(_fraction: float | None, message: str, _counters: dict[str, float]) -> None:
        messages.append(message)

    return Context(
        Surroundings(
            task=task,
            attempt=1,
            fence=1,
            calls=cast("Calls", _Answered(answers or {})),
            declared=frozenset(calls),
            run=_run,
            report=report,
            resources={},
            moved=lambda: None,
        )
    )
