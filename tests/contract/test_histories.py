"""Our own fold passes the histories that every other reader is tested with."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from switchgear.contract.stored import Stored
from switchgear.lifecycle.history import History
from switchgear.lifecycle.table import LEGAL, LEGAL_CANCELLING
from tests.node.program import ROOT

PUBLISHED: dict[str, Any] = json.loads((ROOT / "schemas/histories.json").read_text("utf-8"))
CASES: dict[str, Any] = {case["name"]: case for case in PUBLISHED["cases"]}


def stored(entry: dict[str, Any]) -> Stored:
    at = datetime.fromisoformat(entry["time"])
    return Stored(
        entry["subject"],
        entry["sequence"],
        int(at.timestamp() * 1e9),
        entry["headers"].encode(),
        entry["data"].encode(),
    )


@pytest.mark.parametrize("name", CASES)
def test_the_fold_agrees_with_the_published_history(name: str) -> None:
    case = CASES[name]
    history = History(PUBLISHED["scope"])
    counted = [not history.add(stored(entry)) for entry in case["entries"]]
    assert counted == [entry["counts"] for entry in case["entries"]]
    told = {
        "state": history.state,
        "last": history.last,
        "live_dispatch": history.live_dispatch,
        "remnant": history.remnant,
        "hold": history.hold,
        "holder": history.holder,
    }
    assert {key: told[key] for key in case["then"]} == case["then"]


def test_names_of_cases_are_unique() -> None:
    assert len(CASES) == len(PUBLISHED["cases"])


def test_every_position_of_the_table_is_visited() -> None:
    visited: set[str] = set()
    for case in CASES.values():
        history = History(PUBLISHED["scope"])
        for entry in case["entries"]:
            history.add(stored(entry))
            visited.add(history.position)
    assert visited == set(LEGAL) == set(LEGAL_CANCELLING)
