"""The same promises against a real engine, chosen by the environment; skipped where there is none.

SWITCHGEAR_TEST_DAGGER_RUNNER: the runner host, such as unix:///run/engine.sock.
_EXPERIMENTAL_DAGGER_CLI_BIN: the CLI. SWITCHGEAR_TEST_DAGGER_IMAGE: an OCI archive with sh and python3.
For what is done to the engine in mid-step, programs, each run without arguments: SWITCHGEAR_TEST_DAGGER_START (starts
it unless it runs, returns when it listens, prints its process id), SWITCHGEAR_TEST_DAGGER_STOP (ends it in good order).
It is killed, frozen and thawed by signals to that process. The engine must be nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from switchgear.clock import SYSTEM
from switchgear.steps.executors.dagger.executor import DaggerExecutor
from switchgear.steps.executors.dagger.settings import DaggerSettings
from switchgear.steps.guard import Guards
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import StepSpec, container
from tests.dagger.steps import Bench, alive

RUNNER = os.environ.get("SWITCHGEAR_TEST_DAGGER_RUNNER", "")
CLI = os.environ.get("_EXPERIMENTAL_DAGGER_CLI_BIN", "")
ARCHIVE = os.environ.get("SWITCHGEAR_TEST_DAGGER_IMAGE", "")
START = os.environ.get("SWITCHGEAR_TEST_DAGGER_START", "")
STOP = os.environ.get("SWITCHGEAR_TEST_DAGGER_STOP", "")

pytestmark = [
    pytest.mark.skipif(
        not (RUNNER and CLI and ARCHIVE),
        reason="no engine: SWITCHGEAR_TEST_DAGGER_RUNNER and the others above are not set",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(180),
]
controlled = pytest.mark.skipif(
    not (START and STOP),
    reason="no hold on the engine: set SWITCHGEAR_TEST_DAGGER_START, SWITCHGEAR_TEST_DAGGER_STOP",
)

Make = Callable[..., Bench]


def shell(text: str) -> StepSpec:
    return container(f"oci:{ARCHIVE}").exec("sh", "-c", text)


def python(text: str) -> StepSpec:
    return container(f"oci:{ARCHIVE}").exec("python3", "-c", text)


@pytest_asyncio.fixture
async def make_bench() -> AsyncIterator[Make]:
    async with contextlib.AsyncExitStack() as stack:

        def make(
            *, environ: dict[str, str] | None = None, guards: Guards | None = None, **changes: Any
        ) -> Bench:
            own = {**os.environ, "_EXPERIMENTAL_DAGGER_RUNNER_HOST": RUNNER, **(environ or {})}
            loaded = replace(DaggerSettings.load(own), provided=None, **changes)
            executor = DaggerExecutor(StepSettings(), loaded, guards)
            stack.push_async_callback(executor.close)
            return Bench(executor, own, guards)

        yield make


@pytest.fixture
def bench(make_bench: Make) -> Bench:
    return make_bench()


@pytest_asyncio.fixture
async def pid() -> AsyncIterator[int]:
    """The engine's process; it runs again after the test, whatever was done to it."""
    found = int(await command(START))
    yield found
    with contextlib.suppress(ProcessLookupError):
        os.kill(found, signal.SIGCONT)
    await command(START)


async def command(program: str) -> str:
    process = await asyncio.create_subprocess_exec(program, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


async def running(bench: Bench, marked: str) -> asyncio.Task[Any]:
    """A step that has begun, seen by a process of that name on the engine's host."""
    task = bench.begin(shell(f"sleep {marked}; true"))
    async with asyncio.timeout(60):
        while not processes(marked):
            assert not task.done(), task
            await asyncio.sleep(0.02)
    return task


def processes(marked: str) -> list[int]:
    """Processes `sleep MARKED`, where the engine shares this host's process table."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if argv[:2] == [b"sleep", marked.encode()] and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


async def gone(marked: str) -> None:
    async with asyncio.timeout(10):
        while processes(marked):
            await asyncio.sleep(0.02)


class Heard:
    """Lines as they come."""

    def __init__(self) -> None:
        self.stdout: list[str] = []
        self.stderr: list[str] = []

    def on_line(self, stream: str, line: str) -> None:
        {"stdout": self.stdout, "stderr": self.stderr}[stream].append(line)

    async def count(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.stdout) + len(self.stderr) < number:
                await asyncio.sleep(0.02)


async def dead(pid: int) -> None:
    """Return when this engine has ended; before, it would count as running."""
    async with asyncio.timeout(60):
        while alive(pid):
            await asyncio.sleep(0.02)


async def ended(task: asyncio.Task[Any]) -> Any:
    [error] = await asyncio.gather(task, return_exceptions=True)
    return error


async def test_a_step_tells_exit_code_outputs_and_kind(bench: Bench) -> None:
    result = await bench.run(shell("echo one; echo two >&2; exit 3").expect(3))
    assert (result.exit_code, result.stdout, result.stderr) == (3, "one\n", "two\n")
    assert (result.executor, result.isolation, result.cached) == ("dagger", "container", False)


@pytest.mark.parametrize("code", [0, 1, 127, 128, 130, 137, 143, 191, 192, 255])
async def test_t18_every_exit_code_comes_back_as_data(bench: Bench, code: int) -> None:
    result = await bench.run(shell(f"echo it; exit {code}").expect(code))
    assert (result.exit_code, result.stdout) == (code, "it\n")


async def test_a_death_by_signal_is_told_as_one(bench: Bench) -> None:
    failed = await bench.failure(shell("kill -9 $$"))
    assert (failed.exit_code, failed.error_class) == (137, "resource")


async def test_t19_a_program_that_is_missing_is_told_apart(bench: Bench) -> None:
    failed = await bench.failure(container(f"oci:{ARCHIVE}").exec("nowhere"))
    assert (failed.exit_code, failed.error_class) == (127, "invalid")


async def test_t13_the_time_limit_holds_inside_and_ends_the_tree(bench: Bench) -> None:
    spec = shell("sleep 4711 & sleep 4711").limits(timeout=timedelta(seconds=1))
    failed = await bench.failure(spec)
    assert (failed.error_class, failed.outcome_known) == ("timeout", False)
    await gone("4711")


async def test_t14_equal_steps_run_again_unless_they_are_cacheable(bench: Bench) -> None:
    spec = shell("cat /proc/sys/kernel/random/uuid")
    assert (await bench.run(spec)).stdout != (await bench.run(spec)).stdout
    spec = spec.cacheable().env(MARK=os.urandom(8).hex())
    first, second = await bench.run(spec), await bench.run(spec)
    assert first.stdout == second.stdout
    assert (first.cached, second.cached) == (False, True)


async def test_t14_a_cacheable_step_that_failed_runs_again(bench: Bench) -> None:
    spec = shell("cat /proc/sys/kernel/random/uuid; echo e >&2; exit 5").cacheable()
    first, second = await bench.failure(spec), await bench.failure(spec)
    assert (first.exit_code, second.exit_code, first.stderr.strip()) == (5, 5, "e")
    assert first.stdout != second.stdout


async def test_t11_secrets_are_masked_and_reach_the_step(make_bench: Make, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n", "utf-8")
    bench = make_bench(environ={"TOKEN": "from-environment"})
    spec = shell('echo "$A $B"; printf %s "$A$B" | wc -c')
    result = await bench.run(spec.secret("A", "env://TOKEN").secret("B", f"file://{file}"))
    assert result.stdout.split() == ["***", "***", str(len("from-a-filefrom-environment"))]


async def test_t20_another_secret_is_never_answered_with_the_old_output(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    spec = shell("printf %s $T | tr a-z b-za").secret("T", f"file://{file}").cacheable()
    file.write_text("first", "utf-8")
    assert (await bench.run(spec)).stdout == "gjstu"
    file.write_text("other", "utf-8")
    assert (await bench.run(spec)).stdout == "puifs"
    assert (await bench.run(spec)).cached, "the same text, from another file"


async def test_t24_mounts_are_read_again_in_the_same_session(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    spec = shell("cat /in/f /one; touch /in/x 2>/dev/null || echo no")
    spec = spec.mount("/in", folder).mount("/one", folder / "f")
    for text in ("1", "2"):
        (folder / "f").write_text(text, "utf-8")
        assert (await bench.run(spec)).stdout == f"{text}{text}no\n"


async def test_a_mount_that_has_no_place_in_a_read_only_one_is_told_as_what_it_is(
    bench: Bench, tmp_path: Path
) -> None:
    """The engine has no exit code for it, which is no death by a signal."""
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
    outer = shell("true").mount("/w", str(tmp_path / "outer"))
    failed = await bench.failure(outer.mount("/w/x", str(tmp_path / "inner")))
    assert (failed.error_class, failed.outcome_known) == ("invalid", True)
    assert "read-only mount" in failed.fix


async def test_outputs_come_back_and_large_ones_are_exported(bench: Bench) -> None:
    spec = shell("mkdir d; echo 1 >d/a; head -c 20000000 /dev/zero >big").workdir("/w")
    result = await bench.run(spec.output("d", "d").output("big", "big"))
    assert result.outputs["big"].size == 20_000_000
    back = await bench.run(shell("cat /in/a").mount("/in", result.outputs["d"]))
    assert back.stdout == "1\n"


async def test_t15_an_output_of_any_size_comes_back_bounded(bench: Bench) -> None:
    result = await bench.run(shell("head -c 30000000 /dev/zero | tr '\\0' x"))
    assert (len(result.stdout), result.truncated) == (256 * 1024, 30_000_000 - 256 * 1024)


async def test_limits_hold_for_each_process(bench: Bench) -> None:
    spec = python("x = bytearray(400_000_000)").limits(memory=200_000_000)
    failed = await bench.failure(spec)
    assert "MemoryError" in failed.stderr


async def test_stdin_environment_and_a_service(bench: Bench) -> None:
    assert (await bench.run(shell("cat; echo $A").stdin("in\n").env(A="b"))).stdout == "in\nb\n"
    serve = container(f"oci:{ARCHIVE}").exec("python3", "-m", "http.server", "8000")
    ask = (
        "import socket, time\n"
        "while True:\n"
        "    try: socket.create_connection(('web', 8000)); break\n"
        "    except OSError: time.sleep(0.05)\n"
        "print('met')"
    )
    spec = python(ask).service("web", serve).limits(timeout=timedelta(seconds=30))
    assert (await bench.run(spec)).stdout == "met\n"


async def test_a_step_begins_when_its_service_listens(bench: Bench) -> None:
    """One that never does is ended within its time, and the session serves on."""
    late = "import time; time.sleep(1); import http.server; http.server.test(port=8000)"
    serve = container(f"oci:{ARCHIVE}").exec("python3", "-c", late)
    ask = python("import socket; socket.create_connection(('web', 8000)); print('met')")
    assert (await bench.run(ask.service("web", serve, ports=[8000]))).stdout == "met\n"
    cli = bench.pid
    deaf = container(f"oci:{ARCHIVE}").exec("sh", "-c", "echo cannot bind >&2; exec sleep 4720")
    spec = shell("true").service("web", deaf, ports=[8000], start=timedelta(seconds=2))
    failed = await bench.failure(spec)
    assert (failed.code, failed.error_class, failed.outcome_known) == ("SG1522", "timeout", True)
    assert "cannot bind" in failed.why
    await gone("4720")
    assert (await bench.run(shell("echo on"))).stdout == "on\n"
    assert bench.pid == cli


async def test_a_service_that_ends_while_the_step_runs_ends_the_step(bench: Bench) -> None:
    dies = container(f"oci:{ARCHIVE}").exec("sh", "-c", "sleep 1; exit 4")
    failed = await bench.failure(shell("sleep 4721").service("db", dies))
    assert (failed.code, failed.exit_code, failed.outcome_known) == ("SG1522", 4, False)
    await gone("4721")


async def test_lines_are_told_once_while_the_step_runs_masked_and_also_when_it_fails(
    make_bench: Make,
) -> None:
    bench = make_bench(environ={"TOKEN": "from-environment"})
    gate = f"gate-{os.urandom(4).hex()}"
    text = (
        'echo "é $T"; echo two >&2; until [ -e /gate/1 ]; do sleep 0.05; done; echo three; exit 3'
    )
    heard = Heard()
    spec = shell(text).secret("T", "env://TOKEN").cache("/gate", gate)
    task = asyncio.ensure_future(bench.run(spec, heard.on_line))
    await heard.count(2)
    assert not task.done()
    await bench.run(shell("touch /gate/1").cache("/gate", gate))
    assert (await ended(task)).exit_code == 3
    assert (heard.stdout, heard.stderr) == (["é ***", "three"], ["two"])


async def test_a_stream_of_lines_that_is_lost_costs_nothing(bench: Bench) -> None:
    gate = f"gate-{os.urandom(4).hex()}"
    heard = Heard()
    text = "echo one; until [ -e /gate/1 ]; do sleep 0.05; done; echo two"
    task = asyncio.ensure_future(bench.run(shell(text).cache("/gate", gate), heard.on_line))
    await heard.count(1)
    link = bench.executor.links.current
    assert link is not None
    await link.output.close()
    await bench.run(shell("touch /gate/1").cache("/gate", gate))
    assert (await task).stdout == "one\ntwo\n"
    assert heard.stdout == ["one", "two"]


async def test_the_age_of_lines_when_they_are_told_is_printed(bench: Bench) -> None:
    ages: list[float] = []
    tell = "import time\nfor _ in range(40): print(time.time(), flush=True); time.sleep(0.083)"
    await bench.run(python(tell), lambda _, line: ages.append(time.time() - float(line)))
    one, most = statistics.median(ages), max(ages)
    print(f"lines are told {one:.3f} s after they were written, at most {most:.3f}")  # noqa: T201 - a figure for whoever runs this
    assert len(ages) == 40


async def test_t25_a_service_of_a_cancelled_step_ends_with_it(bench: Bench) -> None:
    await bench.run(shell("true"))
    spec = shell("sleep 4712").service("s", container(f"oci:{ARCHIVE}").exec("sleep", "4713"))
    task = bench.begin(spec)
    async with asyncio.timeout(30):
        while not (processes("4712") and processes("4713")):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    await gone("4712")
    await gone("4713")


async def test_a_cancelled_step_leaves_no_tree_and_the_session_serves_on(bench: Bench) -> None:
    task = await running(bench, "4714")
    cli = bench.pid
    task.cancel()
    await asyncio.wait([task])
    await gone("4714")
    assert (await bench.run(shell("echo on"))).stdout == "on\n"
    assert bench.pid == cli


async def test_a_cache_is_kept_between_steps(bench: Bench) -> None:
    name = f"t-{os.urandom(4).hex()}"
    spec = shell("ls /c; touch /c/x").cache("/c", name)
    assert [(await bench.run(spec)).stdout for _ in range(2)] == ["", "x\n"]


async def test_a_registry_that_cannot_be_reached_speaks_against_the_registry(
    make_bench: Make,
) -> None:
    guards = Guards({}, monotonic=asyncio.get_running_loop().time, dice=lambda: 0.5)
    bench = make_bench(guards=guards)
    failed = await bench.failure(container("127.0.0.1:1/x/y:1").exec("true"))
    assert (failed.error_class, failed.outcome_known) == ("transient", True)
    assert failed.dependency == "registry:127.0.0.1:1"
    assert (await bench.run(shell("echo on"))).stdout == "on\n"
    rates = {one.dependency: one.failure_rate for one in guards.snapshot(SYSTEM.now())}
    assert (rates["registry:127.0.0.1:1"], rates["dagger"]) == (1.0, 0.0)


async def test_a_cli_that_is_killed_in_a_step_is_replaced(bench: Bench) -> None:
    task = await running(bench, "4715")
    os.kill(bench.pid, signal.SIGKILL)
    error = await ended(task)
    assert (error.error_class, error.outcome_known, error.dependency) == (
        "transient",
        False,
        "dagger",
    )
    await gone("4715")
    assert (await bench.run(shell("echo on"))).stdout == "on\n"


async def test_t22_no_cli_is_left_after_close(bench: Bench) -> None:
    await bench.run(shell("true"))
    cli = bench.pid
    await bench.executor.close()
    assert not alive(cli)


async def test_health_is_told(bench: Bench, make_bench: Make) -> None:
    assert (await bench.executor.health()).ok
    nowhere = make_bench(runner="unix:///nowhere/engine.sock")
    assert not (await nowhere.executor.health()).ok
    failed = await nowhere.failure(shell("true"))
    assert (failed.error_class, failed.outcome_known, failed.dependency) == (
        "transient",
        True,
        "dagger",
    )


async def test_t26_why_a_cli_refuses_is_said(make_bench: Make) -> None:
    failed = await make_bench(runner="nonsense://x").failure(shell("true"))
    assert failed.dependency in {"", "dagger"}
    assert "nonsense" in failed.why


async def test_t8_many_steps_share_the_session_within_the_limit(make_bench: Make) -> None:
    bench = make_bench(concurrency=4)
    results = await asyncio.gather(*(bench.run(shell(f"echo {n}; sleep 0.1")) for n in range(12)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(12)]


@controlled
async def test_an_engine_that_is_killed_in_a_step_costs_that_step_only(
    make_bench: Make, pid: int, record_property: Callable[[str, object], None]
) -> None:
    bench = make_bench()
    task = await running(bench, "4716")
    os.kill(pid, signal.SIGKILL)
    error = await ended(task)
    assert (error.error_class, error.outcome_known, error.dependency) == (
        "transient",
        False,
        "dagger",
    )
    down = await bench.failure(shell("true"))
    assert (down.error_class, down.outcome_known) == ("transient", True)
    await dead(pid)
    await command(START)
    await served(bench, record_property, "killed")
    await gone("4716")


@controlled
async def test_an_engine_that_is_stopped_in_a_step_ends_in_good_order(
    make_bench: Make, pid: int, record_property: Callable[[str, object], None]
) -> None:
    """T22: it waits for the session, and the session's CLI for it, until we let go."""
    bench = make_bench()
    task = await running(bench, "4717")
    stopping = asyncio.ensure_future(command(STOP))
    error = await ended(task)
    assert (error.error_class, error.outcome_known) == ("transient", False)
    async with asyncio.timeout(60):
        await stopping
    await dead(pid)
    await command(START)
    await served(bench, record_property, "stopped")


@controlled
async def test_an_engine_that_is_frozen_in_a_step_is_noticed_by_its_silence(
    make_bench: Make, pid: int, record_property: Callable[[str, object], None]
) -> None:
    bench = make_bench(probe_every=timedelta(milliseconds=500), probe_timeout=timedelta(seconds=2))
    task = await running(bench, "4718")
    os.kill(pid, signal.SIGSTOP)
    error = await ended(task)
    assert (error.error_class, error.outcome_known, error.dependency) == (
        "transient",
        False,
        "dagger",
    )
    assert not (await bench.executor.health()).ok
    os.kill(pid, signal.SIGCONT)
    await served(bench, record_property, "frozen")
    await gone("4718")


@controlled
async def test_an_engine_that_is_started_anew_between_steps_costs_nothing(
    make_bench: Make, pid: int
) -> None:
    bench = make_bench()
    await bench.run(shell("true"))
    os.kill(pid, signal.SIGKILL)
    await dead(pid)
    await command(START)
    assert (await bench.run(shell("echo on"))).stdout == "on\n"


async def served(bench: Bench, record: Callable[[str, object], None], after: str) -> None:
    """The next session, and how long it took from the engine being back."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with bench.executor.links.use():
        took = loop.time() - began
    record(f"session_after_{after}", round(took, 3))
    print(f"session after {after}: {took:.3f} s")  # noqa: T201 - a figure for whoever runs this
    assert (await bench.run(shell("echo on"))).stdout == "on\n"


async def test_overhead_over_the_bare_sdk_is_printed(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    await bench.run(shell("true"))
    ours: list[float] = []
    bare: list[float] = []
    async with bench.executor.links.use() as link:
        [image] = link.images.values()
        for _ in range(30):
            began = loop.time()
            mark = os.urandom(8).hex()
            await image.with_env_variable("MARK", mark).with_exec(["sh", "-c", "echo 1"]).stdout()
            bare.append(loop.time() - began)
            began = loop.time()
            await bench.run(shell("echo 1"))
            ours.append(loop.time() - began)
    one, other = statistics.median(ours), statistics.median(bare)
    print(f"step {one * 1000:.1f} ms, bare SDK {other * 1000:.1f} ms")  # noqa: T201 - as above
    assert one and other
