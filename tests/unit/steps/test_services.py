"""Services beside a process step: when the step may begin, what they share, and what is told when one fails."""

from __future__ import annotations

import asyncio
import socket
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.errors import ServiceFailed
from switchgear.resilience.classes import PROCESSES
from switchgear.steps import shortage
from switchgear.steps.executors.process import ProcessExecutor
from switchgear.steps.network import NoNetwork, listening_ports
from switchgear.steps.settings import StepSettings
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, command, container
from tests.unit.steps.sandboxes import (
    MemoryBlobs,
    failure,
    needs_sandbox,
    python,
    root_filesystem,
    run,
    shell,
)
from tests.unit.steps.test_runner import alive, daemon, gone

pytestmark = needs_sandbox

LISTEN = """
import socket, sys
print("about to listen", file=sys.stderr, flush=True)
with socket.create_server(("", int(sys.argv[1]))) as server:
    while True:
        peer, _ = server.accept()
        peer.sendall(b"greeted")
        peer.close()
"""
GREET = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(99).decode())"
PORT = "5432"


def listener(before: str = "", port: str = PORT) -> StepSpec:
    return python(before + LISTEN, port)


def greet(name: str = "db", port: str = PORT) -> StepSpec:
    return python(GREET, name, port)


# --- readiness


async def test_a_step_begins_when_its_service_listens() -> None:
    slow = listener("import time; time.sleep(0.3)")
    result = await run(greet().service("db", slow, ports=[5432]))
    assert (result.stdout, result.isolation, result.notes) == ("greeted\n", "bubblewrap", ())


async def test_a_step_has_several_services_each_under_its_name() -> None:
    spec = python(f"{GREET}\nsys.argv[1:] = ['other', '81']\n{GREET}", "db", PORT)
    spec = spec.service("db", listener(), ports=[5432])
    spec = spec.service("other", listener(port="81"), ports=[81])
    assert (await run(spec)).stdout == "greeted\ngreeted\n"


async def test_a_service_that_does_not_listen_in_time_is_named_and_the_step_does_not_run(
    tmp_path: Path,
) -> None:
    deaf = shell("echo cannot bind >&2; sleep 1000")
    spec = shell("touch ran").workdir(tmp_path)
    spec = spec.service("db", deaf, ports=[5432], start=timedelta(seconds=2))
    error = await failure(spec)
    assert isinstance(error, ServiceFailed)
    assert (error.code, error.error_class, error.outcome_known) == ("SG1522", "timeout", True)
    assert "service db did not listen on port 5432 within 2 s" in error.what
    assert "cannot bind" in error.why
    assert ".service(start=" in error.fix
    assert not (tmp_path / "ran").exists()


async def test_a_service_that_ends_before_it_listens_is_told_with_its_last_words() -> None:
    spec = shell("true").service("db", shell("echo no such config >&2; exit 3"), ports=[5432])
    error = await failure(spec)
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known, error.exit_code) == ("step", True, 3)
    assert "service db ended with exit code 3 before the step began" in error.what
    assert "no such config" in error.why
    assert error.stderr == "no such config\n"


async def test_a_service_that_ends_while_the_step_runs_ends_the_step_and_says_so() -> None:
    crashes = "print('out of disk', file=sys.stderr); raise SystemExit(4)"
    dies = python(LISTEN.replace("peer.close()", crashes), PORT)
    step = python(f"{GREET}\nimport time; time.sleep(1000)", "db", PORT)
    error = await failure(step.service("db", dies, ports=[5432]))
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known, error.exit_code) == ("step", False, 4)
    assert "service db ended with exit code 4 while the step ran" in error.what
    assert "out of disk" in error.why


async def test_a_step_that_fails_because_its_service_died_says_so_too() -> None:
    """Whether the step's own end or the service's is seen first."""
    crashes = "print('lost my disk', file=sys.stderr); raise SystemExit(4)"
    dying = python(LISTEN.replace("peer.close()", crashes), PORT)
    reads = f"{GREET.replace('print', 'peer = ').replace('.recv(99).decode()', '')}"
    step = python(f"{reads}\nwhile peer.recv(99): pass\nraise SystemExit(9)", "db", PORT)
    for _ in range(5):
        error = await failure(step.service("db", dying, ports=[5432]))
        assert "service db ended with exit code 4 while the step ran" in str(error)
        assert "lost my disk" in str(error)


async def test_a_service_that_cannot_be_started_is_a_mistake_of_the_spec() -> None:
    rootless = container("rootfs:/nowhere").exec("x")
    error = await failure(shell("true").service("db", rootless))
    assert error.error_class == "invalid"
    missing = await failure(shell("true").service("db", command("no-such-program")))
    assert (missing.error_class, "no-such-program" in missing.why) == ("invalid", True)


async def test_a_service_whose_own_limits_are_too_small_says_nothing_against_the_host() -> None:
    tight = shell("sleep 1000").limits(files=5)
    error = await failure(shell("true").service("db", tight, ports=[5432]))
    assert isinstance(error, ServiceFailed)
    assert "Too many open files" in error.why
    assert error.dependency == ""


def test_a_network_for_which_the_host_has_no_process_left_says_nothing_against_the_spec() -> None:
    refused = NoNetwork("bwrap: Creating new namespace failed: Resource temporarily unavailable")
    found = shortage.found_in(refused, shell("true"))
    assert found is not None
    assert found.dependency == PROCESSES


async def test_a_service_that_nobody_waits_for_and_that_cannot_start_ends_the_step(
    tmp_path: Path,
) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh")
    lacks = container(f"rootfs:{rootfs}").exec("no-such-program")
    error = await failure(command("sleep", "1000").service("db", lacks))
    assert isinstance(error, ServiceFailed)
    assert (error.error_class, error.outcome_known) == ("invalid", False)
    assert "was ended: its service db cannot be started" in error.what
    assert "no-such-program" in error.why


async def test_commands_of_a_service_run_in_their_order_and_share_its_directory() -> None:
    service = shell("echo made > file").exec(sys.executable, "-c", f"open('file')\n{LISTEN}", PORT)
    assert (await run(greet().service("db", service, ports=[5432]))).stdout == "greeted\n"


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1539 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 3
"""


def test_only_a_listening_socket_counts() -> None:
    assert listening_ports(TABLE) == {5432, 80}
    assert listening_ports("") == set()


# --- isolation


async def test_step_and_services_share_a_network_that_has_nothing_else() -> None:
    """Also the rights are those of any step."""
    look = shell("cut -d: -f1 -s /proc/net/dev; grep CapEff /proc/self/status")
    with_service = look.service("db", listener(), ports=[5432])
    assert (await run(with_service)).stdout.split() == ["lo", "CapEff:", "0" * 16]
    rights = "grep CapEff /proc/self/status >&2; cut -d: -f1 -s /proc/net/dev >&2; exit 1"
    error = await failure(shell("true").service("db", shell(rights), ports=[1]))
    assert error.stderr.split() == ["CapEff:", "0" * 16, "lo"]


async def test_two_steps_with_services_on_one_port_do_not_meet() -> None:
    spec = greet().service("db", listener(), ports=[5432])
    results = await asyncio.gather(*(run(spec) for _ in range(3)))
    assert [result.stdout for result in results] == ["greeted\n"] * 3


async def test_secrets_of_a_service_are_its_own_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORD", "open sesame")
    leaky = shell("echo $T >&2; exit 1").secret("T", "env://WORD")
    error = await failure(shell("env").service("db", leaky, ports=[1]))
    assert error.stderr == "***\n"
    own = shell("exec sleep 1000").secret("T", "env://WORD")
    assert "sesame" not in (await run(shell("env").service("db", own))).stdout


async def test_a_secret_that_the_step_sends_to_its_service_is_not_shown_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORD", "open sesame")
    repeats = LISTEN.replace(
        'peer.sendall(b"greeted")', "print(peer.recv(99).decode(), file=sys.stderr); sys.exit(1)"
    )
    sends = "import os, socket, sys, time; socket.create_connection(('db', 5432)).sendall(os.environb[b'T'])"
    step = python(f"{sends}; time.sleep(1000)").secret("T", "env://WORD")
    error = await failure(step.service("db", python(repeats, PORT), ports=[5432]))
    assert isinstance(error, ServiceFailed)
    assert error.stderr.endswith("***\n")


async def test_an_output_that_holds_a_secret_is_told_though_a_service_has_another_of_that_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORD", "open sesame")
    monkeypatch.setenv("OTHER", "another word")
    step = shell('printf %s "$T" > it').secret("T", "env://WORD").output("it", "it")
    other = shell("sleep 1000").secret("T", "env://OTHER")
    result = await run(step.service("db", other), blobs=MemoryBlobs())
    assert result.notes == ("the output it holds the text of the secret T",)


async def test_a_service_may_live_in_a_root_filesystem(tmp_path: Path) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh", "sleep", "cat")
    spec = shell("true").service("idle", container(f"rootfs:{rootfs}").exec("sleep", "1000"))
    assert (await run(spec)).exit_code == 0
    of_image = container(f"rootfs:{rootfs}").exec("cat", "/etc/hosts")
    hosts = (await run(of_image.service("db", listener(), ports=[5432]))).stdout
    assert "127.0.0.1 db" in hosts


# --- nothing runs on


async def test_a_service_ends_with_its_step(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    await run(
        shell(f"until test -s {file}; do sleep 0.01; done")
        .workdir(tmp_path)
        .service("d", daemon(file, 600))
    )
    assert await gone(file)


async def test_a_service_ends_with_a_step_that_is_cancelled(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    step = asyncio.create_task(run(command("sleep", "1000").service("d", daemon(file, 600))))
    await alive(file)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await gone(file)


# --- what only an engine can do


@pytest.mark.parametrize(
    ("spec", "feature"),
    [
        (shell("x").network().service("db", shell("x")), "services beside a step with the network"),
        (shell("x").service("db", shell("x").network()), "services beside a step with the network"),
        (
            shell("x").service("a", shell("x"), ports=[1]).service("b", shell("x"), ports=[1]),
            "two services on port 1",
        ),
        (shell("x").service("db", shell("x").cache("/c", "it")), "a cache of the service db"),
        (shell("x").service("db", container("postgres").exec("x")), "the image postgres"),
        (shell("x").service("db", StepSpec()), "the service db without a command"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_only_an_engine_can_do_is_refused_before_anything_runs(
    spec: StepSpec, feature: str
) -> None:
    error = await failure(spec)
    assert (error.error_class, error.code) == ("invalid", "SG1503")
    assert f"needs {feature}, which the process executor cannot give" in error.what
    assert error.why
    assert error.fix


async def test_without_nsenter_services_are_refused_by_its_packages_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("switchgear.steps.network.NSENTER", "no-such-program")
    error = await failure(shell("true").service("db", shell("sleep 1000")))
    assert "needs services" in error.what
    assert error.fix == "install the package util-linux"


async def test_services_need_a_sandbox() -> None:
    spec = shell("true").service("db", shell("sleep 1000"))
    error = await failure(spec, settings=StepSettings(isolation="none"))
    assert "needs a service" in error.what
    assert "bubblewrap" in error.fix


# --- what they mount


async def test_what_a_service_mounts_must_come_within_the_steps_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = git(f"https://127.0.0.1:{silent.getsockname()[1]}/repository", "main")
        step = shell("true").limits(timeout=timedelta(seconds=1))
        error = await failure(step.service("db", listener().mount("/src", source)))
    assert (error.error_class, error.outcome_known) == ("timeout", True)
    assert error.dependency == "git:127.0.0.1"
    assert "what it mounts at /src" in error.what


def test_a_step_depends_on_the_git_hosts_of_its_services_too() -> None:
    source = git("https://git.example.com/repository", "main")
    spec = shell("true").service("db", listener().mount("/src", source))
    assert "git:git.example.com" in ProcessExecutor(StepSettings()).dependencies(spec)


async def test_no_name_of_a_service_is_the_place_of_what_another_mounts() -> None:
    blobs = MemoryBlobs()
    made = await run(shell("echo it > it").output("it", "it"), blobs=blobs)
    mounts = shell("sleep 1000").mount("/in", made.outputs["it"])
    spec = greet("db-mount-0").service("db", mounts).service("db-mount-0", listener(), ports=[5432])
    assert (await run(spec, blobs=blobs)).stdout == "greeted\n"
