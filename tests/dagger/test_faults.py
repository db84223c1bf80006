"""Engine and registry fail in every way seen so far: what the step's error says, and that the next step runs."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchgear.clock import SYSTEM
from switchgear.errors import Unavailable
from switchgear.steps import packing, shortage
from switchgear.steps.guard import Guards
from switchgear.steps.spec import StepSpec
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine, Fault, error
from tests.dagger.steps import Bench, shell, until

HOST = "registry:registry.example"


async def well(bench: Bench) -> None:
    """The next step runs."""
    assert (await bench.run(shell("echo well"))).stdout == "well\n"


@pytest.mark.parametrize("kind", ["drop-before", "drop-after"])
async def test_a_connection_that_is_cut_leaves_the_outcome_unknown_and_runs_nothing_again(
    bench: Bench, engine: Engine, kind: str
) -> None:
    """T1: a retry by the SDK would run a failing step five times."""
    engine.faults.append(Fault(kind))
    failed = await bench.failure(shell("exit 3"))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        False,
        "dagger",
    )
    assert engine.host.started == (1 if kind == "drop-after" else 0)
    await well(bench)


async def test_a_cut_before_the_commands_can_run_is_made_good_by_a_new_session(
    bench: Bench, engine: Engine
) -> None:
    engine.faults.append(Fault("drop-before", contains="sync"))
    await well(bench)
    assert (engine.opened, engine.host.started) == (2, 1)


@pytest.mark.parametrize("status", [502, 500])
async def test_a_server_error_without_a_body_means_that_the_engine_is_gone(
    bench: Bench, engine: Engine, status: int
) -> None:
    engine.faults.append(Fault("answer", status=status, body=b""))
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        False,
        "dagger",
    )
    await well(bench)
    assert engine.opened == 2


@pytest.mark.parametrize(
    "text",
    [
        "session is closing",
        "client closed",
        "session abc not found",
        "waiting for client session attachables: context deadline exceeded",
    ],
)
async def test_t9_a_session_that_is_closing_is_replaced_and_the_step_runs_once(
    bench: Bench, engine: Engine, text: str
) -> None:
    """Its 503 has a GraphQL body, so it comes as a query's error."""
    engine.faults.append(Fault("answer", status=503, body=error(text)))
    await well(bench)
    assert (engine.opened, engine.host.started) == (2, 1)


async def test_a_session_that_goes_on_closing_fails_the_step_with_a_known_outcome(
    bench: Bench, engine: Engine
) -> None:
    engine.faults.append(Fault("answer", status=503, body=error("session is closing"), times=2))
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        True,
        "dagger",
    )
    assert engine.host.started == 0
    await well(bench)


async def test_an_engine_that_shuts_down_leaves_the_outcome_unknown(
    bench: Bench, engine: Engine
) -> None:
    """T22: our own CLI is ended, since engine and CLI would wait for each other."""
    await bench.run(shell("true"))
    pid = bench.pid
    engine.faults.append(
        Fault("answer", body=error("engine is shutting down", "container", "withExec"))
    )
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.outcome_known) == ("transient", False)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await well(bench)


async def test_a_query_that_hangs_is_ended_at_the_limit_and_its_grace(
    make_bench: MakeBench, engine: Engine
) -> None:
    """T13, T25: the deadline outside. The session answers others, so it stays."""
    bench = make_bench(grace=timedelta(milliseconds=200))
    engine.faults.append(Fault("hang"))
    failed = await bench.failure(shell("true").limits(timeout=timedelta(milliseconds=100)))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "timeout",
        False,
        "dagger",
    )
    await well(bench)
    assert engine.opened == 1


@pytest.mark.parametrize("asked", ["noCache", "export"])
async def test_an_engine_that_hangs_over_a_mount_or_an_output_is_given_up_at_the_limit_too(
    make_bench: MakeBench, engine: Engine, tmp_path: Path, asked: str
) -> None:
    """Its session answers others, so it stays."""
    bench = make_bench(grace=timedelta(milliseconds=200))
    engine.faults.append(Fault("hang", contains=asked))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("A", "utf-8")
    spec = shell("cp /in/a a").workdir("/tmp/w").mount("/in", tmp_path / "in").output("a", "a")
    failed = await bench.failure(spec.limits(timeout=timedelta(seconds=3)))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "timeout",
        False,
        "dagger",
    )
    await well(bench)
    assert engine.opened == 1


async def test_t25_a_frozen_engine_is_noticed_without_any_limit_of_the_step(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench(probe_timeout=timedelta(seconds=2))
    step = bench.begin(shell("sleep 1000"))
    await engine.running()
    engine.freeze()
    with pytest.raises(Exception, match="no sign of life") as caught:
        await step
    failed: Any = caught.value
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        False,
        "dagger",
    )
    engine.thaw()
    await until(lambda: not engine.host.running)
    await well(make_bench())


async def test_an_engine_that_is_killed_fails_its_steps_at_once_and_serves_again_when_it_is_back(
    bench: Bench, engine: Engine
) -> None:
    """T21: it has forgotten everything, and nothing is missed."""
    step = bench.begin(shell("sleep 1000"))
    await engine.running()
    await engine.kill()
    with pytest.raises(Exception, match="engine") as caught:
        await step
    failed: Any = caught.value
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        False,
        "dagger",
    )
    down = await bench.failure(shell("true"))
    assert (down.error_class, down.outcome_known, down.dependency) == ("transient", True, "dagger")
    await engine.start()
    await well(bench)


async def test_a_cli_that_is_killed_in_a_step_is_replaced(bench: Bench, engine: Engine) -> None:
    step = bench.begin(shell("sleep 1000"))
    await engine.running()
    os.kill(bench.pid, signal.SIGKILL)
    with pytest.raises(Exception, match=r"CLI ended|engine") as caught:
        await step
    failed: Any = caught.value
    assert (failed.error_class, failed.outcome_known) == ("transient", False)
    await well(bench)


async def test_a_cli_that_dies_between_steps_costs_nothing(bench: Bench, engine: Engine) -> None:
    await well(bench)
    os.kill(bench.pid, signal.SIGKILL)
    await well(bench)
    assert engine.host.started == 2


PULLS = [
    ("failed to copy: httpReadSeeker: 429 Too Many Requests", "rate-limited", HOST),
    ("unexpected status from HEAD request: 503 Service Unavailable", "transient", HOST),
    ("unexpected status: 500 Internal Server Error", "transient", HOST),
    ("dial tcp: lookup registry.example: server misbehaving", "transient", HOST),
    ("dial tcp 127.0.0.1:5000: connect: connection refused", "transient", HOST),
    ("failed to do request: EOF", "transient", HOST),
    ("unexpected status: 401 Unauthorized", "auth", HOST),
    ("unexpected status: 403 Forbidden", "auth", HOST),
    ("pull access denied, repository does not exist", "auth", HOST),
    ("docker.io/library/nope:latest: not found", "invalid", HOST),
    ("invalid reference format", "invalid", HOST),
]


@pytest.mark.parametrize(("text", "error_class", "dependency"), PULLS)
async def test_a_registry_that_fails_speaks_against_the_registry_and_never_against_the_engine(
    bench: Bench, engine: Engine, text: str, error_class: str, dependency: str
) -> None:
    engine.evaluation.registries["registry.example"] = text
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.dependency, failed.outcome_known) == (
        error_class,
        dependency,
        True,
    )
    engine.evaluation.registries.clear()
    await well(bench)
    assert engine.opened == 1


async def test_t25_a_registry_that_never_answers_is_given_up(
    make_bench: MakeBench, engine: Engine
) -> None:
    engine.evaluation.registries["registry.example"] = "hang"
    bench = make_bench(pull_timeout=timedelta(milliseconds=200))
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.dependency, failed.outcome_known) == ("timeout", HOST, True)
    assert bench.executor.links.current is not None
    engine.evaluation.registries.clear()
    await well(make_bench())


QUERIES: list[tuple[str, StepSpec, str, str, bool]] = [
    ("write /x: no space left on device", shell("true"), "resource", "dagger", False),
    ("fork: cannot allocate memory", shell("true"), "resource", "dagger", False),
    ("open /x: too many open files", shell("true"), "resource", "dagger", False),
    ("mkdir /x: read-only file system", shell("true"), "resource", "dagger", False),
    ("bound service db exited before the container", shell("true"), "step", "", False),
    ('secret env var not found: "X..."', shell("true"), "invalid", "", True),
    ("context canceled", shell("true"), "transient", "dagger", False),
    ("panic while resolving Container.withExec: nil map", shell("true"), "bug", "", False),
    ("something that nobody has seen", shell("true"), "invalid", "", False),
]


@pytest.mark.parametrize(("text", "spec", "error_class", "dependency", "known"), QUERIES)
async def test_what_an_engine_says_has_its_class(
    bench: Bench,
    engine: Engine,
    text: str,
    spec: StepSpec,
    error_class: str,
    dependency: str,
    known: bool,  # noqa: FBT001
) -> None:
    body = error(text, "container", "from", "withExec", "stdout")
    engine.faults.append(Fault("answer", body=body))
    failed = await bench.failure(spec)
    assert (failed.error_class, failed.dependency, failed.outcome_known) == (
        error_class,
        dependency,
        known,
    )
    await well(bench)


MALFORMED: list[Any] = [
    {"data": None, "errors": ["not an object"]},
    {"data": None, "errors": [{"path": 5}]},
    {
        "data": None,
        "errors": [{"message": "x", "path": ["withExec"], "extensions": {"_type": "EXEC_ERROR"}}],
    },
    {"data": {"node": None}},
    {"data": {}},
    [],
    b"<html>",
    b"",
]


@pytest.mark.parametrize("body", MALFORMED, ids=str)
async def test_a_malformed_answer_is_a_classified_failure_and_nothing_breaks(
    bench: Bench, engine: Engine, body: Any
) -> None:
    engine.faults.append(Fault("answer", body=body))
    failed = await bench.failure(shell("true"))
    assert failed.error_class in {"invalid", "bug", "transient"}
    await well(bench)


async def test_a_token_that_is_refused_is_a_matter_of_credentials(
    make_bench: MakeBench, engine: Engine
) -> None:
    from switchgear.steps.executors.dagger.settings import ProvidedSession

    bench = make_bench(provided=ProvidedSession(engine.port, "wrong"))
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.dependency, failed.outcome_known) == ("auth", "dagger", True)


async def test_a_provided_session_that_is_gone_is_transient(
    make_bench: MakeBench, engine: Engine
) -> None:
    from switchgear.steps.executors.dagger.settings import ProvidedSession

    port, token = await engine.provided()
    bench = make_bench(provided=ProvidedSession(port, token))
    await engine.kill()
    failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.dependency, failed.outcome_known) == (
        "transient",
        "dagger",
        True,
    )


async def test_an_engine_that_starts_slowly_is_waited_for(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench()
    engine.freeze()
    step = bench.begin(shell("echo late"))
    loop = asyncio.get_running_loop()
    loop.call_later(0.5, engine.thaw)
    assert (await step).stdout == "late\n"


async def test_steps_that_share_a_lost_session_each_get_their_error_and_one_new_session_serves_all(
    bench: Bench, engine: Engine
) -> None:
    steps = [bench.begin(shell(f"sleep 100{number}")) for number in range(4)]
    await engine.running(4)
    os.kill(bench.pid, signal.SIGKILL)
    ended = await asyncio.gather(*steps, return_exceptions=True)
    assert [getattr(one, "outcome_known", None) for one in ended] == [False] * 4
    await asyncio.gather(*(well(bench) for _ in range(4)))
    assert engine.opened == 2


@pytest.mark.parametrize("status", [502, 500])
async def test_commands_that_have_ended_are_not_run_again_when_their_outputs_are_lost(
    bench: Bench, engine: Engine, status: int
) -> None:
    """They took effect: only what may run twice is repeated, and not by the executor."""
    engine.faults.append(Fault("answer", contains="export", status=status, body=b""))
    spec = shell("head -c 5000000 /dev/zero >big").workdir("/tmp/w").output("big", "big")
    failed = await bench.failure(spec)
    assert (engine.host.started, failed.outcome_known) == (1, False)


async def test_a_closing_session_that_loses_outputs_is_no_reason_to_run_again(
    bench: Bench, engine: Engine
) -> None:
    closing = {"errors": [{"message": "session is closing"}]}
    engine.faults.append(Fault("answer", contains="export", status=503, body=closing))
    spec = shell("head -c 5000000 /dev/zero >big").workdir("/tmp/w").output("big", "big")
    failed = await bench.failure(spec)
    assert (engine.host.started, failed.outcome_known) == (1, False)


class Lost:
    """A store in which nothing can be put."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, data: bytes) -> str:
        del data
        raise self.error


@pytest.mark.parametrize(
    ("error", "error_class", "dependency"),
    [
        (Unavailable("the broker is away"), "transient", "nats"),
        (OSError(errno.ENOSPC, "full"), "resource", "resource:disk"),
        (ValueError("odd"), "transient", ""),
    ],
    ids=repr,
)
async def test_outputs_that_the_store_does_not_take_leave_the_outcome_unknown(
    bench: Bench,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    error_class: str,
    dependency: str,
) -> None:
    monkeypatch.setattr(bench.store, "put", Lost(error))
    spec = shell("echo it >x").workdir("/tmp/w").output("x", "x")
    failed = await bench.failure(spec)
    assert (failed.error_class, failed.dependency) == (error_class, dependency)
    assert (engine.host.started, failed.outcome_known) == (1, False)
    await well(bench)


async def test_an_output_that_is_missing_is_no_reason_to_run_the_commands_again(
    bench: Bench,
) -> None:
    failed = await bench.failure(shell("true").workdir("/tmp/w").output("x", "x"))
    assert (failed.error_class, failed.outcome_known) == ("step", False)


# --- the agent's own disk


class Filling:
    """A disk that takes so many more writes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, directory: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(directory))


@pytest.mark.parametrize(("left", "known", "started"), [(0, True, 0), (1, False, 1)])
async def test_a_full_disk_of_the_agent_is_not_the_engines(
    make_bench: MakeBench,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    known: bool,  # noqa: FBT001
    started: int,
) -> None:
    """Before the step begins, and where the engine cannot hand out what it left."""
    guards = Guards({}, monotonic=lambda: 0.0, dice=lambda: 0.0)
    bench = make_bench(guards=guards)
    monkeypatch.setattr(shortage, "ensure_room", Filling(left))
    body = error("write /x: no space left on device", "container", "file", "export")
    engine.faults.append(Fault("answer", contains="export", body=body))
    failed = await bench.failure(shell("echo it >x").workdir("/tmp/w").output("x", "x"))
    assert (failed.error_class, failed.dependency) == ("resource", "resource:disk")
    assert (engine.host.started, failed.outcome_known) == (started, known)
    rates = {one.dependency: one.failure_rate for one in guards.snapshot(SYSTEM.now())}
    assert (rates["resource:disk"], rates["dagger"]) == (1.0, 0.0)


async def test_a_disk_that_is_full_only_for_the_engine_is_the_engines(
    bench: Bench, engine: Engine
) -> None:
    body = error("write /x: no space left on device", "container", "file", "export")
    engine.faults.append(Fault("answer", contains="export", body=body))
    failed = await bench.failure(shell("echo it >x").workdir("/tmp/w").output("x", "x"))
    assert (failed.error_class, failed.dependency) == ("resource", "dagger")
    assert not failed.outcome_known


async def test_an_agent_that_may_open_no_more_files_says_nothing_against_the_engine(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr(asyncio, "create_subprocess_exec", many)
        failed = await bench.failure(shell("true"))
    assert (failed.error_class, failed.dependency) == ("resource", "resource:files")
    assert (engine.opened, failed.outcome_known) == (0, True)
    await well(bench)


async def test_an_artifact_that_finds_no_room_on_the_agents_disk_is_not_invalid(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        no_room = OSError(errno.ENOSPC, "No space left on device")
        raise packing.Unpackable("artifact x: no space") from no_room

    packed = packing.packed(b"it", "x")
    await bench.store.put(packed.data)
    monkeypatch.setattr(packing, "unpack", full)
    failed = await bench.failure(shell("true").mount("/x", packed.artifact))
    assert (failed.error_class, failed.dependency) == ("resource", "resource:disk")
    assert failed.outcome_known
