"""Runs a handler without a mesh: its steps as real processes, its calls answered by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from switchgear import ids
from switchgear.agent.context import Context
from switchgear.agent.run import Run
from switchgear.agent.step import run_step
from switchgear.agent.task_info import TaskInfo
from switchgear.bus.port import Blobs
from switchgear.contract.artifact import BYTES, Artifact
from switchgear.contract.capability import reference
from switchgear.errors import NotDeclared
from switchgear.steps import packing, runner
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec

Answers = dict[str, Callable[[Any], Any]]


class Kept:
    """Artifacts' bytes by digest."""

    def __init__(self) -> None:
        self.all: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        digest = ids.digest(data)
        self.all[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        return self.all[digest]


class _Child:
    """A child that has ended, with the test's answer."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    async def result(self, **_options: Any) -> Any:
        return self._answer()

    async def status(self) -> Any:
        now = datetime.now(UTC)
        return SimpleNamespace(submitted_at=now, updated_at=now)


class _Answered(Context):
    """Records nothing, and answers a child by the capability's name."""

    def __init__(self, answers: Answers, declared: frozenset[str], messages: list[str]) -> None:
        super().__init__(cast("Run", SimpleNamespace(gathers=0)))
        self._answers = answers
        self._declared = declared
        self._messages = messages
        self._kept = Kept()

    @property
    def task(self) -> TaskInfo:
        return TaskInfo("task", "task", None, "it", "owner", datetime.now(UTC), None, None)

    async def step(self, key: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return (await run_step(key, fn, args, kwargs)).value

    async def run(self, key: str, spec: StepSpec) -> RunResult:
        return await runner.run(spec, key=key, blobs=cast("Blobs", self._kept))

    async def save(
        self, key: str, data: bytes | Path, *, name: str = "", media_type: str = BYTES
    ) -> Artifact:
        assert isinstance(data, bytes)
        await self._kept.put(data)
        return packing.packed(data, name or key, media_type=media_type).artifact

    async def load(self, artifact: Artifact) -> bytes:
        return await self._kept.get(artifact.digest)

    async def submit(self, capability: Any, input: Any, **_options: Any) -> Any:
        name = reference(capability).name
        if name not in self._declared:
            raise NotDeclared(f"it calls {name}, which it does not declare")
        return _Child(lambda: self._answers[name](input))

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
