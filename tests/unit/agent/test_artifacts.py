"""Files of handlers, steps and clients: stored once, named by value, verified when read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchgear import (
    Agent,
    Artifact,
    Context,
    ProtocolError,
    StepFailed,
    UsageError,
    command,
)
from switchgear.lifecycle import blob_names
from switchgear.tasks import payload
from tests.unit.agent.stage import Gate, Text, stage, until
from tests.unit.agent.test_recording import checkpoints
from tests.unit.steps.sandboxes import needs_sandbox


@dataclass
class Files:
    """Artifacts in a task's input and output."""

    files: list[Artifact]


@dataclass
class Large:
    """More than an entry carries."""

    filling: str
    file: Artifact


async def test_saved_bytes_are_read_by_another_task() -> None:
    agent = Agent("files", version="1.0.0")

    @agent.capability("write")
    async def write(value: Text, ctx: Context) -> Artifact:
        return await ctx.save("text", value.text.encode(), name="a.txt", media_type="text/plain")

    @agent.capability("read")
    async def read(value: Files, ctx: Context) -> Text:
        return Text((await ctx.load(value.files[0])).decode())

    async with stage() as on:
        await on.join(agent)
        made = await on.mesh.call(write, Text("hi"))
        assert (made.name, made.media_type, made.size) == ("a.txt", "text/plain", 2)
        assert await on.mesh.call(read, Files([made])) == Text("hi")


async def test_what_was_saved_before_a_crash_is_not_saved_again(tmp_path: Path) -> None:
    agent = Agent("files", version="1.0.0")
    gate, seen = Gate(), list[Artifact]()
    (tmp_path / "file").write_text("first")

    @agent.capability("work", timeout=None)
    async def work(value: Text, ctx: Context) -> Artifact:
        seen.append(await ctx.save("file", tmp_path / "file"))
        (tmp_path / "file").write_text("second")
        await gate()
        return seen[-1]

    async with stage() as on:
        first = await on.join(agent)
        handle = await on.mesh.submit(work, Text(""))
        await until(lambda: gate.inside == 1)
        await on.join(agent)
        await on.site.crash(first)
        await on.reach(handle.id, "taken-over")
        gate.open()
        made = await handle.result()
        [recorded] = checkpoints(on, handle.id)
        back = await on.mesh.download(made, tmp_path / "back")
    assert (recorded.kind, recorded.key) == ("save", "file")
    assert seen == [made, made]
    assert back.read_text() == "first"


@needs_sandbox
async def test_a_directory_is_handed_to_a_step_and_its_output_comes_back(tmp_path: Path) -> None:
    agent = Agent("files", version="1.0.0")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "name").write_text("world")

    @agent.capability("greet")
    async def greet(value: Files, ctx: Context) -> Files:
        code = "text = open('/in/name').read(); open('out', 'w').write(f'hello {text}')"
        spec = command(sys.executable, "-c", code).mount("/in", value.files[0])
        return Files([(await ctx.run("greet", spec.output("it", "out"))).outputs["it"]])

    async with stage() as on:
        await on.join(agent)
        given = await on.mesh.upload(tmp_path / "in")
        handle = await on.mesh.submit(greet, Files([given]))
        answer = await handle.result()
        back = await on.mesh.download(answer.files[0], tmp_path / "out")
        [recorded] = checkpoints(on, handle.id)
    assert back.read_text() == "hello world"
    assert (recorded.executor, recorded.isolation) == ("process", "bubblewrap")


async def test_a_failed_command_says_what_ran_it() -> None:
    agent = Agent("files", version="1.0.0")

    @agent.capability("work")
    async def work(value: Text, ctx: Context) -> Text:
        with pytest.raises(StepFailed):
            await ctx.run("bad", command("false"))
        return value

    async with stage() as on:
        await on.join(agent)
        handle = await on.mesh.submit(work, Text(""))
        await handle.result()
        [recorded] = checkpoints(on, handle.id)
    assert recorded.executor == "process"
    assert recorded.isolation in {"bubblewrap", "none"}


async def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    async with stage() as on:
        made = await on.mesh.upload(tmp_path / "file")
        on.site.broker.blobs[made.digest] = b"other"
        with pytest.raises(ProtocolError, match="SG1109"):
            await on.mesh.download(made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


async def test_what_cannot_be_uploaded_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    async with stage() as on:
        made = await on.mesh.upload(tmp_path / "file")
        with pytest.raises(UsageError, match="cannot be uploaded"):
            await on.mesh.upload(tmp_path / "nowhere")
        with pytest.raises(UsageError, match="cannot be written"):
            await on.mesh.download(made, tmp_path / "file")


async def test_the_artifacts_of_a_large_output_are_named_beside_it() -> None:
    """The output is a blob itself: nobody who reads entries sees into it."""
    agent = Agent("files", version="1.0.0")

    @agent.capability("work")
    async def work(value: Text, ctx: Context) -> Large:
        return Large("x" * 300_000, await ctx.save("file", b"data"))

    async with stage() as on:
        await on.join(agent)
        handle = await on.mesh.submit(work, Text(""))
        made = (await handle.result()).file
        completed = on.history(handle.id).valid[-1]
    assert completed.subject.event == "completed"
    assert made.digest in set(blob_names.named(completed.stored.data))


async def test_a_payload_that_names_too_many_artifacts_is_refused() -> None:
    async with stage() as on:
        files = [Artifact(digest=f"{number:064x}", size=1) for number in range(2001)]
        data = payload.encode_value(["x" * 300_000, files], "it")
        with pytest.raises(UsageError, match="2001 artifacts"):
            await payload.store(on.bus.blobs, data)
