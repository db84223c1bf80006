"""The traps of the SDK and the engine that concern whoever runs steps: one test for each, by its number.

T5, T6, T7, T10, T22, T23 and T26 stand in `test_session.py`; T1, T9, T21 and T25 in `test_faults.py` as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.steps.executors.dagger import errors, pipeline
from switchgear.steps.executors.dagger.link import connect
from switchgear.steps.spec import container
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine, Fault
from tests.dagger.steps import IMAGE, Bench, shell, until


async def test_t1_an_answer_that_is_lost_never_runs_a_failing_step_again(
    bench: Bench, engine: Engine
) -> None:
    engine.faults.append(Fault("drop-after", times=5))
    failed = await bench.failure(shell("exit 1"))
    assert not failed.outcome_known
    assert engine.host.started == 1


async def test_t1_an_idempotent_step_says_that_it_may_be_repeated(
    bench: Bench, engine: Engine
) -> None:
    engine.faults.append(Fault("drop-after", times=2))
    assert not (await bench.failure(shell("exit 1"))).idempotent
    assert (await bench.failure(shell("exit 1").idempotent())).idempotent


async def test_t2_an_exhausted_retry_of_somebody_elses_is_unwrapped() -> None:
    class RetryError(Exception):
        def __init__(self, inner: Exception) -> None:
            self.last_attempt = self
            self._inner = inner

        def exception(self) -> Exception:
            return self._inner

    class TransportError(Exception):
        pass

    found = errors.facts(RetryError(TransportError("gone")))
    assert (found.kinds[0], found.message) == ("TransportError", "gone")


async def test_t3_a_failed_connect_poisons_nothing(make_bench: MakeBench, engine: Engine) -> None:
    bench = make_bench()
    await engine.kill()
    assert (await bench.failure(shell("true"))).outcome_known is not False
    await engine.start()
    assert (await bench.run(shell("echo x"))).stdout == "x\n"
    import dagger

    assert not dagger.dag._ctx.conn.is_connected()  # type: ignore[attr-defined]  # the global client is never used


async def test_t4_two_executors_and_another_client_work_side_by_side(
    make_bench: MakeBench, engine: Engine
) -> None:
    one, two = make_bench(), make_bench()
    client, connection = await connect(*await engine.provided())
    results = await asyncio.gather(
        *(bench.run(shell(f"echo {number}")) for number, bench in enumerate([one, two])),
        client.container().from_(IMAGE).with_exec(["sh", "-c", "echo 2"]).stdout(),
    )
    await connection.close()
    assert [getattr(result, "stdout", result) for result in results] == ["0\n", "1\n", "2\n"]


async def test_t8_probes_have_a_connection_of_their_own(
    make_bench: MakeBench, engine: Engine
) -> None:
    """The SDK's 100 connections may all be waiting."""
    bench = make_bench(concurrency=8)
    steps = [bench.begin(shell(f"sleep 1000{number}")) for number in range(8)]
    await engine.running(8)
    asked = engine.probes
    assert (await bench.executor.health()).ok
    assert engine.probes > asked
    for step in steps:
        step.cancel()
    await asyncio.wait(steps)


async def test_t10_the_sdk_never_takes_over_logging(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    before = [*logging.getLogger().handlers]
    assert (await make_bench().run(shell("true"))).exit_code == 0
    assert logging.getLogger().handlers == before
    assert "OTEL_SERVICE_NAME" not in os.environ


async def test_t11_no_secret_is_ever_in_a_query_a_log_or_an_error(
    make_bench: MakeBench, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("from-a-file\n", "utf-8")
    bench = make_bench(environ={"TOKEN": "from-environment"})
    spec = (
        shell('echo "$A $B"; echo "$A $B" >&2; exit 9')
        .secret("A", "env://TOKEN")
        .secret("B", f"file://{file}")
    )
    failed = await bench.failure(spec)
    said = "\n".join([*engine.queries, caplog.text, str(failed), failed.stdout, failed.stderr])
    assert "from-a-file" not in said
    assert "from-environment" not in said
    assert failed.stdout == "*** ***\n"


async def test_t12_a_plain_step_is_one_request_after_its_image(
    bench: Bench, engine: Engine
) -> None:
    await bench.run(shell("true"))
    before = len(engine.queries)
    await bench.run(shell("echo 1").env(A="b").workdir("/tmp"))
    assert len(engine.queries) - before == 1


async def test_t13_the_engine_is_given_no_deadline_so_the_script_holds_it(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("sleep 1000").limits(timeout=timedelta(milliseconds=100))
    assert (await bench.failure(spec)).error_class == "timeout"
    assert any("sleep 0.1" in query for query in engine.queries)


async def test_t14_an_equal_step_runs_again_and_only_a_cacheable_one_is_answered_from_the_cache(
    bench: Bench, engine: Engine
) -> None:
    assert not (await bench.run(shell("echo a"))).cached
    assert not (await bench.run(shell("echo a"))).cached
    assert engine.host.started == 2
    spec = shell("echo b").cacheable()
    assert not (await bench.run(spec.env(SWITCHGEAR_FENCE="1"))).cached
    again = await bench.run(spec.env(SWITCHGEAR_FENCE="2"))
    assert (again.cached, again.stdout) == (True, "b\n")
    assert engine.host.started == 3


async def test_t14_a_cacheable_step_that_failed_runs_again(bench: Bench, engine: Engine) -> None:
    spec = shell("echo out; echo err >&2; exit 5").cacheable()
    for _ in range(2):
        failed = await bench.failure(spec)
        assert (failed.exit_code, failed.stdout.strip(), failed.stderr.strip()) == (5, "out", "err")
    assert engine.host.started == 2


async def test_t15_what_differs_in_each_message_is_cut_off() -> None:
    class QueryError(Exception):
        pass

    found = errors.facts(QueryError("exit code: 3 [traceparent:abc-def]"))
    assert found.message == "exit code: 3"
    found = errors.facts(OSError("it said 502\nFor more information check: https://x.org/502"))
    assert found.message == "it said 502"


async def test_t15_an_output_of_any_size_comes_back_bounded(bench: Bench) -> None:
    result = await bench.run(shell("head -c 3000000 /dev/zero | tr '\\0' x"))
    assert len(result.stdout) == 256 * 1024
    assert result.truncated == 3_000_000 - 256 * 1024


async def test_t16_no_step_ever_asks_for_the_rights_of_the_engines_host(
    bench: Bench, engine: Engine
) -> None:
    await bench.run(shell("true"))
    assert not any(
        "insecure" in query.lower() or "privileged" in query.lower() for query in engine.queries
    )


@pytest.mark.parametrize("code", [0, 1, 127, 128, 130, 137, 143, 191, 192, 255])
async def test_t18_every_exit_code_comes_back_as_data(bench: Bench, code: int) -> None:
    result = await bench.run(shell(f"echo it; exit {code}").expect(code))
    assert (result.exit_code, result.stdout) == (code, "it\n")


async def test_t18_a_death_by_signal_is_told_as_one(bench: Bench) -> None:
    failed = await bench.failure(shell("kill -9 $$"))
    assert (failed.exit_code, failed.error_class, failed.dependency) == (137, "resource", "")


@pytest.mark.parametrize(("program", "code"), [("nowhere", 127), ("/etc", 126)])
async def test_t19_a_program_that_cannot_be_started_is_told_apart_from_one_that_failed(
    bench: Bench, program: str, code: int
) -> None:
    failed = await bench.failure(container(IMAGE).exec(program))
    assert (failed.exit_code, failed.error_class) == (code, "invalid")


async def test_t20_another_secret_is_never_answered_with_the_output_of_the_old_one(
    bench: Bench, engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    spec = shell("printf %s $T | tr a-z b-za").secret("T", f"file://{file}").cacheable()
    file.write_text("first", "utf-8")
    assert (await bench.run(spec)).stdout == "gjstu"
    file.write_text("other", "utf-8")
    again = await bench.run(spec)
    assert (again.stdout, again.cached) == ("puifs", False)
    assert not any("setSecret" in query for query in engine.queries)


async def test_t20_a_secret_that_the_cli_does_not_have_is_never_taken_from_its_old_environment(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench(environ={"T": "new"}, environ_of_cli={"T": "old"})
    assert (
        await bench.run(shell("printf %s $T | tr a-z b-za").secret("T", "env://T"))
    ).stdout == "ofx"


async def test_a_secret_that_is_missing_is_the_agents_matter(bench: Bench) -> None:
    failed = await bench.failure(shell("true").secret("A", "env://NOWHERE"))
    assert (failed.error_class, failed.outcome_known) == ("invalid", True)


async def test_t21_nothing_that_matters_is_lost_with_the_engines_cache(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("echo kept >/tmp/f; ls /c").cache("/c", "n").output("f", "/tmp/f").idempotent()
    first = await bench.run(spec)
    await engine.kill()
    await engine.start()
    again = await bench.run(spec)
    assert again.outputs == first.outputs
    assert bench.store.blobs[again.outputs["f"].digest] == b"kept\n"


async def test_t24_a_directory_of_the_host_is_read_again_in_the_same_session(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "f").write_text("1", "utf-8")
    spec = shell("cat /in/f /one").mount("/in", folder).mount("/one", folder / "f")
    assert (await bench.run(spec)).stdout == "11"
    (folder / "f").write_text("2", "utf-8")
    assert (await bench.run(spec)).stdout == "22"


async def test_t24_an_archive_that_was_replaced_is_read_again(
    bench: Bench, engine: Engine, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"one")
    spec = shell("true", f"oci:{archive}")
    await bench.run(spec)
    await bench.run(spec)
    assert sum("import" in query and "sync" in query for query in engine.queries) == 1
    archive.write_bytes(b"another")
    await bench.run(spec)
    assert sum("import" in query and "sync" in query for query in engine.queries) == 2


async def test_t25_a_service_never_outlives_its_step(bench: Bench, engine: Engine) -> None:
    """Its process would run until the session closes."""
    spec = shell("exit 3").service("db", container(IMAGE).exec("sleep", "1000"))
    await bench.failure(spec)
    await until(lambda: not engine.host.running)
    assert bench.executor.links.current is not None


def test_exported_directories_hold_nothing_stale() -> None:
    assert "wipe=True" in Path(pipeline.__file__).read_text("utf-8")


def loaded(statement: str, *paths: str) -> set[str]:
    script = f"import sys; sys.path[:0] = {list(paths)!r}; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import switchgear",
        "from switchgear import *",
        "import switchgear.steps.executors.dagger.executor, switchgear.steps.executors.dagger.links",
        (
            "from switchgear.steps.executors.dagger.executor import DaggerExecutor as D;"
            "from switchgear.steps.settings import StepSettings as S;"
            "D.configured(S(), {'_EXPERIMENTAL_DAGGER_CLI_BIN': '/x'})"
        ),
    ],
)
def test_nothing_imports_the_sdk_before_a_step_needs_it(statement: str) -> None:
    names = loaded(statement)
    assert not {
        name for name in names if name.partition(".")[0] in {"dagger", "gql", "httpx", "beartype"}
    }


async def test_a_connect_works_where_httpx2_can_be_imported(engine: Engine, tmp_path: Path) -> None:
    """Newer releases of gql would take it and break every connect; the extra `dagger` keeps them out."""
    (tmp_path / "httpx2").mkdir()
    (tmp_path / "httpx2" / "__init__.py").write_text("from httpx import *\n", "utf-8")
    port, token = await engine.provided()
    script = (
        "import asyncio, importlib.util\n"
        "assert importlib.util.find_spec('httpx2')\n"
        "from switchgear.steps.executors.dagger.link import connect\n"
        "async def main():\n"
        f"    client, connection = await connect({port}, {token!r})\n"
        "    print(await client.version())\n"
        "    await connection.close()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.decode().strip() == "v0.21.8", err.decode()
