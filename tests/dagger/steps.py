"""Runs steps as a handler's `ctx.run` does, on one executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from switchgear.agent.executing import guarded
from switchgear.errors import StepFailed
from switchgear.steps.executor import Asked
from switchgear.steps.executors.dagger.executor import DaggerExecutor
from switchgear.steps.guard import Guards
from switchgear.steps.result import RunResult
from switchgear.steps.runner import Runner
from switchgear.steps.spec import StepSpec, container
from tests.patience import PATIENCE

IMAGE = "registry.example/tools:1"


def shell(text: str, image: str = IMAGE) -> StepSpec:
    return container(image).exec("sh", "-c", text)


def ignored(stream: str, line: str) -> None:
    """A line that nobody looks at."""


class Store:
    """Artifacts in memory."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        from switchgear import ids

        digest = ids.digest(data)
        self.blobs[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        return self.blobs[digest]


class Bench:
    """One executor behind a runner, and behind breakers where a test has some."""

    def __init__(
        self, executor: DaggerExecutor, environ: Mapping[str, str], guards: Guards | None = None
    ) -> None:
        self.executor = executor
        self.store = Store()
        self._runner = Runner(
            [executor],
            plan=lambda _, run_on: run_on("dagger"),
            guard=guarded(guards),
            environ=environ,
        )

    async def run(
        self, spec: StepSpec, on_line: Callable[[str, str], None] | None = ignored
    ) -> RunResult:
        """Lines are wanted unless said otherwise, as an agent's are."""
        async with asyncio.timeout(PATIENCE):
            return await self._runner.run(
                Asked(spec, "it"),
                on_line=on_line,
                blobs=self.store,  # type: ignore[arg-type]  # as much of a store as steps use
            )

    async def failure(self, spec: StepSpec) -> StepFailed:
        with pytest.raises(StepFailed) as caught:
            await self.run(spec)
        assert caught.value.key == "it"
        return caught.value

    def begin(self, spec: StepSpec) -> asyncio.Task[RunResult]:
        return asyncio.ensure_future(self.run(spec))

    @property
    def pid(self) -> int:
        """Of the session's CLI."""
        link = self.executor.links.current
        assert link is not None and link.pid is not None
        return link.pid


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody reaped does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


async def until(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when it holds."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)
