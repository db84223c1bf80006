"""Steps in real sandboxes, with artifacts in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from switchgear.bus.port import Blobs
from switchgear.errors import NotFound, StepFailed
from switchgear.steps import bubblewrap, runner
from switchgear.steps.result import RunResult
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import StepSpec, command
from tests.patience import PATIENCE

NO_SANDBOX = asyncio.run(bubblewrap.probe())
# Never skipped in CI: a green run must have tested it.
MAY_SKIP = NO_SANDBOX != "" and not (os.environ.get("CI") and sys.platform == "linux")
needs_sandbox = pytest.mark.skipif(MAY_SKIP, reason=NO_SANDBOX)


class MemoryBlobs:
    """What a step asks of the object store."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.stored[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        if digest not in self.stored:
            raise NotFound(f"no blob {digest}")
        return self.stored[digest]


def python(code: str, *args: str) -> StepSpec:
    return command(sys.executable, "-c", code, *args)


def shell(text: str) -> StepSpec:
    return command("sh", "-c", text)


async def run(
    spec: StepSpec,
    *,
    on_line: Callable[[str, str], None] | None = None,
    blobs: MemoryBlobs | None = None,
    settings: StepSettings | None = None,
) -> RunResult:
    async with asyncio.timeout(PATIENCE):
        return await runner.run(
            spec,
            key="it",
            on_line=on_line,
            blobs=cast("Blobs | None", blobs),
            settings=settings or StepSettings(),
        )


async def failure(spec: StepSpec, **more: object) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await run(spec, **more)  # type: ignore[arg-type]  # as `run`
    return caught.value


def root_filesystem(home: Path, *programs: str) -> Path:
    """A directory with these programs of the host and the libraries that they need."""
    for name in programs:
        found = shutil.which(name)
        assert found is not None
        listed = subprocess.run(["ldd", found], capture_output=True, encoding="utf-8", check=False)
        words = [word for word in listed.stdout.split() if word.startswith("/")]
        for file in (found, *words):
            copy = home / file.removeprefix("/")
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    return home
