"""Steps in an engine, through the SDK as it is: what goes in, what comes out, what is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear import ids
from switchgear.contract.artifact import Artifact
from switchgear.errors import Unavailable
from switchgear.resilience.classes import MEMORY, RESOURCES
from switchgear.steps.spec import command, container
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine
from tests.dagger.steps import IMAGE, Bench, alive, shell, until

PINNED = f"registry.example/tools@sha256:{'0' * 64}"


async def test_a_step_tells_exit_code_outputs_and_how_it_was_run(bench: Bench) -> None:
    lines: list[tuple[str, str]] = []
    spec = shell("echo one; echo two >&2; exit 3").expect(0, 3)
    result = await bench.run(spec, lambda stream, line: lines.append((stream, line)))
    assert (result.exit_code, result.stdout, result.stderr) == (3, "one\n", "two\n")
    assert (result.executor, result.isolation, result.cached) == ("dagger", "container", False)
    assert lines == [("stdout", "one"), ("stderr", "two")]
    assert any("network" in note for note in result.notes)
    assert any("pinned" in note for note in result.notes)


async def test_a_pinned_image_with_the_network_leaves_nothing_to_note(bench: Bench) -> None:
    result = await bench.run(shell("true", PINNED).network())
    assert result.notes == ()


async def test_the_first_unexpected_exit_ends_the_step(bench: Bench) -> None:
    spec = container(IMAGE).exec("echo", "a").exec("sh", "-c", "exit 4").exec("echo", "never")
    failed = await bench.failure(spec)
    assert (failed.exit_code, failed.error_class, failed.stdout) == (4, "step", "a\n")
    assert failed.outcome_known


async def test_arguments_are_never_seen_by_a_shell(bench: Bench) -> None:
    odd = "a 'b' \"c\" $HOME `id` \\ \n@LIMIT@ *"
    assert (await bench.run(container(IMAGE).exec("printf", "%s", odd))).stdout == odd


async def test_input_is_for_the_last_command_only(bench: Bench) -> None:
    spec = container(IMAGE).exec("cat").exec("cat").stdin("héllo\n")
    assert (await bench.run(spec)).stdout == "héllo\n"


async def test_outputs_keep_their_last_part_and_say_how_much_is_missing(bench: Bench) -> None:
    spec = shell("i=0; while [ $i -lt 100 ]; do echo €; i=$((i+1)); done").limits(output=10)
    result = await bench.run(spec)
    assert result.stdout.endswith("€\n€\n")
    assert "\ufffd" not in result.stdout
    assert result.truncated == 390


async def test_the_time_limit_holds_inside_and_ends_the_whole_tree(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("sleep 1000 & sleep 1000").limits(timeout=timedelta(milliseconds=200))
    failed = await bench.failure(spec)
    assert (failed.error_class, failed.outcome_known) == ("timeout", False)
    assert not engine.host.running
    assert bench.executor.links.current is not None


async def test_limits_hold_for_each_process_and_the_result_says_so(bench: Bench) -> None:
    spec = shell("ulimit -v; ulimit -t; ulimit -n").limits(
        memory=512 << 20, cpu=timedelta(seconds=7), files=50
    )
    result = await bench.run(spec)
    assert result.stdout.split() == [str(512 << 10), "7", "50"]
    assert (result.limits.memory, result.limits.cpu) == ("address-space", "cpu-time")


async def test_environment_directory_and_mounts_are_as_the_spec_says(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("A", "utf-8")
    (tmp_path / "one").write_text("1", "utf-8")
    spec = (
        shell("pwd; cat /in/a /one; echo $WHO; touch /in/b 2>/dev/null || echo no; touch here")
        .env(WHO="me")
        .workdir("/tmp/work")
        .mount("/in", tmp_path / "in")
        .mount("/one", tmp_path / "one")
    )
    assert (await bench.run(spec)).stdout == "/tmp/work\nA1me\nno\n"
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a"]


async def test_outputs_come_back_as_artifacts(bench: Bench) -> None:
    spec = (
        shell("mkdir out; echo 1 >out/a; echo 2 >two")
        .workdir("/tmp/w")
        .output("dir", "out")
        .output("file", "/tmp/w/two")
    )
    result = await bench.run(spec)
    assert bench.store.blobs[result.outputs["file"].digest] == b"2\n"
    assert result.outputs["dir"].directory
    back = shell("cat /in/a").mount("/in", result.outputs["dir"])
    assert (await bench.run(back)).stdout == "1\n"


async def test_an_output_that_holds_a_secret_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open-sesame\n", "utf-8")
    spec = shell("printf %s $T >f", PINNED).network().workdir("/tmp/w").output("f", "f")
    result = await bench.run(spec.secret("T", f"file://{tmp_path / 'token'}"))
    assert bench.store.blobs[result.outputs["f"].digest] == b"open-sesame"
    assert result.notes == ("the output f holds the text of the secret T",)


async def test_an_output_that_is_missing_is_the_steps_failure(bench: Bench) -> None:
    failed = await bench.failure(shell("true").output("report", "report.xml"))
    assert failed.error_class == "step"
    assert "report.xml" in failed.why


async def test_large_files_leave_by_export_and_not_through_an_answer(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("head -c 5000000 /dev/zero >big").workdir("/tmp/w").output("big", "big")
    result = await bench.run(spec)
    assert result.outputs["big"].size == 5_000_000
    assert any("export" in query for query in engine.queries)


async def test_an_artifact_can_be_mounted(bench: Bench) -> None:
    data = b"content"
    await bench.store.put(data)
    artifact = Artifact(digest=ids.digest(data), size=len(data))
    assert (await bench.run(shell("cat /x").mount("/x", artifact))).stdout == "content"


async def test_a_commit_can_be_mounted(bench: Bench, tmp_path: Path) -> None:
    import subprocess

    from switchgear.steps.sources import git

    repo = tmp_path / "repo"
    made = ("init -q -b main", "add .", "-c user.name=a -c user.email=a@b commit -q -m x")
    repo.mkdir()
    (repo / "f").write_text("from git", "utf-8")
    for one in made:
        subprocess.run(["git", "-C", str(repo), *one.split()], check=True)
    spec = shell("cat /src/f").mount("/src", git(f"file://{repo}", "main"))
    assert (await bench.run(spec)).stdout == "from git"


async def test_a_cache_keeps_what_a_step_left(bench: Bench) -> None:
    spec = shell("ls /c; touch /c/$$.x").cache("/c", "tools")
    assert (await bench.run(spec)).stdout == ""
    assert (await bench.run(spec)).stdout.endswith(".x\n")


async def test_a_service_runs_beside_the_step_and_ends_with_it(
    bench: Bench, engine: Engine
) -> None:
    spec = shell("true").service("db", container(IMAGE).exec("sleep", "1000"))
    await bench.run(spec)
    await until(lambda: not engine.host.running)
    assert not engine.host.services


async def test_step_and_services_have_artifacts_and_secrets_of_their_own(
    bench: Bench, engine: Engine, tmp_path: Path
) -> None:
    data = b"content"
    await bench.store.put(data)
    artifact = Artifact(digest=ids.digest(data), size=len(data))
    (tmp_path / "token").write_text("hidden", "utf-8")
    ref = f"file://{tmp_path / 'token'}"
    service = container(IMAGE).exec("sleep", "1000").mount("/y", artifact).secret("T", ref)
    spec = shell("cat /x").mount("/x", artifact).secret("T", ref)
    result = await bench.run(spec.service("one", service).service("two", service))
    assert result.stdout == "content"
    await until(lambda: not engine.host.running)


async def test_a_store_that_takes_no_output_is_no_fault_of_the_engine(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(data: bytes) -> str:
        raise Unavailable("the broker is away") from TimeoutError()

    monkeypatch.setattr(bench.store, "put", away)
    failed = await bench.failure(shell("echo x >f").workdir("/tmp/w").output("f", "f"))
    assert (failed.error_class, failed.dependency) == ("transient", "nats")
    assert (await bench.run(shell("true"))).exit_code == 0
    assert engine.opened == 1


async def test_a_service_of_a_cancelled_step_is_stopped_too(bench: Bench, engine: Engine) -> None:
    task = bench.begin(shell("sleep 1000").service("db", container(IMAGE).exec("sleep", "1000")))
    await engine.running(2)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: not engine.host.running)


async def test_an_image_may_be_an_archive_or_a_directory(bench: Bench, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"any")
    assert (await bench.run(shell("echo a", f"oci:{archive}"))).stdout == "a\n"
    rootfs = tmp_path / "rootfs"
    (rootfs / "tmp").mkdir(parents=True)
    (rootfs / "hello").write_text("h", "utf-8")
    assert (await bench.run(shell("cat /hello", f"rootfs:{rootfs}"))).stdout == "h"


@pytest.mark.parametrize(
    ("spec", "feature"),
    [
        (command("ls"), "host"),
        (shell("true").limits(file=10), "file sizes"),
        (shell("true").service("db", command("x")), "service db"),
        (shell("true").service("db", shell("x").limits(file=10)), "file sizes"),
        (shell("true", "oci:/nowhere.tar"), "image"),
        (shell("true").service("db", shell("x", "oci:/nowhere.tar")), "image"),
    ],
)
async def test_what_an_engine_cannot_do_is_refused_before_anything_runs(
    bench: Bench, engine: Engine, spec: object, feature: str
) -> None:
    failed = await bench.failure(spec)  # type: ignore[arg-type]  # a spec each
    assert failed.error_class == "invalid"
    assert feature in failed.what
    assert failed.why and failed.fix
    assert engine.opened == 0


async def test_a_step_without_network_is_refused_where_the_agent_insists(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(strict_network=True)
    assert "network" in (await bench.failure(shell("true"))).what
    assert (await bench.run(shell("true").network())).exit_code == 0
    open_step = shell("true").network().service("db", shell("sleep 1000"))
    assert "network" in (await bench.failure(open_step)).what


async def test_an_image_without_a_shell_is_named_as_the_reason(
    bench: Bench, engine: Engine
) -> None:
    engine.host.without_shell = True
    failed = await bench.failure(shell("true"))
    assert failed.error_class == "invalid"
    assert "install the program" in failed.fix


async def test_a_whole_step_depends_on_the_engine_and_on_what_its_session_takes_of_the_host(
    bench: Bench,
) -> None:
    """Its registries and git hosts are needed only while it is made ready, and its memory is the engine's."""
    spec = shell("true").service("db", container("postgres:16").exec("postgres"))
    own = set(RESOURCES) - {MEMORY}
    assert bench.executor.dependencies(spec)[0] == "dagger"
    assert set(bench.executor.dependencies(spec)[1:]) == own


async def test_a_cancelled_step_leaves_no_process(bench: Bench, engine: Engine) -> None:
    task = bench.begin(shell("sleep 1000 & setsid sleep 1000 & wait"))
    await engine.running()
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: not engine.host.running)
    assert (await bench.run(shell("echo on"))).stdout == "on\n"
    assert engine.opened == 1


async def test_no_more_steps_run_at_once_than_allowed(
    make_bench: MakeBench, engine: Engine
) -> None:
    bench = make_bench(concurrency=2)
    tasks = [bench.begin(shell("read x; echo $x").stdin("")) for _ in range(6)]
    most = 0

    async def watch() -> None:
        nonlocal most
        while not all(task.done() for task in tasks):
            most = max(most, len(engine.host.running))
            await asyncio.sleep(0.001)

    await asyncio.gather(watch(), *tasks, return_exceptions=True)
    assert engine.host.started == 6
    assert 0 < most <= 2


async def test_a_released_session_leaves_no_cli_and_another_is_opened_when_needed(
    bench: Bench, engine: Engine
) -> None:
    await bench.run(shell("true"))
    pid = bench.pid
    await bench.executor.close()
    assert not alive(pid)
    await until(lambda: not engine.sessions)
    await bench.run(shell("true"))
    assert engine.opened == 2
