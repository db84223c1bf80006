"""The CLI child: started within its deadline, heard, killed and reaped, whatever it does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from switchgear.errors import ConfigError
from switchgear.steps.executors.dagger.errors import SessionFailed
from switchgear.steps.executors.dagger.session import CliSession, environment
from switchgear.steps.executors.dagger.settings import DaggerSettings
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine
from tests.dagger.steps import Bench, alive, shell, until

SHORT = timedelta(milliseconds=700)


def told(settings: DaggerSettings, **environ: str) -> DaggerSettings:
    return replace(settings, environ=(*settings.environ, *environ.items()))


def children() -> set[int]:
    """Processes of which this one is the parent."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return {int(pid) for pid in listed.split() if alive(int(pid))}


async def test_a_session_is_ready_and_ends_when_it_is_let_go(
    settings: DaggerSettings, engine: Engine
) -> None:
    session = await CliSession.start(settings)
    assert session.alive and session.port and session.token in engine.sessions
    await session.close()
    assert not alive(session.pid)
    await until(lambda: not engine.sessions)


@pytest.mark.parametrize("how", ["never", "garbage"])
async def test_a_cli_that_never_answers_or_talks_nonsense_is_killed(
    settings: DaggerSettings, how: str
) -> None:
    """Both ignore SIGTERM."""
    before = children()
    with pytest.raises(SessionFailed, match=r"not ready within|cannot be read"):
        await CliSession.start(replace(told(settings, FAKE_CLI=how), start_timeout=SHORT))
    assert children() <= before


async def test_t5_a_start_that_is_cancelled_leaves_no_child(
    settings: DaggerSettings, tmp_path: Path
) -> None:
    seen = tmp_path / "started"
    before = children()
    silent = told(settings, FAKE_CLI="never", FAKE_CLI_ENVIRONMENT=str(seen))
    task = asyncio.ensure_future(CliSession.start(silent))
    await until(seen.exists)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert children() <= before


async def test_t6_a_cli_whose_engine_is_gone_is_not_waited_for(
    settings: DaggerSettings, engine: Engine
) -> None:
    """It would try for ten minutes; an engine that does not listen is seen before it starts."""
    await engine.kill()
    with pytest.raises(SessionFailed, match="cannot be reached") as caught:
        await CliSession.start(settings)
    assert engine.runner in str(caught.value)


async def test_t6_a_cli_that_searches_behind_an_unknown_scheme_ends_at_the_deadline(
    settings: DaggerSettings, engine: Engine
) -> None:
    engine.freeze()
    before = children()
    with pytest.raises(SessionFailed, match=r"not ready within 0\.7 s"):
        await CliSession.start(replace(settings, start_timeout=SHORT))
    assert children() <= before


async def test_t7_a_cli_that_stays_when_it_is_let_go_is_killed(settings: DaggerSettings) -> None:
    session = await CliSession.start(told(settings, FAKE_CLI="lingers"))
    await session.close()
    assert not alive(session.pid)


async def test_t7_a_cli_that_fails_at_its_end_does_not_fail_the_step(make_bench: MakeBench) -> None:
    bench = make_bench(environ={"FAKE_CLI_EXIT": "7"})
    assert (await bench.run(shell("echo fine"))).stdout == "fine\n"
    await bench.executor.close()


async def test_t23_a_cli_never_inherits_a_session(settings: DaggerSettings, tmp_path: Path) -> None:
    seen = tmp_path / "environment"
    nested = told(
        settings,
        DAGGER_SESSION_PORT="1",
        DAGGER_SESSION_TOKEN="t",
        TRACEPARENT="00-x",
        FAKE_CLI_ENVIRONMENT=str(seen),
    )
    session = await CliSession.start(nested)
    await session.close()
    got = json.loads(seen.read_text("utf-8"))
    assert not {"DAGGER_SESSION_PORT", "DAGGER_SESSION_TOKEN", "TRACEPARENT"} & set(got)
    assert got["_EXPERIMENTAL_DAGGER_RUNNER_HOST"] == settings.runner


async def test_t26_why_a_session_did_not_start_is_said_and_bounded(
    settings: DaggerSettings,
) -> None:
    with pytest.raises(SessionFailed, match="exit code 1") as caught:
        await CliSession.start(told(settings, FAKE_CLI="says:no driver for scheme x"))
    assert caught.value.stderr.endswith("no driver for scheme x\n")
    assert len(caught.value.stderr) <= 8 * 1024


async def test_t26_a_step_repeats_what_the_cli_said(make_bench: MakeBench) -> None:
    skew = "says:engine version v0.18.0 is incompatible: minimum version is v0.19.0"
    failed = await make_bench(environ={"FAKE_CLI": skew}).failure(shell("true"))
    assert (failed.error_class, failed.dependency) == ("invalid", "dagger")
    assert "minimum version is v0.19.0" in failed.why


async def test_a_cli_that_does_not_exist_is_a_setting_to_correct(make_bench: MakeBench) -> None:
    failed = await make_bench(cli="/nowhere/dagger").failure(shell("true"))
    assert (failed.error_class, failed.outcome_known) == ("invalid", True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_a_cli_dies_with_an_agent_that_is_killed(
    settings: DaggerSettings, tmp_path: Path
) -> None:
    """Even while it looks for its engine, when a closed stdin does not end it."""
    seen = tmp_path / "environment"
    script = (
        "import asyncio, sys, msgspec\n"
        "from switchgear.steps.executors.dagger.session import CliSession\n"
        "from switchgear.steps.executors.dagger.settings import DaggerSettings\n"
        "asyncio.run(CliSession.start(msgspec.json.decode(sys.argv[1], type=DaggerSettings)))\n"
    )
    import msgspec

    pid_file = tmp_path / "pid"
    silent = told(
        settings, FAKE_CLI="never", FAKE_CLI_ENVIRONMENT=str(seen), FAKE_CLI_PID=str(pid_file)
    )
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, msgspec.json.encode(silent).decode(), stdin=subprocess.DEVNULL
    )
    await until(lambda: pid_file.exists() and pid_file.read_text("ascii") != "")
    agent.kill()
    await agent.wait()
    pid = int(pid_file.read_text("ascii"))
    await until(lambda: not alive(pid))


def test_t10_variables_of_opentelemetry_are_for_the_cli() -> None:
    given = DaggerSettings(cli="dagger", environ=(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"),))
    assert environment(given)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://x"


async def test_an_idle_session_is_released(make_bench: MakeBench, engine: Engine) -> None:
    """T22: an open session keeps its engine from stopping."""
    bench = make_bench(idle_after=timedelta(milliseconds=50))
    await bench.run(shell("true"))
    await until(lambda: not engine.sessions)
    assert (await bench.run(shell("echo again"))).stdout == "again\n"


async def test_t22_a_session_is_given_back_on_close_while_the_engine_waits_for_it(
    bench: Bench, engine: Engine
) -> None:
    await bench.run(shell("true"))
    assert engine.sessions
    await bench.executor.close()
    await until(lambda: not engine.sessions)


async def test_a_provided_session_is_used_and_never_ended(
    make_bench: MakeBench, engine: Engine
) -> None:
    from switchgear.steps.executors.dagger.settings import ProvidedSession

    port, token = await engine.provided()
    bench = make_bench(provided=ProvidedSession(port, token), cli="")
    assert (await bench.run(shell("echo hi"))).stdout == "hi\n"
    await bench.executor.close()
    assert token in engine.sessions
    assert engine.opened == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"DAGGER_SESSION_PORT": "12"},
        {"DAGGER_SESSION_TOKEN": "x"},
        {"DAGGER_SESSION_PORT": "x", "DAGGER_SESSION_TOKEN": "x"},
        {"DAGGER_SESSION_PORT": "70000", "DAGGER_SESSION_TOKEN": "x"},
        {"_EXPERIMENTAL_DAGGER_RUNNER_HOST": "tcp://engine:8080", "PATH": "/nowhere"},
        {"SWITCHGEAR_DAGGER_CONCURRENCY": "many"},
        {"SWITCHGEAR_DAGGER_IDLE": "soon"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        DaggerSettings.load(environ)


def test_settings_come_from_daggers_own_variables() -> None:
    found = DaggerSettings.load(
        {
            "_EXPERIMENTAL_DAGGER_CLI_BIN": "/bin/dagger",
            "_EXPERIMENTAL_DAGGER_RUNNER_HOST": "tcp://engine:8080",
            "SWITCHGEAR_DAGGER_CONCURRENCY": "3",
            "SWITCHGEAR_DAGGER_IDLE": "500ms",
        }
    )
    assert found.configured
    assert (found.cli, found.runner, found.concurrency) == ("/bin/dagger", "tcp://engine:8080", 3)
    assert found.idle_after == timedelta(milliseconds=500)
    assert not DaggerSettings.load({"PATH": "/bin"}).configured


def test_a_cli_gets_what_leads_to_engines_and_none_of_the_agents_credentials() -> None:
    needed = {
        "_EXPERIMENTAL_DAGGER_CLI_BIN": "/bin/dagger",
        "HTTPS_PROXY": "http://proxy:3128",
        "DOCKER_CONFIG": "/etc/docker",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    }
    others = {"SWITCHGEAR_CREDS": "/etc/agent.creds", "AWS_SESSION_TOKEN": "hush"}
    assert dict(DaggerSettings.load(needed | others).environ) == needed


async def test_an_engine_that_is_late_once_keeps_its_steps(
    make_bench: MakeBench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(probe_every=timedelta(milliseconds=10))
    asked: list[bool] = []

    async def late_once(*_: object) -> bool:
        asked.append(bool(asked))
        return asked[-1]

    monkeypatch.setattr("switchgear.steps.executors.dagger.link.probe", late_once)
    step = bench.begin(shell("sleep 1000"))
    await engine.running()
    await until(lambda: len(asked) > 2)
    assert not step.done()
    step.cancel()
    await asyncio.wait([step])
    assert engine.opened == 1


def test_the_token_of_a_session_is_in_no_text() -> None:
    found = DaggerSettings.load({"DAGGER_SESSION_PORT": "12", "DAGGER_SESSION_TOKEN": "hush"})
    assert "hush" not in repr(found)


async def test_health_tells_an_engine_that_answers_from_one_that_does_not(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench()
    assert (await bench.executor.health()).ok
    await until(lambda: not engine.sessions)
    await bench.run(shell("true"))
    assert (await bench.executor.health()).ok
    engine.freeze()
    hasty = make_bench(health_timeout=timedelta(milliseconds=300))
    assert not (await hasty.executor.health()).ok
    engine.thaw()
    await bench.executor.close()
    await engine.kill()
    unwell = await bench.executor.health()
    assert not unwell.ok
    assert "cannot be reached" in unwell.why
