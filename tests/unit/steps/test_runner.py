"""Steps as real processes: how they end, what is kept of them, and that nothing of them runs on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

import switchgear
from switchgear.errors import StepFailed
from switchgear.steps import runner
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec, command
from tests.patience import PATIENCE
from tests.unit.steps.sandboxes import needs_sandbox

RUNTIME = Path(str(switchgear.__file__)).parent.parent

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
sandbox = pytest.param("required", marks=needs_sandbox)


@pytest.fixture(autouse=True, params=["none", sandbox])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs in a sandbox and without."""
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", request.param)
    return request.param


DAEMON = """
import fcntl, os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if sys.argv[3] == "closed":
            for fd in (0, 1, 2):
                os.close(fd)
        file = open(sys.argv[1], "a")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("alive")
        file.flush()
        time.sleep(600)
    os._exit(0)
while not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])):
    time.sleep(0.01)
time.sleep(float(sys.argv[2]))
"""
"""Leaves its session and its parent, as daemons do, and locks a file as long as it lives; the first process lives for
argv[2] seconds beyond its beginning."""


def daemon(file: Path, seconds: float, pipes: str = "closed") -> StepSpec:
    return python(DAEMON, str(file), str(seconds), pipes).workdir(file.parent)


def python(code: str, *args: str) -> StepSpec:
    return command(sys.executable, "-c", code, *args)


async def run(spec: StepSpec, on_line: Callable[[str, str], None] | None = None) -> RunResult:
    async with asyncio.timeout(PATIENCE):
        return await runner.run(spec, key="it", on_line=on_line)


async def failure(spec: StepSpec) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        await run(spec)
    assert caught.value.key == "it"
    return caught.value


def content(file: Path) -> str:
    """The file's text; empty where there is none, as for a process that has gone."""
    try:
        return file.read_text("ascii")
    except OSError:
        return ""


async def alive(file: Path) -> None:
    """Returns when the daemon has begun."""
    async with asyncio.timeout(PATIENCE):
        while not content(file):
            await asyncio.sleep(0.01)


async def gone(file: Path) -> bool:
    """Whether the daemon is dead soon: its process id would say nothing, it may be in a namespace."""
    assert content(file) == "alive"
    with file.open("a") as lock:
        end = asyncio.get_running_loop().time() + PATIENCE
        while asyncio.get_running_loop().time() < end:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            await asyncio.sleep(0.01)
    return False


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of the step's."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


# --- how it ends


async def test_a_step_that_ends_well_gives_its_output() -> None:
    result = await run(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert (result.truncated, result.outputs) == (0, {})
    assert result.duration > timedelta(0)


async def test_an_expected_exit_code_is_a_result() -> None:
    result = await run(python("raise SystemExit(3)").expect(0, 3))
    assert result.exit_code == 3


async def test_an_unexpected_exit_code_is_a_failure_that_shows_the_error_output() -> None:
    error = await failure(python("import sys; print('out'); sys.exit('no such rule')"))
    assert (error.exit_code, error.error_class) == (1, "step")
    assert (error.stdout, error.stderr) == ("out\n", "no such rule\n")
    assert error.why == "no such rule"


async def test_success_is_a_failure_where_it_is_not_expected() -> None:
    assert (await failure(python("").expect(1))).exit_code == 0


async def test_a_missing_program_is_named_with_its_cure() -> None:
    error = await failure(command("no-such-program", "--version"))
    assert error.error_class == "invalid"
    assert "no-such-program was not found" in error.why
    assert "install no-such-program" in error.fix


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = await failure(command("true").workdir(tmp_path / "nowhere"))
    assert error.error_class == "invalid"
    assert str(tmp_path / "nowhere") in error.why


async def test_a_file_that_is_no_program_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(b"\x7fELF, but not really")
    file.chmod(0o755)
    error = await failure(command(file).workdir(tmp_path))
    assert error.error_class == "invalid"


async def test_a_program_may_be_named_relative_to_the_working_directory(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("#!/bin/sh\npwd -L\n", "ascii")
    file.chmod(0o755)
    result = await run(command("./program").workdir(tmp_path))
    assert result.stdout == f"{tmp_path}\n"


async def test_a_step_that_takes_too_long_is_ended() -> None:
    error = await failure(command("sleep", "60").limits(timeout=timedelta(seconds=0.1)))
    assert error.error_class == "timeout"
    assert "0:00:00.1" in error.what


async def test_what_a_step_wrote_before_its_time_was_up_is_kept() -> None:
    spec = command("sh", "-c", "echo begun; exec sleep 600")
    error = await failure(spec.limits(timeout=timedelta(seconds=3)))
    assert error.stdout == "begun\n"


async def test_a_step_killed_by_others_lacked_a_resource() -> None:
    error = await failure(python("import os; os.kill(os.getpid(), 9)"))
    assert (error.error_class, error.exit_code) == ("resource", 128 + signal.SIGKILL)


async def test_another_signal_is_named() -> None:
    error = await failure(python("import os; os.kill(os.getpid(), 11)"))
    assert error.error_class == "step"
    assert "SIGSEGV" in error.what


# --- what it gets


async def test_a_step_inherits_only_what_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    monkeypatch.setenv("NATS_PASSWORD", "agents only")
    result = await run(python("import os; print(*sorted(os.environ))").env(MINE="1"))
    names = set(result.stdout.split())
    assert {"PATH", "LC_TIME", "MINE"} <= names
    assert "NATS_PASSWORD" not in names


async def test_arguments_are_never_seen_by_a_shell() -> None:
    result = await run(command("echo", "$HOME; `id` > x *"))
    assert result.stdout == "$HOME; `id` > x *\n"


async def test_a_step_reads_the_text_it_is_given() -> None:
    text = "ä line\n" * 100_000
    spec = python("import sys; data = sys.stdin.buffer.read(); print(len(data), data[:3])")
    result = await run(spec.stdin(text))
    assert result.stdout == f"{len(text.encode())} {text[:2].encode()}\n"


async def test_a_step_that_reads_nothing_of_its_text_ends_well() -> None:
    result = await run(python("print('done')").stdin("x" * 1_000_000))
    assert result.stdout == "done\n"


async def test_without_text_the_input_is_empty() -> None:
    assert (await run(python("import sys; print(sys.stdin.read() == '')"))).stdout == "True\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="the system has no such limit")
async def test_memory_is_bounded() -> None:
    spec = python("data = bytearray(10**9)").limits(memory=500 * 1024**2)
    error = await failure(spec)
    assert "MemoryError" in error.stderr


@linux
async def test_memory_is_bounded_without_prlimit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchgear.steps.spawning.PRLIMIT", "no-such-program")
    waits = "while r.getrlimit(r.RLIMIT_AS)[0] == r.RLIM_INFINITY: time.sleep(0.01)"
    spec = python(f"import resource as r, time\n{waits}\ndata = bytearray(10**9)")
    error = await failure(spec.limits(memory=500 * 1024**2))
    assert "MemoryError" in error.stderr


# --- what is kept


async def test_endless_output_neither_blocks_the_step_nor_fills_the_memory() -> None:
    spec = python(
        "import sys\n"
        "for n in range(200000): sys.stdout.write(f'{n:08}\\n'); sys.stderr.write('e' * 10)"
    )
    result = await run(spec.limits(output=9000))
    assert result.stdout.splitlines()[-1] == "00199999"
    assert (len(result.stdout), len(result.stderr)) == (9000, 9000)
    assert result.truncated == 200_000 * 19 - 18_000


async def test_lines_are_told_as_they_come() -> None:
    lines: list[tuple[str, str]] = []
    spec = python("import sys; print('a'); print('b', flush=True); print('c', file=sys.stderr)")
    await run(spec, on_line=lambda stream, line: lines.append((stream, line)))
    assert sorted(lines) == [("stderr", "c"), ("stdout", "a"), ("stdout", "b")]


# --- nothing runs on


@linux
async def test_a_time_limit_ends_the_whole_tree(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    await failure(daemon(file, 600).limits(timeout=timedelta(seconds=5)))
    assert await gone(file)


@linux
async def test_a_cancelled_step_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    step = asyncio.create_task(run(daemon(file, 600)))
    await alive(file)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await gone(file)


@linux
async def test_a_step_that_ended_well_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    result = await run(daemon(file, 0))
    assert result.exit_code == 0
    assert await gone(file)


@linux
async def test_a_child_that_keeps_the_output_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    assert (await run(daemon(file, 0, pipes="kept"))).exit_code == 0
    assert await gone(file)


@linux
async def test_the_end_of_a_step_reaches_the_steps_that_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    code = (
        "import asyncio, sys\n"
        "from switchgear.steps.runner import run\n"
        "from switchgear.steps.spec import command\n"
        "asyncio.run(run(command(sys.executable, '-c', *sys.argv[1:]).workdir('.'), key='inner'))"
    )
    outer = python(code, DAEMON, str(file), "600", "closed").workdir(tmp_path)
    outer = outer.mount(RUNTIME, RUNTIME).env(SWITCHGEAR_ISOLATION="none")
    step = asyncio.create_task(run(outer))
    await alive(file)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await gone(file)


@linux
async def test_a_process_beside_the_step_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    await failure(command("sleep", "60").limits(timeout=timedelta(seconds=0.1)))
    assert sleeper.poll() is None


async def test_many_steps_at_once_do_not_mix() -> None:
    results = await asyncio.gather(*(run(command("echo", str(n))) for n in range(20)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(20)]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_event_loop_that_ends_after_steps_warns_of_nothing(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    code = f"""
import asyncio, sys
from datetime import timedelta
from {loop} import run as run_loop
from switchgear.errors import StepFailed
from switchgear.steps.runner import run
from switchgear.steps.spec import command

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # of a busy machine this says nothing
    await run(command("cat").stdin("x"), key="well")
    step = asyncio.create_task(run(command("sleep", "60"), key="cancelled"))
    await asyncio.sleep(0.1)
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    try:
        await run(command("sleep", "60").limits(timeout=timedelta(seconds=0.1)), key="late")
    except StepFailed as error:
        print(error.error_class)

run_loop(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("timeout\n", "", 0)
