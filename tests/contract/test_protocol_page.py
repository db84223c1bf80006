"""The page for implementers and the code say the same: states, verbs, limits, files, anchors."""

from __future__ import annotations

import json
import re

import pytest

from switchgear.contract import limits, subjects
from switchgear.contract.entries import ENTRIES
from switchgear.contract.export import catalog
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE
from switchgear.lifecycle.admission import MAX_SUBMISSION
from switchgear.lifecycle.table import LEGAL, LEGAL_CANCELLING, Position
from tests.node.program import ROOT

PAGE = (ROOT / "docs/reference/protocol.md").read_text(encoding="utf-8")
ROLES = ("client", "coordinator", "holder", "next holder")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a line that starts with this text."""
    lines = PAGE[PAGE.index(f"\n| {heading} |") :].splitlines()[3:]
    found: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def legal(cells: list[str]) -> frozenset[tuple[str, str]]:
    """The transitions that a row of a state table allows."""
    by_role = zip(ROLES, cells[-len(ROLES) :], strict=True)
    return frozenset(
        (event.strip(), role)
        for role, cell in by_role
        for event in cell.split(",")
        if event.strip()
    )


@pytest.mark.parametrize("position", LEGAL)
def test_the_state_table_is_the_one_in_force(position: Position) -> None:
    told = {cells[0]: legal(cells) for cells in rows("position")}
    assert told[position] == LEGAL[position]
    assert set(told) == set(LEGAL)


@pytest.mark.parametrize("position", [one for one in LEGAL_CANCELLING if one != "none"])
def test_the_state_table_while_cancelling_is_the_one_in_force(position: Position) -> None:
    told = {cells[0]: legal(cells) for cells in rows("position while cancelling")}
    assert told[position] == LEGAL_CANCELLING[position]


def test_every_event_is_explained() -> None:
    told = {cells[0].strip("`").split(".")[0] for cells in rows("event | by")}
    assert told == set(ENTRIES)
    ends = {cells[0].strip("`") for cells in rows("event | by") if "Ends the task" in cells[3]}
    assert ends == set(subjects.TERMINAL)


def test_every_verb_is_listed_with_query_and_answer() -> None:
    told = {
        cells[0].strip("`"): (cells[1].strip("`"), re.findall("`([a-z-]+)`", cells[2])[0])
        for cells in rows("verb")
    }
    assert told == {verb.name: (verb.query.name, verb.answer.name) for verb in catalog.VERBS}


def test_names_and_limits_are_those_of_the_code() -> None:
    lane = subjects.lane_consumer("<capability>", "<pool>", "<priority>")
    lane_filter = subjects.lane_filter("<capability>", "<pool>", "<priority>")
    for text in (lane, lane_filter, f"\n{EXPECTED}: ", f"\n{EXPECTED_SCOPE}: "):
        assert text in PAGE
    kib = limits.KIB
    assert f"| body of an entry, announcement | {limits.MAX_ENTRY // kib} KiB |" in PAGE
    assert f"| body of `submitted` | {MAX_SUBMISSION // kib} KiB" in PAGE
    assert f"payload | {limits.MAX_INLINE // kib} KiB |" in PAGE
    assert f"| {limits.MAX_QUERY // kib} KiB; {limits.MAX_PROGRESS // kib} KiB |" in PAGE
    assert f"| {limits.MAX_TEXT:,} characters |" in PAGE
    assert f"`ack_wait` {limits.LANE_ACK_WAIT.seconds} s" in PAGE
    assert f"| depth of calls | {limits.MAX_DEPTH} |" in PAGE


def test_links_and_named_files_exist() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / "docs/reference" / target).exists(), target
    published: dict[str, list[str]] = json.loads((ROOT / "schemas/index.json").read_text("utf-8"))
    for name in ("histories", "asyncapi", "errors", "limits", "index"):
        assert f"`{name}.json`" in PAGE
        assert f"{name}.json" in published["files"]


def test_the_rules_are_numbered_without_a_gap() -> None:
    rules = PAGE[PAGE.index("\n## The rules") : PAGE.index("\n## Limits")]
    numbers = [int(one) for one in re.findall(r"^(\d+)\. \*\*", rules, flags=re.MULTILINE)]
    assert numbers == list(range(1, 24))
