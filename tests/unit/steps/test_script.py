"""The script that runs a step inside an engine, under the shells that images have."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.steps.executors.dagger import script
from switchgear.steps.executors.dagger.script import Frame
from switchgear.steps.executors.dagger.service import argv
from switchgear.steps.spec import StepSpec, container
from tests.patience import PATIENCE

NEEDED = ("sh", "tail", "wc", "rm", "sleep")
"""What the script takes from an image."""
USED = ("cat", "head", "mkdir", "printf", "tr")
"""What the commands of these tests take."""

RunScript = Callable[[StepSpec], Frame]


def shell(text: str) -> StepSpec:
    return container("any").exec("sh", "-c", text)


@pytest.fixture(params=["sh", "busybox"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with nothing but what the image is said to have."""
    programs = tmp_path / "bin"
    programs.mkdir()
    busybox = shutil.which("busybox")
    if request.param == "busybox" and busybox is None:
        if os.environ.get("CI"):
            pytest.fail("busybox is missing", pytrace=False)
        pytest.skip("busybox is missing")
    for name in (*NEEDED, *USED):
        found = busybox if request.param == "busybox" else shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return programs


@pytest.fixture
def ran(programs: Path, tmp_path: Path) -> RunScript:
    """Run a spec's script."""

    def run(spec: StepSpec) -> Frame:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            [programs / "sh", "-c", script.script(spec), script.mark(spec)],
            input=(spec.input or "").encode(),
            capture_output=True,
            cwd=work,
            env={"PATH": str(programs), "TMPDIR": str(tmp_path), script.RUN: "here"},
            check=False,
            timeout=PATIENCE,
        )
        failed = done.returncode != 0
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        # An engine strips what a failed execution wrote.
        return script.parse(spec, *((out.strip(), err.strip()) if failed else (out,)))

    return run


def test_exit_code_and_both_outputs_come_back(ran: RunScript) -> None:
    frame = ran(shell("echo one; echo two >&2; exit 3"))
    assert (frame.exit_code, frame.stdout, frame.stderr) == (3, "one\n", "two\n")
    assert (frame.timed_out, frame.truncated, frame.run) == (False, 0, "here")


@pytest.mark.parametrize("code", [1, 127, 128, 137, 191, 255])
def test_every_exit_code_comes_back_as_it_was(ran: RunScript, code: int) -> None:
    assert ran(shell(f"exit {code}").expect(code)).exit_code == code


def test_the_first_unexpected_exit_ends_the_step(ran: RunScript) -> None:
    frame = ran(shell("echo a").exec("sh", "-c", "exit 4").exec("printf", "never"))
    assert (frame.exit_code, frame.stdout) == (4, "a\n")


def test_a_program_that_is_missing_has_the_shells_exit_code(ran: RunScript) -> None:
    frame = ran(container("any").exec("no-such-program"))
    assert (frame.exit_code, "no-such-program" in frame.stderr) == (127, True)


def test_a_command_that_a_signal_ended_has_128_and_its_number(ran: RunScript) -> None:
    assert ran(shell("kill -9 $$")).exit_code == 137


def test_arguments_and_input_are_kept_byte_for_byte(ran: RunScript) -> None:
    odd = "a 'b' \"c\" $HOME `id` \\ \n@LIMIT@ *"
    assert ran(container("any").exec("printf", "%s", odd)).stdout == odd
    assert ran(container("any").exec("cat").exec("cat").stdin("héllo")).stdout == "héllo"


def test_the_time_limit_ends_the_command_that_runs(ran: RunScript) -> None:
    frame = ran(container("any").exec("sleep", "1000").limits(timeout=timedelta(milliseconds=200)))
    assert (frame.timed_out, frame.exit_code) == (True, 137)


def test_limits_hold_for_each_process(ran: RunScript) -> None:
    spec = shell("ulimit -v; ulimit -t; ulimit -n")
    spec = spec.limits(memory=512 << 20, cpu=timedelta(seconds=7), files=50)
    assert ran(spec).stdout.split() == [str(512 << 10), "7", "50"]


def test_outputs_are_cut_at_their_beginning_and_the_cut_is_counted(ran: RunScript) -> None:
    frame = ran(shell("head -c 1000 /dev/zero | tr '\\0' x; echo end").limits(output=10))
    assert (frame.stdout, frame.truncated) == ("xxxxxxend\n", 994)


def test_declared_outputs_are_told_by_their_kind(ran: RunScript) -> None:
    spec = shell("mkdir 'a dir'; echo 1 >file").output("dir", "a dir")
    frame = ran(spec.output("file", "file").output("none", "nowhere"))
    assert frame.outputs == ("directory", "file", "missing")


def test_a_step_that_may_be_cached_fails_with_its_error_output_apart(ran: RunScript) -> None:
    frame = ran(shell("echo ' one'; echo ' two' >&2; echo >&2; exit 3").cacheable())
    assert (frame.exit_code, frame.stdout, frame.stderr) == (3, " one\n", " two\n\n")


# --- services


def serve(programs: Path, spec: StepSpec) -> tuple[int, str, str]:
    """Run the script of its service to its end: exit code and outputs, which what it left may hold open."""
    _, *words = argv(spec.services[0])
    out, err = programs / "out", programs / "err"
    with out.open("wb") as first, err.open("wb") as second:
        code = subprocess.call(
            [programs / "sh", *words],
            stdout=first,
            stderr=second,
            env={"PATH": str(programs)},
            timeout=PATIENCE,
        )
    return code, out.read_text("utf-8"), err.read_text("utf-8")


def listener(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
def test_a_service_that_nobody_can_reach_in_time_is_ended_and_says_so(
    programs: Path, address: str
) -> None:
    """Also one that listens for itself alone, which an engine would wait for without an end."""
    with listener(address) as server:
        port = server.getsockname()[1]
        if not address:
            server.close()
        deaf = shell("echo tried >&2; exec sleep 1000")
        spec = shell("true").service("db", deaf, ports=[port], start=timedelta(seconds=1))
        told = f"tried\nswitchgear: nothing listens on port {port}\n"
        assert serve(programs, spec) == (-9, "", told)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 - as services do
def test_a_service_that_listens_is_let_be(programs: Path, address: str) -> None:
    with listener(address) as server:
        listens = shell("sleep 2; echo done")
        port = server.getsockname()[1]
        spec = shell("true").service("db", listens, ports=[port], start=timedelta(seconds=1))
        assert serve(programs, spec) == (0, "done\n", "")


def test_commands_of_a_service_run_in_their_order_up_to_one_that_fails(programs: Path) -> None:
    service = shell("echo one").exec("sh", "-c", "echo two; exit 3").exec("printf", "never")
    spec = shell("true").service("db", service, ports=[1])
    assert serve(programs, spec) == (3, "one\ntwo\n", "")
