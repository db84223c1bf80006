"""What a step in a sandbox sees and may do: read from inside, with the real bubblewrap."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.steps.sandbox import Folder, Link, Operation, Outside, Show, host_path, shown
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import command, container
from tests.unit.steps.sandboxes import (
    failure,
    needs_sandbox,
    python,
    root_filesystem,
    run,
    shell,
)
from tests.unit.steps.test_runner import DAEMON, RUNTIME, alive, daemon, gone

pytestmark = needs_sandbox


# --- rights


async def test_a_step_has_no_capabilities_even_where_the_agent_is_root() -> None:
    result = await run(shell("grep ^Cap /proc/self/status"))
    found = dict(line.split() for line in result.stdout.replace(":", "").splitlines())
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == "0" * 16
    assert (result.executor, result.isolation) == ("process", "bubblewrap")


async def test_a_step_of_a_root_filesystem_is_root_without_capabilities(tmp_path: Path) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh", "id", "grep")
    spec = container(f"rootfs:{rootfs}").exec("sh", "-c", "id -u; grep CapEff /proc/self/status")
    assert (await run(spec)).stdout.split() == ["0", "CapEff:", "0" * 16]


async def test_a_step_has_namespaces_of_its_own() -> None:
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts")
    asked = f"cd /proc/self/ns && readlink {' '.join(kinds)}"
    inside = (await run(shell(asked))).stdout.split()
    outside = (await run(shell(asked), settings=StepSettings(isolation="none"))).stdout.split()
    assert len(inside) == len(outside) == len(kinds)
    assert not set(inside) & set(outside)


@pytest.mark.parametrize("place", ["sys/kernel/core_pattern", "sys/vm/drop_caches", "sys/net"])
async def test_a_step_cannot_change_settings_of_the_host(tmp_path: Path, place: str) -> None:
    """Asked, not tried: where it could, the host would be changed."""
    asked = f"if test -w /proc/{place}; then echo may; else echo never; fi"
    rootfs = root_filesystem(tmp_path / "root", "sh")
    of_an_image = container(f"rootfs:{rootfs}").exec("sh", "-c", asked)
    assert (await run(shell(asked))).stdout == "never\n"
    assert (await run(of_an_image)).stdout == "never\n"


async def test_a_step_sees_no_process_but_its_own() -> None:
    result = await run(python("import os; print(*[n for n in os.listdir('/proc') if n.isdigit()])"))
    assert len(result.stdout.split()) <= 2


async def test_a_step_has_a_session_of_its_own() -> None:
    result = await run(python("import os; print(os.getsid(0) == os.getpid() or os.getsid(0) > 0)"))
    assert result.stdout == "True\n"


# --- network


INTERFACES = "cut -d: -f1 -s /proc/net/dev"


async def test_a_step_has_no_network_unless_it_asks() -> None:
    own = {name for _, name in socket.if_nameindex()}
    assert (await run(shell(INTERFACES))).stdout.split() == ["lo"]
    assert set((await run(shell(INTERFACES).network())).stdout.split()) == own


async def test_a_step_that_asks_can_talk_to_the_host() -> None:
    greeted = asyncio.Event()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        greeted.set()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        spec = python(f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")
        await run(spec.network())
        assert greeted.is_set()
        assert "refused" in (await failure(spec)).stderr


# --- files


@pytest.mark.parametrize("path", ["/usr/x", "/x", "/etc/x", "/bin/x", "/proc/x"])
async def test_the_system_may_not_be_written(path: str) -> None:
    assert (await failure(shell(f"touch {path}"))).exit_code == 1


async def test_homes_secrets_and_other_files_of_the_host_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for path in (Path.home(), tmp_path / "secret", "/etc/shadow", "/run", "/sys", "/var"):
        await run(command("test", "!", "-e", str(path)))


async def test_temporary_files_are_the_steps_own() -> None:
    spec = shell("ls -A /tmp; echo $HOME $TMPDIR; touch /tmp/mine")
    for _ in range(2):
        assert (await run(spec)).stdout.split() == ["/tmp"] * 2  # noqa: S108 - inside


async def test_a_step_starts_in_an_empty_directory_of_its_own() -> None:
    assert (await run(shell("pwd; ls -A; touch mine"))).stdout == "/work\n"


async def test_the_working_directory_may_be_written_and_what_is_beside_it_is_not_shown(
    tmp_path: Path,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "beside").touch()
    await run(shell("touch made; test ! -e ../beside").workdir(tmp_path / "here"))
    assert (tmp_path / "here" / "made").exists()


async def test_a_mount_is_read_only_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("seen\n")
    spec = shell("cat /in/file; touch /in/made").mount("/in", tmp_path)
    error = await failure(spec)
    assert (error.stdout, "Read-only" in error.stderr) == ("seen\n", True)
    await run(spec.mount("/in", tmp_path, read_only=False))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("place", ["/usr/share/made/deep", "/opt/made", "/src", "/usr/bin/made"])
async def test_a_mount_may_be_where_the_system_has_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("seen\n")
    spec = shell(f"cat {place}/file; test -e /usr/bin/env").mount(place, tmp_path)
    assert (await run(spec)).stdout == "seen\n"


async def test_mounts_may_lie_in_each_other(tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    spec = shell("ls /a /a/b").mount("/a/b", tmp_path / "inner").mount("/a", tmp_path / "outer")
    assert (await run(spec)).stdout.split() == ["/a:", "b", "outer", "/a/b:", "inner"]


async def test_a_source_that_is_missing_is_named(tmp_path: Path) -> None:
    error = await failure(shell("true").mount("/in", tmp_path / "nowhere"))
    assert error.error_class == "invalid"
    assert "nowhere does not exist" in error.why


async def test_a_path_that_the_sandbox_does_not_show_is_named_when_the_step_fails(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    error = await failure(command("cat", str(tmp_path / "file")))
    assert f"{tmp_path}/file of the host is not shown inside" in error.fix
    assert ".mount()" in error.fix


async def test_settings_show_more_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("seen\n")
    settings = StepSettings(shown=(str(tmp_path),))
    assert (await run(command("cat", tmp_path / "file"), settings=settings)).stdout == "seen\n"


async def test_a_program_of_a_virtual_environment_has_its_packages() -> None:
    result = await run(python("import msgspec, sys; print(sys.prefix != sys.base_prefix)"))
    assert result.stdout == f"{sys.prefix != sys.base_prefix}\n"


# --- limits


async def test_processor_time_is_bounded_and_the_kind_is_told() -> None:
    spec = python("while True: pass").limits(
        cpu=timedelta(seconds=1), timeout=timedelta(seconds=20)
    )
    assert (await failure(spec)).error_class == "timeout"
    spec = command("true").limits(cpu=timedelta(seconds=1), memory=10**9)
    limits = (await run(spec)).limits
    assert (limits.memory, limits.cpu) == ("address-space", "cpu-time")


@pytest.mark.parametrize("prlimit", ["prlimit", "no-such-program"])
async def test_every_limit_is_that_of_each_process_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, prlimit: str
) -> None:
    """Set by prlimit(1), and where that is missing by Python."""
    monkeypatch.setattr("switchgear.steps.spawning.PRLIMIT", prlimit)
    spec = shell("ulimit -v; ulimit -t; ulimit -f; ulimit -n").limits(
        memory=800 << 20, cpu=timedelta(seconds=7), file=4096, files=50
    )
    # The shell counts memory in KiB and files in blocks of 512 bytes.
    assert (await run(spec)).stdout.split() == [str(800 << 10), "7", "8", "50"]


async def test_files_are_bounded() -> None:
    big = shell("head -c 2000 /dev/zero > x").limits(file=1000)
    killed = await failure(big)
    assert (killed.error_class, killed.outcome_known, killed.dependency) == ("step", False, "")
    many = python("[open('/dev/null') for _ in range(100)]").limits(files=50)
    assert "Too many open files" in (await failure(many)).stderr


# --- nothing runs on


async def test_what_a_step_runs_dies_with_its_agent(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    code = (
        "import asyncio, sys\n"
        "from switchgear.steps.runner import run\n"
        "from switchgear.steps.spec import command\n"
        "asyncio.run(run(command(sys.executable, '-c', *sys.argv[1:])"
        f".workdir({str(tmp_path)!r}), key='it'))"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - at once
        [sys.executable, "-c", code, DAEMON, str(file), "60", "closed"],
        env={**os.environ, "PYTHONPATH": str(RUNTIME), "SWITCHGEAR_ISOLATION": "required"},
    ) as agent:
        await alive(file)
        agent.kill()
    assert await gone(file)


async def test_each_command_of_a_step_ends_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "daemon"
    waits = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    spec = daemon(file, 0).exec(sys.executable, "-c", waits, str(file))
    assert (await run(spec)).exit_code == 0


# --- isolation that is missing


async def test_without_bubblewrap_a_step_is_refused_by_the_packages_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("switchgear.steps.bubblewrap.path", lambda: None)
    error = await failure(command("true"))
    assert error.error_class == "invalid"
    assert "bubblewrap is not installed" in error.why
    assert "install the package bubblewrap" in error.fix


async def test_where_isolation_is_only_preferred_a_step_runs_plain_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("switchgear.steps.bubblewrap.path", lambda: None)
    lines: list[str] = []
    settings = StepSettings(isolation="preferred")
    result = await run(shell("pwd"), settings=settings, on_line=lambda _, line: lines.append(line))
    assert result.isolation == "none"
    assert result.notes[0] == "it ran without isolation: bubblewrap is not installed"
    assert "the network was not cut off" in result.notes
    assert "without isolation: bubblewrap is not installed" in lines[0]


def full(name: str, flags: int) -> int:
    del name, flags
    return os.open("/dev/full", os.O_RDWR)


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


async def test_a_sandbox_that_cannot_be_prepared_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await failure(shell("exit 1"))  # what stays open is open
    monkeypatch.setattr(os, "memfd_create", full)
    before = open_files()
    await failure(shell("true"))
    assert open_files() == before


async def test_a_host_that_makes_no_sandbox_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr("switchgear.steps.bubblewrap.path", lambda: str(broken))
    error = await failure(command("true"))
    assert "No permissions to create new namespace" in error.why
    assert "SWITCHGEAR_ISOLATION=preferred" in error.fix
    plain = await run(command("true"), settings=StepSettings(isolation="preferred"))
    assert plain.isolation == "none"


async def test_without_a_sandbox_what_only_it_can_give_is_refused(tmp_path: Path) -> None:
    plain = StepSettings(isolation="none")
    for spec, feature in (
        (command("true").cache("/cache", "it"), "a cache"),
        (command("true").mount("/elsewhere", tmp_path), "a mount at /elsewhere"),
        (container(f"rootfs:{tmp_path}").exec("true"), "an image"),
    ):
        assert f"needs {feature}, which" in (await failure(spec, settings=plain)).what
    same = command("ls", str(tmp_path)).mount(tmp_path, tmp_path)
    assert (await run(same, settings=plain)).isolation == "none"


# --- the arrangement itself


def test_a_directory_is_shown_whole_where_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    host = str(tmp_path)
    assert shown(host, "/usr", ["/usr/share", "/src"]) == [Show("/usr", host)]


def test_a_directory_that_lacks_a_place_is_shown_by_its_entries(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "doc").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    host = str(tmp_path)
    assert shown(host, "/usr", ["/usr/share/new"]) == [
        Folder("/usr"),
        Show("/usr/file", f"{host}/file"),
        Link("/usr/link", "file"),
        Folder("/usr/share"),
        Show("/usr/share/doc", f"{host}/share/doc"),
    ]


def test_a_path_inside_leads_to_the_host_only_where_the_step_may_write(tmp_path: Path) -> None:
    operations: list[Operation] = [
        Show("/usr", "/usr"),
        Show("/here", str(tmp_path), writable=True),
        Show("/here/in", "/somewhere"),
    ]
    assert host_path(operations, "/here/a/b") == tmp_path / "a" / "b"
    for path in ("/usr/x", "/here/in/x", "/elsewhere", "/heres"):
        with pytest.raises(Outside):
            host_path(operations, path)
