"""`switchgear rollout`, against a mesh in memory; and how its answers are drawn."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchgear import Agent, Context, RolloutRefused, testing
from switchgear.cli import common as shared
from switchgear.cli import rollout
from switchgear.cli.common import Common
from switchgear.cli.output import plain
from switchgear.cli.render import rollouts as drawn
from switchgear.client.rollouts import Report
from switchgear.contract.rollout import (
    Comparison,
    Decision,
    Difference,
    Rollout,
    RolloutCounts,
    RolloutRule,
)
from switchgear.resilience.rollout import readiness
from switchgear.testing.mesh import MemoryMesh

JSON, TEXT = Common(json=True), Common()
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[MemoryMesh]:
    """The mesh that commands join."""
    there: list[MemoryMesh] = []

    @asynccontextmanager
    async def join(_: Common) -> AsyncGenerator[MemoryMesh]:
        yield there[0]

    monkeypatch.setattr(shared, "joined", join)
    return there


async def ran(work: Any, monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> int:
    """What a command does, on the loop that already runs."""
    asked: list[Any] = []
    monkeypatch.setattr(shared, "run", asked.append)
    work(*given, **options)
    result = await asked[0]
    assert isinstance(result, int)
    return result


async def test_a_rule_is_set_shown_and_taken_back(
    given: list[MemoryMesh], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with testing.mesh() as mesh:
        given.append(mesh)
        await ran(rollout.set_, monkeypatch, "lint", "shadow", percent=20, common=JSON)
        await ran(
            rollout.set_,
            monkeypatch,
            "lint",
            "percent",
            step="r*",
            percent=5,
            why="try",
            common=JSON,
        )
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["schema"] for one in found] == ["switchgear/rollout"] * 2
        assert found[1]["rollout"]["rules"]["r*"]["percent"] == 5
        await ran(rollout.status, monkeypatch, common=TEXT)
        shown = capsys.readouterr().out
        assert "shadow 20 %, process serves" in shown
        assert "5 % on dagger" in shown
        await ran(rollout.back, monkeypatch, "lint", step="r*", common=TEXT)
        assert "lint r*: no rule, agents decide by themselves" in capsys.readouterr().out
        await ran(rollout.set_, monkeypatch, "lint", "fallback", common=TEXT)
        told = capsys.readouterr()
        assert "lint *: fallback, from the next step on" in told.out
        assert "no live instance offers lint" in told.err, "a name may be mistyped"
        await ran(rollout.rm, monkeypatch, "lint", common=JSON)
        await ran(rollout.status, monkeypatch, "other", common=TEXT)
        assert "no rollouts" in capsys.readouterr().out


async def test_a_capability_that_is_offered_is_no_typing_mistake(
    given: list[MemoryMesh], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent("linter", version="1.0.0")

    @agent.capability("lint")
    async def lint(value: str, ctx: Context) -> str:
        del ctx
        return value

    assert lint.name == "lint"
    async with testing.mesh(agent) as mesh:
        given.append(mesh)
        await ran(rollout.set_, monkeypatch, "lint", "dagger", common=TEXT)
        assert capsys.readouterr().err == ""


async def test_what_makes_no_sense_is_refused(
    given: list[MemoryMesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with testing.mesh() as mesh:
        given.append(mesh)
        with pytest.raises(RolloutRefused, match="needs a percentage"):
            await ran(rollout.set_, monkeypatch, "lint", "percent", common=JSON)
        with pytest.raises(RolloutRefused, match="no rule for"):
            await ran(rollout.back, monkeypatch, "lint", common=JSON)
        with pytest.raises(RolloutRefused, match="not at its end"):
            await ran(rollout.set_, monkeypatch, "lint", "dagger", step="a*b", common=JSON)


def report(**counts: Any) -> Report:
    rule = RolloutRule(mode="shadow", since=NOW, by="ada")
    found = RolloutCounts(lag=counts.pop("lag", 0), **counts)
    return Report("lint", "*", rule, found, *readiness(rule, found))


def test_a_report_says_what_stands_against_a_switch() -> None:
    text = plain(
        drawn.reports(
            [
                report(
                    decisions=61,
                    served={"process": 61},
                    failed={"process": 2},
                    compared=58,
                    same=57,
                    differences={"exit-code": 1},
                    skipped={"the breaker of dagger was open": 3},
                    ratio=1.2,
                    examples=("t1",),
                    lag=3,
                ),
                report(compared=60, same=60, ratio=1.1),
            ]
        )
    )
    assert "lint *: not ready" in text
    assert "1 of 58 runs differed: exit-code 1" in text
    assert "dagger takes 1.20 times as long" in text
    assert "the newest 3 ledger entries are not counted yet" in text
    assert "lint *: ready" in text
    assert "no rollouts" in plain(drawn.reports([]))


async def test_the_report_command_prints_each_rule_with_its_counts(
    given: list[MemoryMesh], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with testing.mesh() as mesh:
        given.append(mesh)

        async def asked(verb: str, query: Any, answer: Any) -> Any:
            if verb == "rollout-counts":
                assert query.pattern == "*"
                return RolloutCounts(lag=0, compared=60, same=60, ratio=1.0)
            rule = RolloutRule(mode="shadow", since=NOW)
            return answer(rollouts=(Rollout(capability="lint", rules={"*": rule}),))

        monkeypatch.setattr(mesh, "ask", asked)
        await ran(rollout.report, monkeypatch, runs=10, common=JSON)
        document = json.loads(capsys.readouterr().out)
        assert document["reports"][0]["ready"] is True
        await ran(rollout.report, monkeypatch, runs=100, common=TEXT)
        assert "60 of 100 runs were compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        ({"why": "all"}, "[shadow: ran on process; all]"),
        ({"fell_back": "SG1503: x"}, "after dagger failed: SG1503: x"),
        ({"comparison": Comparison(executor="dagger")}, "the same on dagger"),
        (
            {"comparison": Comparison(executor="dagger", skipped="slow")},
            "not compared with dagger: slow",
        ),
        (
            {
                "comparison": Comparison(
                    executor="dagger",
                    differences=(Difference(what="stdout", served="a", shadow="b"),),
                )
            },
            "dagger differs in stdout",
        ),
    ],
)
def test_a_decision_is_told_in_the_history(decision: dict[str, Any], told: str) -> None:
    import msgspec

    from switchgear.contract import entries, values
    from switchgear.tasks import events

    fields: dict[str, Any] = {"mode": "shadow", "rule": "*", "executor": "process", "why": ""}
    entry = entries.Checkpoint(
        v=1,
        id="e",
        task="t",
        time=NOW,
        writer="w",
        status=values.Status(state="held", submitted_at=NOW),
        hold=1,
        key="lint",
        kind="run",
        ok=True,
        result=msgspec.Raw(b"null"),
        duration=timedelta(seconds=1),
        decision=Decision(**(fields | decision)),
    )
    text = events.of_checkpoint(entry)
    assert text.startswith("run lint in 1.000 s [shadow: ran on process; ")
    assert told in text
