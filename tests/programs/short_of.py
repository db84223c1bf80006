"""A process whose host runs out of something, and what its steps and breakers then do; told as JSON.

`python -m tests.programs.short_of RESOURCE ISOLATION LOOP FOLDER`. FOLDER is kept; temporary files are in TMPDIR.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from switchgear import Breaker, BreakerOpen, StepFailed, command
from switchgear.agent.executing import guarded
from switchgear.steps.executor import Asked
from switchgear.steps.executors.process import ProcessExecutor
from switchgear.steps.guard import Changed, Guards
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings

IN_A_ROW = 3
NOBODY = 65534
OPEN_FOR = 30.0
EATER = f"head -c {600 << 20} /dev/zero | tail -c {512 << 20}"
"""Wants the second number of bytes of memory."""


class Disk:
    """Its file system for temporary files is full."""

    file = Path(tempfile.gettempdir(), "filler")

    def take(self) -> None:
        with suppress(OSError), self.file.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def give(self) -> None:
        self.file.unlink()


class Files:
    """It may open no more files, but for the first few."""

    def __init__(self, left: int = 0) -> None:
        self.left = left
        self.held: list[int] = []

    def take(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
        with suppress(OSError):
            while True:
                self.held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(self.left):
            os.close(self.held.pop())

    def give(self) -> None:
        while self.held:
            os.close(self.held.pop())


class Processes:
    """Its user may have no more processes; root may have any number, so meanwhile it is nobody's."""

    def take(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        if os.getuid() == 0:
            os.setresuid(NOBODY, NOBODY, 0)

    def give(self) -> None:
        if os.getuid() == NOBODY:
            os.setresuid(0, 0, 0)
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))


class Bench:
    """One instance: its executor behind its breakers, on a clock that is set."""

    def __init__(self, isolation: str, folder: Path) -> None:
        self.now = 1000.0
        self.changes: list[tuple[str, str]] = []
        self.marks = folder / "marks"
        self.marks.touch()
        self.marks.chmod(0o666)
        policy = Breaker(in_a_row=IN_A_ROW, jitter=0.0)
        self.guards = Guards(
            {"resource:*": policy},
            monotonic=lambda: self.now,
            dice=lambda: 0.0,
            on_change=self._changed,
        )
        settings = StepSettings(
            isolation=cast("Literal['required', 'preferred', 'none']", isolation)
        )
        self.executor = ProcessExecutor(settings)
        self.runner = Runner([self.executor], guard=guarded(self.guards))

    def _changed(self, change: Changed) -> None:
        self.changes.append((change.dependency, change.new))

    @property
    def runs(self) -> int:
        """How often a step's command ran."""
        return self.marks.stat().st_size

    async def step(self, then: str = "true") -> dict[str, Any]:
        """One step, and how it ended; `then`: what it does when it has left its mark."""
        ran = self.runs
        line = f"printf x >> {self.marks}; {then}"
        spec = command("sh", "-c", line).workdir(str(self.marks.parent))
        end: dict[str, Any]
        try:
            async with asyncio.timeout(30):
                result = await self.runner.run(Asked(spec, "it"))
            end = {"end": "well", "isolation": result.isolation}
        except BreakerOpen as error:
            end = {"end": "refused", "dependency": error.dependency, "state": error.state}
        except StepFailed as error:
            end = {
                "end": "failed",
                "class": error.error_class,
                "dependency": error.dependency,
                "known": error.outcome_known,
                "exit code": error.exit_code,
            }
        return {**end, "ran": self.runs - ran}


async def outage(bench: Bench, lack: Disk | Files | Processes) -> dict[str, Any]:
    """Well, short until the breaker opens, a probe while it is still short, and one when it is not."""
    await asyncio.to_thread(bool)  # as in any agent: a first thread needs files and room itself
    told: dict[str, Any] = {"before": await bench.step()}
    lack.take()
    try:
        told["short"] = [await bench.step() for _ in range(IN_A_ROW)]
        told["open"] = await bench.step()
        bench.now += OPEN_FOR + 1
        told["probe"] = await bench.step()
        told["again"] = await bench.step()
    finally:
        lack.give()
    bench.now += 2 * OPEN_FOR + 1
    told["after"] = await bench.step()
    return {**told, "changes": bench.changes}


async def fewer(bench: Bench) -> list[dict[str, Any]]:
    """Steps that may open so many files: none, one, two."""
    await asyncio.to_thread(bool)  # as above
    bench.guards.command("resource:files", "close", "test", "each failure is looked at")
    ends: list[dict[str, Any]] = []
    for left in range(30):
        lack = Files(left)
        lack.take()
        try:
            ends.append(await bench.step())
        finally:
            lack.give()
    return ends


async def starving(bench: Bench) -> dict[str, Any]:
    """Steps that want more memory than the group of processes may have; one of them is killed by hand."""
    told: dict[str, Any] = {"before": await bench.step(), "by hand": await bench.step("kill -9 $$")}
    told["short"] = [await bench.step(EATER) for _ in range(IN_A_ROW)]
    told["open"] = await bench.step()
    bench.now += OPEN_FOR + 1
    told["after"] = await bench.step()
    return {**told, "changes": bench.changes}


async def main(kind: str, isolation: str, folder: Path) -> None:
    """Run the scenario of this kind."""
    lacks: dict[str, Callable[[], Disk | Files | Processes]] = {
        "disk": Disk,
        "files": Files,
        "processes": Processes,
    }
    bench = Bench(isolation, folder)
    told: object
    if kind in lacks:
        told = await outage(bench, lacks[kind]())
    else:
        told = await (fewer(bench) if kind == "fewer-files" else starving(bench))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _, kind_, isolation_, loop_, folder_ = sys.argv
    if loop_ == "uvloop":
        import uvloop

        uvloop.run(main(kind_, isolation_, Path(folder_)))
    else:
        asyncio.run(main(kind_, isolation_, Path(folder_)))
