"""`ctx.dagger()`: the SDK in a handler's own hands, isolated and behind the breaker."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from msgspec.structs import replace

from switchgear.agent.dagger_client import dagger_client
from switchgear.clock import SYSTEM
from switchgear.errors import ConfigError, StepFailed
from switchgear.resilience.breaker import Breaker
from switchgear.steps.executors.dagger.lone import lone
from switchgear.steps.executors.dagger.settings import DaggerSettings
from switchgear.steps.guard import Guards
from tests.dagger.engine import Engine, Fault
from tests.dagger.steps import IMAGE, until
from tests.patience import PATIENCE


@pytest.fixture
def here(settings: DaggerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the fake engine."""
    monkeypatch.setenv("_EXPERIMENTAL_DAGGER_CLI_BIN", settings.cli)
    monkeypatch.setenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST", settings.runner)


def guards() -> Guards:
    return Guards({}, monotonic=asyncio.get_running_loop().time, dice=lambda: 0.5)


async def test_code_of_the_sdk_runs_on_a_session_of_its_own(here: None, engine: Engine) -> None:
    async with dagger_client(guards()) as one, dagger_client(None) as two:
        texts = [
            await client.container().from_(IMAGE).with_exec(["echo", "hi"]).stdout()
            for client in (one, two)
        ]
        assert engine.opened == 2
    assert texts == ["hi\n", "hi\n"]
    await until(lambda: not engine.sessions)


async def test_only_what_the_engine_did_counts_against_it(here: None, engine: Engine) -> None:
    import dagger

    guarded = guards()
    with pytest.raises(ZeroDivisionError):
        async with dagger_client(guarded):
            raise ZeroDivisionError
    await until(lambda: not engine.sessions)
    assert [one.failure_rate for one in guarded.snapshot(SYSTEM.now())] == [0.0]
    engine.faults.append(Fault("answer", status=502, body=b""))
    with pytest.raises(dagger.TransportError):
        async with dagger_client(guarded) as client:
            await client.container().from_(IMAGE).with_exec(["true"]).stdout()
    assert [one.failure_rate for one in guarded.snapshot(SYSTEM.now())] == [1.0]


async def test_what_a_breaker_tells_of_the_engine_holds_no_text_of_the_handlers_error(
    here: None, engine: Engine
) -> None:
    """It is announced to everybody; an engine's text may hold an address, or what a command wrote."""
    import dagger

    opening = Breaker(in_a_row=1)
    guarded = Guards({"dagger": opening}, monotonic=time.monotonic, dice=lambda: 0.5)
    engine.faults.append(Fault("answer", status=502, body=b""))
    with pytest.raises(dagger.TransportError):
        async with dagger_client(guarded) as client:
            await client.container().from_(IMAGE).with_exec(["true"]).stdout()
    (state,) = guarded.snapshot(SYSTEM.now())
    assert state.why == "1 calls in a row failed, the last with transient: TransportError"


async def test_without_a_session_it_fails_as_a_step_that_did_not_run(
    here: None, engine: Engine
) -> None:
    await engine.kill()
    with pytest.raises(StepFailed, match="could not be run") as caught:
        async with dagger_client(None):
            pass
    assert (caught.value.error_class, caught.value.dependency) == ("transient", "dagger")


async def test_without_an_engine_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "_EXPERIMENTAL_DAGGER_CLI_BIN",
        "_EXPERIMENTAL_DAGGER_RUNNER_HOST",
        "DAGGER_SESSION_PORT",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="_EXPERIMENTAL_DAGGER_CLI_BIN"):
        async with dagger_client(None):
            pass


async def test_an_engine_that_freezes_does_not_hold_the_block_for_ever(
    settings: DaggerSettings, engine: Engine
) -> None:
    import dagger

    short = replace(settings, probe_timeout=timedelta(seconds=2))
    async with lone(short) as client, asyncio.timeout(PATIENCE):
        step = asyncio.ensure_future(
            client.container().from_(IMAGE).with_exec(["sleep", "1000"]).stdout()
        )
        await engine.running()
        engine.freeze()
        with pytest.raises(dagger.TransportError):
            await step
