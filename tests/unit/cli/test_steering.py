"""Commands that steer tasks and try dead ones again, against a mesh in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from switchgear import Agent, Conflict, Context, NotFound, Permanent, TaskDead, UsageError, testing
from switchgear.cli import dead_letters, exits, looking, steering
from switchgear.cli.common import Common
from switchgear.contract.approval import Approval
from switchgear.testing.mesh import MemoryMesh
from tests.unit.agent.stage import Text

JSON = Common(json=True)


def worker() -> Agent:
    agent = Agent("worker", version="1.0.0")

    @agent.capability("ask", timeout=None)
    async def ask(value: Text, ctx: Context) -> Text:
        names = value.text.split()
        said = [await ctx.wait_for_signal(name, Approval, question="go?") for name in names[:1]]
        if len(names) > 1:
            said += await ctx.gather(*(ctx.wait_for_signal(name, Approval) for name in names[1:]))
        if not said[0].approved:
            raise Permanent(said[0].note)
        return Text(said[0].note)

    @agent.capability("stream")
    async def stream(value: Text, ctx: Context) -> Text:
        for word in value.text.split():
            ctx.emit(word)
            await asyncio.sleep(1)
        return value

    return agent


@pytest.fixture
def given() -> list[MemoryMesh]:
    """The mesh that commands join."""
    return []


@pytest.fixture(autouse=True)
def joined(given: list[MemoryMesh], monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def join(_: Common) -> AsyncGenerator[MemoryMesh]:
        yield given[0]

    for module in (steering, dead_letters, looking):
        monkeypatch.setattr(module, "joined", join)


class Said:
    """What a command wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self) -> Any:
        """Its one document."""
        return json.loads(self._capsys.readouterr().out)

    def lines(self) -> list[Any]:
        """Its documents, one a line."""
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    def text(self) -> str:
        """Its output for people."""
        return self._capsys.readouterr().out


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


async def asking(mesh: MemoryMesh, names: str = "review") -> str:
    """A task that is suspended, waiting for an answer."""
    handle = await mesh.submit("ask", Text(names))
    await asyncio.sleep(60)
    return handle.id


async def test_cancel_says_what_became_of_it(given: list[MemoryMesh], said: Said) -> None:
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        task = await asking(mesh)
        assert await steering.cancel(task, "enough", JSON) == exits.OK
        assert said.json() | {"version": 1} == {
            "schema": "switchgear/cancel", "version": 1, "task": task, "requested": True,
            "state": "cancelling",
        }  # fmt: skip
        await asyncio.sleep(60)
        assert await steering.cancel(task, "enough", Common()) == exits.OK
        assert said.text() == f"{task} had ended as cancelled\n"
        done = await mesh.submit("stream", Text(""))
        await done.result()
        with pytest.raises(Conflict, match="ended as completed"):
            await steering.cancel(done.id, "", JSON)


async def test_approve_answers_the_one_wait_that_asks(given: list[MemoryMesh], said: Said) -> None:
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        task = await asking(mesh)
        assert await steering.questions(None, JSON) == exits.OK
        [question] = said.json()["questions"]
        assert (question["task"], question["signal"], question["question"]) == (
            task, "review", "go?",
        )  # fmt: skip
        code = await steering.answer(task, None, JSON, approved=True, note="fine")
        assert (code, said.json()["signal"]) == (exits.OK, "review")
        assert await (await mesh.get(task)).result(Text) == Text("fine")
        assert await steering.questions("ask", Common()) == exits.OK
        assert "nothing waits" in said.text()


async def test_deny_says_no(given: list[MemoryMesh], said: Said) -> None:
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        task = await asking(mesh)
        await steering.answer(task, None, Common(), approved=False, note="not today")
        assert said.text() == f"review of {task} is denied\n"
        with pytest.raises(TaskDead, match="not today"):
            await (await mesh.get(task)).result()


async def test_answers_need_a_name_where_it_is_not_clear(given: list[MemoryMesh]) -> None:
    """Several waits, none yet, or a task that is not one's own."""
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        task = await asking(mesh, "a b c")
        await steering.answer(task, None, JSON, approved=True, note="")
        await asyncio.sleep(60)
        with pytest.raises(UsageError) as several:
            await steering.answer(task, None, JSON, approved=True, note="")
        assert several.value.fix == "--signal b or c"
        early = await mesh.submit("ask", Text("review"))
        with pytest.raises(Conflict, match="does not wait for an answer"):
            await steering.answer(early.id, None, JSON, approved=True, note="")
        await steering.answer(early.id, "review", JSON, approved=True, note="early")
        assert await early.result(Text) == Text("early")
        with pytest.raises(NotFound) as foreign:
            await steering.answer("another", None, JSON, approved=True, note="")
        assert "--signal" in foreign.value.fix


async def test_signal_and_retry_tell_what_they_did(given: list[MemoryMesh], said: Said) -> None:
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        task = await asking(mesh)
        await steering.signal(task, "review", {"approved": True, "note": "x"}, JSON)
        document = said.json()
        assert (document["task"], document["signal"]) == (task, "review")
        assert document["sequence"] > 0
        later = await mesh.submit("stream", Text("a"), start=timedelta(days=1))
        await asyncio.sleep(1)
        await steering.retry(later.id, Common())
        assert said.text().startswith(f"{later.id} is held")
        await later.result()


async def test_watch_shows_chunks_between_the_events(given: list[MemoryMesh], said: Said) -> None:
    async with testing.mesh(worker()) as mesh:
        given.append(mesh)
        handle = await mesh.submit("stream", Text("to be or"))
        assert await looking.watch(handle.id, JSON) == exits.OK
        seen = said.lines()
        kinds = [one["schema"] for one in seen]
        assert kinds[0] == kinds[-1] == "switchgear/task-event"
        chunks = [one for one in seen if one["schema"] == "switchgear/task-chunk"]
        assert [one["value"] for one in chunks] == ["to", "be", "or"]
        assert seen[-1]["event"] == "completed"
        assert await looking.watch(handle.id, Common()) == exits.OK
        assert "submitted" in said.text()


def failing() -> tuple[Agent, list[str]]:
    """An agent, and what it refuses."""
    agent, refused = Agent("mill", version="1.0.0"), ["bad"]

    @agent.capability("grind")
    async def grind(value: Text, ctx: Context) -> Text:
        if value.text in refused:
            raise Permanent(f"no {value.text}")
        return value

    return agent, refused


def wanted(*ids: str, **fields: Any) -> dead_letters.Wanted:
    values: dict[str, Any] = {
        "input": ..., "fingerprint": None, "capability": None, "limit": 100, "dry_run": False,
    }  # fmt: skip
    return dead_letters.Wanted(ids=ids, **(values | fields))


async def test_a_dead_task_is_found_shown_and_tried_again(
    given: list[MemoryMesh], said: Said
) -> None:
    agent, refused = failing()
    async with testing.mesh(agent) as mesh:
        given.append(mesh)
        handle = await mesh.submit("grind", Text("bad"))
        with pytest.raises(TaskDead):
            await handle.result()
        assert await dead_letters.groups(None, JSON) == exits.OK
        [group] = said.json()["groups"]
        assert (group["count"], group["newest"]) == (1, handle.id)
        await dead_letters.redrive(wanted(fingerprint=group["fingerprint"], dry_run=True), JSON)
        planned = said.json()
        assert planned["dry_run"]
        assert [one["state"] for one in planned["redrives"]] == ["none"]
        refused.clear()
        await dead_letters.redrive(wanted(handle.id, input={"text": "good"}), JSON)
        [told] = said.json()["redrives"]
        assert (told["started"], told["changed"]) == (True, True)
        await (await mesh.get(told["task"])).result()
        assert await dead_letters.show(handle.id, JSON) == exits.OK
        letter = said.json()
        assert (letter["error"]["code"], letter["input"]) == ("SG1501", {"text": "bad"})
        [again] = letter["redrives"]
        assert (again["task"], again["state"], again["by"], again["input"]) == (
            told["task"], "completed", mesh.principal, {"text": "good"},
        )  # fmt: skip
        await dead_letters.show(handle.id, Common())
        assert '{"text": "good"}' in said.text()


@pytest.mark.parametrize(
    "bad",
    [
        wanted(),
        wanted("a", fingerprint="f"),
        wanted("a", "b", input=1),
        wanted(capability="c", input=1),
        wanted(capability="c", limit=0),
    ],
)
async def test_a_redrive_that_is_not_clear_is_a_usage_error(bad: dead_letters.Wanted) -> None:
    with pytest.raises(UsageError):
        await dead_letters.redrive(bad, JSON)
