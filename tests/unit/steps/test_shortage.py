"""A host that runs out of something: its breaker opens, steps are refused before they begin, a probe closes it again.

With a file system that is full, and limits of the process that the kernel holds; no root needed but for memory.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from switchgear.bus.port import Blobs
from switchgear.errors import ProtocolError, StepFailed, Unavailable
from switchgear.resilience.classes import RESOURCES
from switchgear.steps import bubblewrap, processes, shortage
from switchgear.steps.executor import Asked
from switchgear.steps.executors.process import ProcessExecutor
from switchgear.steps.guard import UNGUARDED
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, command
from tests.patience import PATIENCE
from tests.programs.short_of import IN_A_ROW
from tests.unit.steps.sandboxes import needs_sandbox, python, shell

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs limits that Linux holds")
every = pytest.mark.parametrize(
    "isolation", ["none", pytest.param("required", marks=needs_sandbox)]
)
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
_GROUPS = Path("/sys/fs/cgroup/memory")
_MEMORY = 200 << 20


def short_of(kind: str, isolation: str, loop: str, folder: Path, *before: str, **env: str) -> Any:
    """What the program told."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    argv = [sys.executable, "-m", "tests.programs.short_of", kind, isolation, loop, str(folder)]
    done = subprocess.run(
        [*before, *argv],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=2 * PATIENCE,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the program leaves its marks, also when it has become nobody."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)


def assert_outage(told: dict[str, Any], dependency: str, isolation: str) -> None:
    """Failures of a known outcome until it opens; then only probes, and the one that goes well closes it."""
    well = {"end": "well", "isolation": "none" if isolation == "none" else "bubblewrap", "ran": 1}
    failed = {
        "end": "failed",
        "class": "resource",
        "dependency": dependency,
        "known": True,
        "exit code": None,
        "ran": 0,
    }
    refused = {"end": "refused", "dependency": dependency, "state": "open", "ran": 0}
    assert told["before"] == well
    assert told["short"] == [failed] * IN_A_ROW
    assert told["open"] == refused
    assert told["probe"] == failed
    assert told["again"] == refused
    assert told["after"] == well
    states = ["open", "half-open", "open", "half-open", "closed"]
    assert told["changes"] == [[dependency, state] for state in states]


@needs_sandbox
@every
@loops
def test_a_full_disk_opens_its_breaker_before_a_step_begins(
    isolation: str, loop: str, tmp_path: Path
) -> None:
    """The disk of temporary files: a sandbox gives the program a small one."""
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    kept.mkdir()
    inside = ["bwrap", "--dev-bind", "/", "/", "--size", str(1 << 20), "--tmpfs", str(small)]
    told = short_of("disk", isolation, loop, kept, *inside, TMPDIR=str(small))
    assert_outage(told, "resource:disk", isolation)


@linux
@every
@loops
@pytest.mark.parametrize("kind", ["files", "processes"])
def test_too_many_files_or_processes_open_the_breaker_of_those(
    kind: str, isolation: str, loop: str, folder: Path
) -> None:
    assert_outage(short_of(kind, isolation, loop, folder), f"resource:{kind}", isolation)


@linux
@loops
@pytest.mark.parametrize(
    "isolation",
    [
        "none",
        pytest.param("preferred", marks=needs_sandbox),
        pytest.param("required", marks=needs_sandbox),
    ],
)
def test_wherever_files_run_out_a_step_has_run_or_has_not_and_never_without_its_sandbox(
    isolation: str, loop: str, tmp_path: Path
) -> None:
    """One more may be opened each time, so that another call fails: also the one that looks for a sandbox."""
    ends = short_of("fewer-files", isolation, loop, tmp_path)
    well = {"end": "well", "isolation": "none" if isolation == "none" else "bubblewrap", "ran": 1}
    failed = [one for one in ends if one["end"] == "failed"]
    assert len(failed) > 5
    for one in failed:
        assert (one["class"], one["dependency"]) == ("resource", "resource:files")
        assert (one["known"], one["ran"]) == (True, 0)
    assert ends == [*failed, *[well] * (len(ends) - len(failed))]
    assert ends[-1] == well


@pytest.fixture
def group() -> Iterator[Path]:
    """A group of processes that may use little memory together."""
    place = _GROUPS / f"switchgear-test-{os.getpid()}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(_MEMORY))
    except OSError:
        pytest.skip("this user cannot limit the memory of a group of processes here")
    yield place
    for _ in range(100):
        with suppress(OSError):
            place.rmdir()
            return


@linux
@every
def test_what_the_kernel_kills_for_want_of_memory_opens_a_breaker_and_other_kills_do_not(
    isolation: str, group: Path, tmp_path: Path
) -> None:
    """Both end with 137; what it had done by then nobody knows."""
    join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    told = short_of("memory", isolation, "asyncio", tmp_path, "sh", "-c", join, "sh")
    killed = {"end": "failed", "class": "resource", "known": False, "exit code": 137, "ran": 1}
    assert told["by hand"] == {**killed, "dependency": ""}
    assert told["short"] == [{**killed, "dependency": "resource:memory"}] * IN_A_ROW
    assert told["open"]["end"] == "refused"
    assert told["after"]["end"] == "well"
    states = ["open", "half-open", "closed"]
    assert told["changes"] == [["resource:memory", state] for state in states]


# --- what is the step's own doing, and what is not


class Kernel:
    """Counts one kill for want of memory more, each time that it is asked."""

    def __init__(self) -> None:
        self.kills = 3

    def __call__(self) -> int:
        """How many there were."""
        self.kills += 1
        return self.kills


async def end(spec: StepSpec, blobs: object = None) -> StepFailed | int:
    """The exit code, or the failure, on a host whose kernel kills somebody while the step runs."""
    executor = ProcessExecutor(StepSettings(isolation="none"), oom_kills=Kernel())
    try:
        async with asyncio.timeout(PATIENCE):
            runner = Runner([executor])
            return (await runner.run(Asked(spec, "it"), blobs=cast("Blobs", blobs))).exit_code
    except StepFailed as failed:
        return failed


@pytest.mark.parametrize(
    ("spec", "error_class", "known", "dependency"),
    [
        (shell("kill -9 $$"), "resource", False, "resource:memory"),
        (shell("sh -c 'kill -9 $$'; exit $?"), "resource", False, "resource:memory"),
        (shell("kill -15 $$"), "timeout", False, ""),
        (shell("kill -1 $$"), "transient", False, ""),
        (shell("exit 1"), "step", True, ""),
        (shell("exec sleep 60").limits(timeout=timedelta(seconds=1)), "timeout", False, ""),
    ],
)
async def test_only_a_kill_while_the_kernel_killed_is_one_for_want_of_memory(
    spec: StepSpec, error_class: str, *, known: bool, dependency: str
) -> None:
    failed = await end(spec)
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.outcome_known) == (error_class, known)
    assert (failed.dependency, failed.executor) == (dependency, "process")


async def test_a_kill_that_a_step_expects_is_a_result() -> None:
    assert await end(shell("kill -9 $$").expect(137)) == 137


@linux
@pytest.mark.parametrize("isolation", ["none", pytest.param("required", marks=needs_sandbox)])
async def test_a_step_that_meets_its_own_limits_speaks_against_no_resource(isolation: str) -> None:
    """Also a limit that is too low for its sandbox to begin."""
    executor = ProcessExecutor(StepSettings(isolation=cast("Any", isolation)))
    for spec in (
        shell("head -c 300000000 /dev/zero | tail -c 300000000").limits(memory=100 << 20),
        shell("true").limits(memory=1 << 20),
        shell("true").limits(files=3),
        python("[open('/dev/null') for _ in range(100)]").limits(files=50),
        shell("head -c 2000 /dev/zero > x").limits(file=1000),
        shell("while :; do :; done").limits(cpu=timedelta(seconds=1)),
    ):
        with pytest.raises(StepFailed) as caught:
            async with asyncio.timeout(PATIENCE):
                await Runner([executor]).run(Asked(spec, "it"))
        assert caught.value.dependency == "", caught.value.why


class Full:
    """An object store behind which something runs out."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def put(self, data: bytes) -> str:
        del data
        raise self.error


@pytest.mark.parametrize(
    ("error", "dependency"),
    [
        (MemoryError(), "resource:memory"),
        (OSError(errno.ENOSPC, "full"), "resource:disk"),
        (RuntimeError("can't start new thread"), "resource:processes"),
    ],
)
async def test_what_runs_out_after_the_commands_leaves_their_outcome_unknown(
    error: Exception, dependency: str
) -> None:
    """They ran: without `.idempotent()` they must not run again, only because their outputs were not kept."""
    failed = await end(shell("echo it > x").output("x", "x"), Full(error))
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.dependency) == ("resource", dependency)
    assert not failed.outcome_known


@pytest.mark.parametrize(
    ("error", "error_class", "dependency"),
    [
        (Unavailable("the broker is away"), "transient", "nats"),
        (Unavailable("the store is full", retry_after=5.0, full=True), "transient", "nats"),
        (ProtocolError("too large", code="SG1103"), "invalid", ""),
        (ValueError("odd"), "transient", ""),
    ],
    ids=repr,
)
async def test_whatever_fails_after_the_commands_leaves_their_outcome_unknown(
    error: Exception, error_class: str, dependency: str
) -> None:
    failed = await end(shell("echo it > x").output("x", "x"), Full(error))
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.dependency) == (error_class, dependency)
    assert (failed.executor, failed.outcome_known) == ("process", False)
    assert str(error) in f"{failed.what} {failed.why}"


async def test_an_output_that_is_missing_is_no_reason_to_run_the_commands_again() -> None:
    """They ended as expected, so they took effect."""
    failed = await end(shell("true").output("x", "x"), Full(ValueError("unused")))
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.outcome_known) == ("step", False)


@pytest.mark.parametrize(("first", "known"), [((), True), (("true",), False)], ids=repr)
async def test_a_program_that_cannot_be_started_has_done_nothing_but_those_before_it_may_have(
    first: tuple[str, ...], tmp_path: Path, *, known: bool
) -> None:
    file = tmp_path / "program"
    file.write_bytes(bytes(9))
    file.chmod(0o755)
    failed = await end(command(*first).exec(file) if first else command(file))
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.outcome_known) == ("invalid", known)


async def test_what_is_undone_may_be_what_filled_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, "full", str(directory))

    monkeypatch.setattr(shortage, "ensure_room", full)
    assert isinstance(await end(shell("true")), StepFailed)
    token = UNGUARDED.set(True)
    assert await end(shell("true")) == 0
    UNGUARDED.reset(token)


def test_a_process_step_needs_what_all_processes_share() -> None:
    """Hosts of commits first: an error that names nothing counts against those."""
    executor = ProcessExecutor(StepSettings())
    spec = command("true").mount("/src", git("https://example.com/x", "main"))
    assert executor.dependencies(spec) == ("git:example.com", *RESOURCES)
    assert executor.dependencies(command("true")) == RESOURCES


@pytest.mark.parametrize(
    ("said", "dependency"),
    [
        ("fatal: write error: No space left on device", "resource:disk"),
        ("remote: fatal: No space left on device", None),
        ("fatal: couldn't find remote ref", None),
    ],
)
def test_git_tells_what_the_host_ran_out_of(said: str, dependency: str | None) -> None:
    error = StepFailed("no", key="it", error_class="invalid", dependency="git:a", why=said)
    found = shortage.found_in(error, command("true"))
    assert (found.dependency if found else None) == dependency


@pytest.mark.parametrize(
    ("said", "spec", "dependency"),
    [
        (
            "Creating new namespace failed: Resource temporarily unavailable",
            command("a"),
            "processes",
        ),
        ("Creating new namespace failed: No space left on device", command("a"), None),
        ("Can't open /x: Too many open files", command("a"), "files"),
        ("Can't open /x: Too many open files", command("a").limits(files=9), None),
        ("Out of memory: Cannot allocate memory", command("a").limits(memory=1 << 20), None),
        ("execvp x: No such file or directory", command("a"), None),
    ],
)
def test_a_sandbox_tells_what_the_host_ran_out_of_unless_the_step_is_bounded(
    said: str, spec: StepSpec, dependency: str | None
) -> None:
    """Its "no space" is a limit of namespaces: whoever may have none has a full disk as little as others."""
    found = shortage.found_in(bubblewrap.NotRun(f"bwrap: {said}"), spec)
    assert (found.dependency if found else None) == (dependency and f"resource:{dependency}")


def test_a_cause_is_looked_for_as_far_as_it_is_told() -> None:
    """Also where who raised it left it out: no secret could be read for too many open files."""
    error = StepFailed("no secret", key="it", error_class="invalid")
    error.__context__, error.__suppress_context__ = OSError(errno.EMFILE, "many"), True
    found = shortage.found_in(error, command("true"))
    assert found is not None
    assert found.dependency == "resource:files"
    deep: BaseException = OSError(errno.EMFILE, "many")
    for _ in range(20):
        outer = ValueError("x")
        outer.__cause__ = deep
        deep = outer
    assert shortage.found_in(deep, command("true")) is None


def test_kills_are_counted_where_the_system_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = tmp_path / "vmstat"
    monkeypatch.setattr(shortage, "_COUNTERS", counters)
    assert shortage.oom_kills() == 0
    counters.write_text("nr_free_pages 7\n")
    assert shortage.oom_kills() == 0
    counters.write_text("nr_free_pages 7\noom_kill 42\nswap_ra 0\n")
    assert shortage.oom_kills() == 42


# --- killed from outside


def sandboxes() -> list[int]:
    """The processes that hold the sandboxes of this process's steps."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return [
        int(one) for one in children if Path(f"/proc/{one}/comm").read_text("ascii") == "bwrap\n"
    ]


@needs_sandbox
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_sandbox_that_is_killed_is_a_step_that_was_killed(number: signal.Signals) -> None:
    """The command had begun: that it "cannot be started" would let nobody know."""
    begun = asyncio.Event()

    def on_line(stream: str, line: str) -> None:
        assert (stream, line) == ("stdout", "begun")
        begun.set()

    runner = Runner([ProcessExecutor(StepSettings())])
    running = asyncio.create_task(
        runner.run(Asked(shell("echo begun; exec sleep 60"), "it"), on_line=on_line)
    )
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        (pid,) = sandboxes()
        os.kill(pid, number)
        with pytest.raises(StepFailed) as caught:
            await running
    assert caught.value.exit_code == 128 + number
    assert not caught.value.outcome_known
    assert not processes.alive(pid)
    assert sandboxes() == []
