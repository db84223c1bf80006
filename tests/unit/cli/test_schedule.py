"""`switchgear schedule`, against a mesh in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from switchgear import Agent, Context, UsageError, testing
from switchgear.cli import common as shared
from switchgear.cli import schedule
from switchgear.cli.common import Common
from switchgear.testing.mesh import MemoryMesh

TEXT = Common()


def reporter() -> Agent:
    agent = Agent("reporter", version="1.0.0")

    @agent.capability("report")
    async def report(value: str, ctx: Context) -> str:
        del ctx
        return value

    assert report.name == "report"
    return agent


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[MemoryMesh]:
    """The mesh that commands join."""
    there: list[MemoryMesh] = []

    @asynccontextmanager
    async def join(_: Common) -> AsyncGenerator[MemoryMesh]:
        yield there[0]

    monkeypatch.setattr(shared, "joined", join)
    return there


async def put(monkeypatch: pytest.MonkeyPatch, *given: str, **options: str) -> int:
    """What `schedule put` does, on the loop that already runs."""
    asked: list[Any] = []
    monkeypatch.setattr(shared, "run", asked.append)
    schedule.put(*given, common=TEXT, **options)
    return await asked[0]


@pytest.mark.parametrize(("capability", "note"), [("report", False), ("reprot", True)])
async def test_who_schedules_what_nobody_offers_is_told(
    given: list[MemoryMesh],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    capability: str,
    *,
    note: bool,
) -> None:
    """An agent may come later, but a name may also be mistyped."""
    async with testing.mesh(reporter()) as mesh:
        given.append(mesh)
        assert await put(monkeypatch, "daily", capability, "0 6 * * *", '"it"') == 0
        told = capsys.readouterr()
    assert told.out == "daily: put\n"
    assert ("no live instance offers reprot" in told.err) is note


@pytest.mark.parametrize(
    ("terms", "options", "why"),
    [
        (["0 25 * * *", '"it"'], {}, "Bad hour"),
        (["0 6 * *", '"it"'], {}, "five fields"),
        (["0 0 31 2 *", '"it"'], {}, "Bad day-of-month"),
        (["0 6 * * *", '"it"'], {"timezone": "Mars/Olympus"}, "no time zone that is known"),
        (["0 6 * * *", "7"], {}, 'not of type "string"'),
    ],
)
async def test_terms_that_make_no_sense_are_refused_with_the_reason(
    given: list[MemoryMesh],
    monkeypatch: pytest.MonkeyPatch,
    terms: list[str],
    options: dict[str, str],
    why: str,
) -> None:
    """Before anything is stored."""
    async with testing.mesh(reporter()) as mesh:
        given.append(mesh)
        with pytest.raises(UsageError) as refused:
            await put(monkeypatch, "daily", "report", *terms, **options)
        assert why in refused.value.why
        assert await mesh.schedules.list() == []
