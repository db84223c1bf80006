"""What goes into steps and comes out of them: commits, artifacts, caches, secrets, outputs."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import ssl
import subprocess
import tarfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.contract.artifact import Artifact
from switchgear.errors import NotFound, StepFailed, UsageError
from switchgear.steps import fetching, packing
from switchgear.steps.settings import StepSettings
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, command, container
from tests.patience import PATIENCE
from tests.unit.steps.sandboxes import (
    MemoryBlobs,
    failure,
    needs_sandbox,
    python,
    root_filesystem,
    run,
    shell,
)

pytestmark = needs_sandbox


def committed(home: Path) -> str:
    """A repository with two commits; the first one's id."""
    home.mkdir()
    ids: list[str] = []
    for command_ in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["commit", "--quiet", "--message=one"],
        ["rev-parse", "HEAD"],
        ["add", "."],
        ["commit", "--quiet", "--message=two"],
    ):
        if command_[0] == "add":
            (home / "file").write_text(f"{len(ids)}\n")
        made = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", *command_],
            cwd=home,
            check=True,
            capture_output=True,
            encoding="utf-8",
        )
        ids += [made.stdout.strip()] if command_[0] == "rev-parse" else []
    return ids[0]


# --- commits


@pytest.mark.parametrize(("ref", "content"), [("main", "1\n"), ("", "0\n")])
async def test_a_commit_is_mounted_at_its_ref(tmp_path: Path, ref: str, content: str) -> None:
    first = committed(tmp_path / "repository")
    source = git(f"file://{tmp_path / 'repository'}", ref or first)
    spec = shell("cat file; test ! -e /../repository").mount("/src", source).workdir("/src")
    assert (await run(spec)).stdout == content


async def test_a_ref_that_nobody_has_is_told_in_gits_words(tmp_path: Path) -> None:
    committed(tmp_path / "repository")
    source = git(f"file://{tmp_path / 'repository'}", "nowhere")
    error = await failure(shell("true").mount("/src", source))
    assert (error.error_class, error.outcome_known) == ("invalid", True)
    assert "nowhere" in error.why


async def test_a_host_that_does_not_answer_is_told_from_a_bad_ref() -> None:
    source = git("https://127.0.0.1:9/repository", "main")
    error = await failure(shell("true").mount("/src", source))
    assert (error.error_class, error.dependency) == ("transient", "git:127.0.0.1")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of a host by the name 127.0.0.1: the certificate, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    made = [*argv.split(), *names, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    return cert, key


async def test_a_host_that_goes_silent_is_given_up_without_any_limit_of_the_step(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    settings = [
        one.replace(f"Time={fetching.STALL}", "Time=1")
        for one in fetching._SETTINGS  # pyright: ignore[reportPrivateUsage]
    ]
    monkeypatch.setattr(fetching, "_SETTINGS", settings)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(cert))
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(cert, key)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0, ssl=own) as server:
        port = server.sockets[0].getsockname()[1]
        source = git(f"https://127.0.0.1:{port}/repository", "main")
        error = await failure(shell("true").mount("/src", source))
    assert "too slow" in error.why
    assert (error.error_class, error.dependency) == ("transient", "git:127.0.0.1")
    assert error.outcome_known


async def test_ssh_gives_up_a_host_that_takes_no_connection_or_answers_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh, told = tmp_path / "ssh", tmp_path / "told"
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\n'
        "echo 'Timeout, server example.com not responding.' >&2\nexit 255\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    error = await failure(shell("true").mount("/src", git("git@example.com:x", "main")))
    assert (error.error_class, error.dependency) == ("transient", "git:example.com")
    asked = told.read_text()
    assert all(one in asked for one in ("ConnectTimeout=", "ServerAliveInterval="))


async def test_nothing_of_a_repository_is_executed(tmp_path: Path) -> None:
    committed(tmp_path / "repository")
    hook = tmp_path / "repository" / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    source = git(f"file://{tmp_path / 'repository'}", "main")
    await run(shell("true").mount("/src", source))
    assert not (tmp_path / "ran").exists()


# --- artifacts


async def test_an_output_of_one_step_is_mounted_in_the_next() -> None:
    blobs = MemoryBlobs()
    spec = shell("mkdir -p out/deep; echo hi > out/deep/file; ln -s deep/file out/link")
    made = (
        await run(spec.output("tree", "out").output("one", "out/deep/file"), blobs=blobs)
    ).outputs
    assert (made["one"].size, made["one"].directory, made["tree"].directory) == (3, False, True)
    after = shell("cat /in/link /one; touch /in/x").mount("/in", made["tree"], read_only=False)
    assert (await run(after.mount("/one", made["one"]), blobs=blobs)).stdout == "hi\nhi\n"
    assert (await run(after.mount("/one", made["one"]), blobs=blobs)).stdout == "hi\nhi\n"


async def test_the_same_output_has_the_same_digest() -> None:
    spec = shell("mkdir out; echo hi > out/b; echo ho > out/a").output("tree", "out")
    one, two = [(await run(spec, blobs=MemoryBlobs())).outputs["tree"] for _ in range(2)]
    assert one == two


async def test_an_output_that_was_not_written_is_a_failure() -> None:
    error = await failure(shell("true").output("it", "dist"), blobs=MemoryBlobs())
    assert error.error_class == "step"
    assert "left no output it" in error.what


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ln -s /etc/passwd out", "out"),
        ("ln -s /etc out", "out/passwd"),
        ("mkdir d; ln -s ../../../../../etc d/e", "d/e/passwd"),
        ("mkfifo out", "out"),
        ("mkdir out; mkfifo out/pipe", "out"),
        ("true", "/etc/hosts"),
        ("true", "/usr"),
    ],
)
async def test_an_output_never_leads_to_the_host(text: str, path: str) -> None:
    blobs = MemoryBlobs()
    error = await failure(shell(text).output("it", path), blobs=blobs)
    assert (error.error_class, blobs.stored) == ("invalid", {})


async def test_links_in_an_output_are_kept_as_links(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    spec = shell("mkdir out; ln -s /etc/hosts out/link").output("it", "out")
    made = (await run(spec, blobs=blobs)).outputs["it"]
    data = blobs.stored[made.digest]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("link").issym()
    with pytest.raises(packing.Unpackable):  # it leads outside: nobody unpacks it
        packing.unpack(made, data, tmp_path / "made")


async def test_an_artifact_that_is_gone_is_told() -> None:
    lost = Artifact(digest="ab" * 32, size=1)
    with pytest.raises(NotFound):
        await run(shell("true").mount("/in", lost), blobs=MemoryBlobs())


# --- caches


async def test_a_cache_outlives_its_step_and_is_shared_by_name(tmp_path: Path) -> None:
    settings = StepSettings(caches=str(tmp_path))
    await run(shell("echo kept > /cache/file").cache("/cache", "it"), settings=settings)
    same = shell("cat /elsewhere/file").cache("/elsewhere", "it")
    assert (await run(same, settings=settings)).stdout == "kept\n"
    other = shell("ls /cache").cache("/cache", "other")
    assert (await run(other, settings=settings)).stdout == ""


async def test_a_locked_cache_is_used_by_one_step_after_the_other(tmp_path: Path) -> None:
    settings = StepSettings(caches=str(tmp_path))
    spec = shell("mkdir /cache/alone && sleep 0.1 && rmdir /cache/alone")
    spec = spec.cache("/cache", "it", sharing="locked")
    results = await asyncio.gather(*(run(spec, settings=settings) for _ in range(4)))
    assert [result.exit_code for result in results] == [0] * 4


async def test_a_private_cache_that_is_in_use_is_empty_for_the_next(tmp_path: Path) -> None:
    settings = StepSettings(caches=str(tmp_path))
    go_on = tmp_path / "pipe"
    go_on.mkdir()
    first = shell("touch /cache/mine; touch /go/begun; while test ! -e /go/on; do sleep 0.02; done")
    first = first.mount("/go", go_on, read_only=False).cache("/cache", "it", sharing="private")
    running = asyncio.create_task(run(first, settings=settings))
    async with asyncio.timeout(PATIENCE):
        while not (go_on / "begun").exists():
            await asyncio.sleep(0.01)
    again = shell("ls /cache").cache("/cache", "it", sharing="private")
    assert (await run(again, settings=settings)).stdout == ""
    (go_on / "on").touch()
    await running
    assert (await run(again, settings=settings)).stdout == "mine\n"


# --- secrets


def command_lines() -> list[bytes]:
    """Those of all processes of the host."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return found


SECRET = "correct horse battery"


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> StepSpec:
    monkeypatch.setenv("MESH_TEST_TOKEN", SECRET)
    return shell('echo "it is $TOKEN"; echo "$TOKEN" >&2; test ${#TOKEN} = 21')


async def test_a_step_finds_its_secret_and_nobody_else_does(secretive: StepSpec) -> None:
    lines: list[str] = []
    spec = secretive.secret("TOKEN", "env://MESH_TEST_TOKEN")
    result = await run(spec, on_line=lambda _, line: lines.append(line))
    assert (result.stdout, result.stderr) == ("it is ***\n", "***\n")
    assert sorted(lines) == ["***", "it is ***"]
    assert SECRET not in repr(spec) + repr(result)


async def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    spec = python(f"import os; assert os.environ['TOKEN'] == {SECRET!r}")
    assert (await run(spec.secret("TOKEN", f"file://{tmp_path}/token"))).exit_code == 0


async def test_a_secret_that_is_not_there_is_named_by_its_reference() -> None:
    error = await failure(shell("true").secret("TOKEN", "env://NO_SUCH_TOKEN"))
    assert error.error_class == "invalid"
    assert "env://NO_SUCH_TOKEN" in error.why


async def test_an_output_is_kept_as_it_is_and_one_that_holds_a_secret_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Data is no text: what is masked in it would be damaged, and nobody would know."""
    monkeypatch.setenv("MESH_TEST_TOKEN", "open-sesame")
    blobs = MemoryBlobs()
    writes = "printf %s $TOKEN > file; mkdir tree; printf 'x%sx' $TOKEN > tree/in; echo ok > clean"
    spec = shell(writes).secret("TOKEN", "env://MESH_TEST_TOKEN")
    spec = spec.output("file", "file").output("tree", "tree").output("clean", "clean")
    result = await run(spec, blobs=blobs)
    assert blobs.stored[result.outputs["file"].digest] == b"open-sesame"
    assert result.notes == (
        "the output file holds the text of the secret TOKEN",
        "the output tree holds the text of the secret TOKEN",
    )


async def test_a_secret_of_few_characters_is_not_looked_for_in_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may stand there by chance."""
    monkeypatch.setenv("MESH_TEST_TOKEN", "1234")
    spec = shell("echo 1234 > file").secret("PIN", "env://MESH_TEST_TOKEN").output("f", "file")
    assert (await run(spec, blobs=MemoryBlobs())).notes == ()


async def test_no_command_line_of_the_host_shows_a_secret(
    secretive: StepSpec, tmp_path: Path
) -> None:
    text = "touch begun; while test ! -e on; do sleep 0.02; done"
    spec = shell(text).workdir(tmp_path).secret("TOKEN", "env://MESH_TEST_TOKEN")
    running = asyncio.create_task(run(spec))
    async with asyncio.timeout(PATIENCE):
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
    lines = command_lines()
    (tmp_path / "on").touch()
    await running
    assert any(b"touch begun" in line for line in lines)
    assert not any(SECRET.encode() in line for line in lines)


# --- several commands, images


async def test_commands_run_in_order_up_to_the_first_that_fails(tmp_path: Path) -> None:
    spec = shell("echo one > file").exec("sh", "-c", "cat file; exit 3").exec("sh", "-c", "echo no")
    error = await failure(spec)
    assert (error.exit_code, error.stdout) == (3, "one\n")
    result = await run(spec.expect(0, 3))
    assert (result.exit_code, result.stdout) == (0, "one\nno\n")


async def test_the_time_limit_holds_for_all_commands_together() -> None:
    spec = command("sleep", "0.6").exec("sleep", "0.6").exec("sleep", "60")
    error = await failure(spec.limits(timeout=timedelta(seconds=1)))
    assert error.error_class == "timeout"


async def test_the_text_is_for_the_last_command() -> None:
    assert (await run(command("cat").exec("cat").stdin("x"))).stdout == "x"


async def test_a_root_filesystem_is_an_image_that_may_not_be_written(tmp_path: Path) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh", "ls", "touch", "cat")
    (rootfs / "etc").mkdir()
    (rootfs / "etc" / "release").write_text("mine\n")
    (tmp_path / "file").write_text("seen\n")
    settings = StepSettings(image_aliases=(("example/image:1", f"rootfs:{rootfs}"),))
    spec = container("example/image:1").exec(
        "sh", "-c", "cat /etc/release /usr/share/new/file; pwd"
    )
    spec = spec.mount("/usr/share/new", tmp_path)
    assert (await run(spec, settings=settings)).stdout == "mine\nseen\n/work\n"
    for path in ("/etc/x", "/x", "/usr/x"):
        wrote = container("example/image:1").exec("touch", path)
        assert (await failure(wrote, settings=settings)).exit_code == 1
    assert not (rootfs / "x").exists()


@pytest.mark.parametrize("image", ["python:3.12-slim", "oci:/images/python.tar"])
async def test_an_image_for_an_engine_is_refused_before_anything_runs(image: str) -> None:
    error = await failure(container(image).exec("true"))
    assert error.error_class == "invalid"
    assert f"needs the image {image}, which the process executor cannot give" in error.what
    assert "SWITCHGEAR_IMAGE_ALIASES" in error.fix


async def test_a_spec_without_a_command_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no command"):
        await run(container("python:3.12"))


async def test_a_program_that_the_image_lacks_is_told_from_a_command_that_fails(
    tmp_path: Path,
) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh")
    error = await failure(container(f"rootfs:{rootfs}").exec("no-such-program"))
    assert (error.error_class, error.exit_code) == ("invalid", None)
    assert "no-such-program" in error.why


async def test_a_program_that_the_image_lacks_is_named_however_much_was_written_before(
    tmp_path: Path,
) -> None:
    rootfs = root_filesystem(tmp_path / "root", "sh", "seq")
    spec = container(f"rootfs:{rootfs}").exec("sh", "-c", "seq 1000 >&2").exec("no-such-program")
    error = await failure(spec.limits(output=500))
    assert "no-such-program: No such file" in error.why


async def test_a_failure_says_what_ran_it() -> None:
    with pytest.raises(StepFailed) as caught:
        await run(shell("exit 4"))
    assert (caught.value.executor, caught.value.isolation) == ("process", "bubblewrap")
