"""Services beside a step in an engine: when the step may begin, and what is told when one fails."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import pytest

from switchgear.errors import ServiceFailed
from switchgear.steps.spec import StepSpec, container
from tests.dagger.engine import Engine
from tests.dagger.steps import IMAGE, Bench, shell, until

LISTEN = """
import socket, sys, time
time.sleep(float(sys.argv[2]))
print("about to listen", file=sys.stderr, flush=True)
server = socket.create_server((sys.argv[3], int(sys.argv[1])))
time.sleep(1000)
"""
MEET = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print('met')"
"""Once, without a second try."""


@pytest.fixture
def port() -> int:
    """One that nobody has: the fake engine's containers share the network of the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def python(text: str, *args: object) -> StepSpec:
    return container(IMAGE).exec("/usr/bin/python3", "-c", text, *map(str, args))


async def test_a_step_begins_when_its_service_listens(
    bench: Bench, engine: Engine, port: int
) -> None:
    spec = python(MEET, port).service("db", python(LISTEN, port, 0.5, ""), ports=[port])
    assert (await bench.run(spec)).stdout == "met\n"
    assert any("withExposedPort" in query for query in engine.queries)
    await until(lambda: not engine.host.running)


async def test_a_service_that_never_listens_is_ended_within_its_time_and_named(
    bench: Bench, engine: Engine, port: int
) -> None:
    deaf = shell("echo cannot bind >&2; exec sleep 1000")
    spec = shell("true").service("db", deaf, ports=[port], start=timedelta(seconds=1))
    error = await bench.failure(spec)
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known) == ("timeout", True)
    assert f"service db did not listen on port {port} within 1 s" in error.what
    assert "cannot bind" in error.why
    assert error.executor == "dagger"
    await until(lambda: not engine.host.running)
    assert engine.host.started == 1  # the step did not run
    assert bench.executor.links.current is not None  # nothing against the session
    assert (await bench.run(shell("echo on"))).stdout == "on\n"


async def test_a_service_that_ends_before_it_listens_is_told_with_its_last_words(
    bench: Bench, port: int
) -> None:
    broken = shell("echo no such config >&2; exit 3")
    error = await bench.failure(shell("true").service("db", broken, ports=[port]))
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known, error.exit_code) == ("step", True, 3)
    assert "service db ended with exit code 3 before the step began" in error.what
    assert "no such config" in error.why


async def test_a_service_that_ends_well_before_it_listens_has_failed_too(
    bench: Bench, port: int
) -> None:
    error = await bench.failure(shell("true").service("db", shell("true"), ports=[port]))
    assert "service db ended with exit code 0 before the step began" in error.what


async def test_a_service_that_ends_while_the_step_runs_ends_the_step_and_says_so(
    bench: Bench, engine: Engine
) -> None:
    """What it wrote, an engine keeps to itself, and the error does not claim to know it."""
    dies = shell("sleep 2; exit 4")
    error = await bench.failure(container(IMAGE).exec("sleep", "1000").service("db", dies))
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known, error.exit_code) == ("step", False, 4)
    assert "service db ended with exit code 4 while the step ran" in error.what
    assert "does not tell what it wrote" in error.why
    await until(lambda: not engine.host.running)


async def test_an_image_of_a_service_without_a_shell_is_a_mistake_of_the_spec(
    bench: Bench, engine: Engine, port: int
) -> None:
    engine.host.without_shell = True
    error = await bench.failure(shell("true").service("db", shell("true"), ports=[port]))
    assert isinstance(error, ServiceFailed)
    assert error.error_class == "invalid"


async def test_a_service_may_begin_with_other_commands(bench: Bench, port: int) -> None:
    serve = container(IMAGE).exec("sh", "-c", "echo made >/tmp/file")
    serve = serve.exec("/usr/bin/python3", "-c", f"open('/tmp/file')\n{LISTEN}", str(port), "0", "")
    spec = python(MEET, port).service("db", serve, ports=[port])
    assert (await bench.run(spec)).stdout == "met\n"


async def test_a_service_has_the_limits_of_its_spec(bench: Bench, port: int) -> None:
    tells = shell("ulimit -v >&2; exit 3").limits(memory=512 * 1024**2)
    error = await bench.failure(shell("true").service("db", tells, ports=[port]))
    assert error.stderr.strip() == str(512 * 1024)


async def test_the_result_tells_once_what_holds_for_the_step_or_a_service(bench: Bench) -> None:
    step = shell("true").network()
    closed = (await bench.run(step.service("db", shell("exec sleep 1000")))).notes
    opened = (await bench.run(step.service("db", shell("exec sleep 1000").network()))).notes
    assert len(opened) == 1  # their image is not pinned
    assert set(closed) - set(opened) == {
        "the network was not cut off: an engine cannot do that for one step"
    }


async def test_a_service_that_was_not_started_is_not_stopped(bench: Bench, engine: Engine) -> None:
    """An engine that does not answer then would cost other steps their session."""
    engine.evaluation.registries["other.example"] = "connection refused"
    spec = shell("true").service("a", shell("exec sleep 1000"))
    spec = spec.service("b", container("other.example/b:1").exec("b"))
    error = await bench.failure(spec)
    assert error.dependency == "registry:other.example"
    assert not any("stop" in query for query in engine.queries)


async def test_an_engine_that_dies_beside_a_service_is_why_that_one_could_not_be_stopped(
    bench: Bench, engine: Engine, port: int
) -> None:
    spec = container(IMAGE).exec("sleep", "1000")
    spec = spec.service("db", python(LISTEN, port, 0, ""), ports=[port])
    task = asyncio.create_task(bench.failure(spec))
    await until(lambda: engine.host.started == 2)
    await engine.kill()
    failed = await task
    assert (failed.error_class, failed.outcome_known) == ("transient", False)
    assert "502" in failed.why
