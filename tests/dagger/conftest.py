"""A fake engine with its CLI, and executors that use them; all that is started ends with its test."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from switchgear.steps.executors.dagger.executor import DaggerExecutor
from switchgear.steps.executors.dagger.settings import DaggerSettings
from switchgear.steps.guard import Guards
from switchgear.steps.settings import StepSettings
from tests.dagger.engine import Engine
from tests.dagger.steps import Bench

MakeBench = Callable[..., Bench]
"""A bench on the engine; keywords change its settings."""


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Skip where there is none, but never in CI."""
    if shutil.which("bwrap") is None:
        if os.environ.get("CI"):
            pytest.fail("bubblewrap is missing", pytrace=False)
        pytest.skip("bubblewrap is missing")


@pytest_asyncio.fixture
async def engine(tmp_path: Path, bubblewrap: None) -> AsyncIterator[Engine]:
    folder = tmp_path / "engine"
    folder.mkdir()
    async with Engine(folder) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path) -> str:
    """A program that stands in for the CLI."""
    program = tmp_path / "dagger"
    script = Path(__file__).with_name("fake_cli.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {script} "$@"\n', "utf-8")
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def settings(engine: Engine, cli: str) -> DaggerSettings:
    """Patient, so that a busy machine is no fault; the CLI sees PATH and what a test adds."""
    return DaggerSettings(
        cli=cli,
        runner=engine.runner,
        environ=(("PATH", os.environ["PATH"]),),
        start_timeout=timedelta(seconds=30),
        connect_timeout=timedelta(seconds=30),
        probe_every=timedelta(milliseconds=100),
        probe_timeout=timedelta(seconds=20),
        health_timeout=timedelta(seconds=20),
    )


@pytest_asyncio.fixture
async def make_bench(settings: DaggerSettings, engine: Engine) -> AsyncIterator[MakeBench]:
    async with AsyncExitStack() as stack:

        def make(
            *,
            environ: dict[str, str] | None = None,
            environ_of_cli: dict[str, str] | None = None,
            guards: Guards | None = None,
            **changes: Any,
        ) -> Bench:
            """`environ_of_cli`: where it is another one than the agent's, as after a change."""
            own = dict(settings.environ) | (environ or {})
            theirs = own | (environ_of_cli or {})
            engine.environ = theirs
            changed = replace(settings, environ=tuple(sorted(theirs.items())), **changes)
            executor = DaggerExecutor(StepSettings(), changed, guards)
            stack.push_async_callback(executor.close)
            return Bench(executor, own, guards)

        yield make


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()
