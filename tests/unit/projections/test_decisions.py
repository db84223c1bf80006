"""Decisions of rollouts as the read model counts them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from switchgear.contract import entries
from switchgear.contract.rollout import Comparison, Decision, Difference
from switchgear.contract.stored import Stored
from switchgear.contract.values import Status
from switchgear.lifecycle.history import History
from switchgear.projections import decisions

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HISTORY = History("sg.task.lint.ann.t1.>")


def row(decision: Decision | None, *, ok: bool = True, at: int = 1) -> tuple[Any, ...]:
    """A row as `FIND` gives it."""
    entry = entries.Checkpoint(
        v=1,
        id="e",
        task="t1",
        time=NOW,
        writer="w",
        status=Status(state="held", submitted_at=NOW),
        hold=1,
        key="ruff",
        kind="run",
        ok=ok,
        result=msgspec.Raw(b"null"),
        decision=decision,
    )
    stored = Stored("sg.task.lint.ann.t1.checkpoint", at, at * 10**9, b"", b"")
    [made] = list(decisions.row(stored, 1, HISTORY, entry))
    _, _, capability, rule, time_ns, *rest = made
    assert (capability, rule) == ("lint", "*")
    return (time_ns, *rest, f"t{at}")


def decided(**fields: Any) -> Decision:
    plain: dict[str, Any] = {"mode": "shadow", "rule": "*", "executor": "process", "why": ""}
    return Decision(**(plain | fields))


def test_entries_without_a_decision_have_no_row() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        row(None)


def test_nothing_counted_is_nothing() -> None:
    found = decisions.counted([])
    assert (found.decisions, found.ratio, found.first, found.last) == (0, None, None, None)


def test_what_was_compared_differed_failed_and_fell_back_is_counted() -> None:
    same = Comparison(executor="dagger", served=SECOND, shadow=2 * SECOND)
    cached = Comparison(executor="dagger")
    other = Comparison(
        executor="process",
        served=3 * SECOND,
        shadow=SECOND,
        differences=(
            Difference(what="stdout", served="a", shadow="b"),
            Difference(what="outputs", served="a", shadow="b"),
        ),
    )
    found = decisions.counted(
        [
            row(decided(comparison=same), at=9),
            row(decided(comparison=cached), at=8, ok=False),
            row(decided(executor="dagger", comparison=other), at=7),
            row(decided(comparison=Comparison(executor="dagger", skipped="down")), at=6),
            row(decided(mode="fallback", fell_back="SG1503: x"), at=5),
        ]
    )
    assert (found.decisions, found.compared, found.same) == (5, 3, 2)
    assert (found.served, found.failed) == ({"process": 4, "dagger": 1}, {"process": 1})
    assert found.differences == {"stdout": 1, "outputs": 1}
    assert found.skipped == {"down": 1}
    assert found.fell_back == 1
    assert found.ratio == 2.5
    assert found.examples == ("t7",)
    assert found.first is not None
    assert found.last is not None
    assert found.first < found.last
