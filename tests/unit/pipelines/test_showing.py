"""`pipeline show` draws the graph, `pipeline check` tells what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given

from switchgear.cli import shell
from switchgear.pipelines import drawing, files, graph
from switchgear.pipelines.checking import needs_of
from switchgear.pipelines.model import Pipeline
from tests.unit.pipelines.graphs import pipelines

TEXT = """\
name = "ci"
description = "Lint and test."
[parameters.versions]
type = "list"
default = ["3.12"]
description = "Of Python"
[steps.checkout]
run = ["git"]
outputs.tree = "tree"
[steps.lint]
needs = ["checkout"]
run = ["ruff"]
allow_failure = true
[steps.test]
needs = ["checkout"]
run = ["pytest"]
matrix = { python = ["3.11", "3.12"], os = ["linux", "mac"] }
exclude = [{ os = "mac", python = "3.11" }]
mounts."/src" = { artifact = "checkout.tree" }
retry = 2
[steps.scan]
run = ["scan"]
[steps.report]
needs = ["lint", "test", "scan", "checkout"]
if = "always()"
run = ["report"]
[outputs]
said = "${{ steps.report.stdout }}"
"""
NOTHING = 'add run = ["program", "argument"], or script = "…"'
DRAWN = """\
ci · Lint and test.

parameters
  versions  list of strings  default ['3.12']  Of Python

steps
  ○  checkout · makes tree
  ├─┬─╮
  ○ │ │  lint · may fail
  │ ○ │  test · @3 python=3.11|3.12 os=linux|mac · up to 2 tries · takes checkout.tree
  │ │ │ ○  scan
  ├─┴─┴─╯
  ○  report · if always()

result
  said = ${{ steps.report.stdout }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ci.toml"
    path.write_text(TEXT, "utf-8")
    return path


def test_a_pipeline_is_drawn_as_a_graph(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["pipeline", "show", str(file)]) == 0
    assert capsys.readouterr().out == DRAWN.replace("@", "\N{MULTIPLICATION SIGN}")


def test_a_document_holds_the_schema_of_the_input(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run(["pipeline", "show", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"][0]["name"] == "checkout"
    assert "CiParameters" in told["input_schema"]["$defs"]


def test_check_tells_every_fault_of_every_file_and_fails(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = file.with_name("bad.yaml")
    bad.write_text("steps:\n  a: {rum: [x]}\n", "utf-8")
    assert shell.run(["pipeline", "check", str(file), str(bad)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{bad}:2:3: SG1531: the step a does nothing. Fix: {NOTHING}",
        f"{bad}:2:7: SG1531: a step has no 'rum'. Fix: did you mean run?",
        f"{file}: ci is fine",
    ]
    assert shell.run(["pipeline", "check", str(file.parent), "--json"]) == 2
    assert [one["code"] for one in json.loads(capsys.readouterr().out)["faults"]] == ["SG1531"] * 2


def test_a_file_that_is_not_there_keeps_no_other_from_being_checked(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = file.with_name("no.toml")
    assert shell.run(["pipeline", "check", str(missing), str(file)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{missing}:1:1: SG1530: there is no file {missing}",
        f"{file}: ci is fine",
    ]


def test_check_of_good_files_succeeds(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["pipeline", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ci is fine\n"


def test_show_of_a_file_with_faults_tells_them(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[steps.a]\n", "utf-8")
    assert shell.run(["pipeline", "show", str(file)]) == 2
    assert f"{file}:1:8: SG1531: the step a does nothing" in capsys.readouterr().err
    assert shell.run(["pipeline", "show", str(file.with_name("no.toml"))]) == 3


@given(pipeline=pipelines())
def test_any_graph_is_drawn_with_one_line_for_each_step_in_order(pipeline: Pipeline) -> None:
    lines = drawing.steps(pipeline)
    marked = [line for line in lines if "○" in line]
    order = graph.order(needs_of(pipeline))
    assert [re.split(r"○[ │]*", line)[1].split(" ")[0] for line in marked] == order
    for line in lines:
        assert set(line.partition("  s")[0]) <= set("○│├┬┴╮╯─ ")


def test_cycles_are_found_and_ordered_graphs_have_none() -> None:
    assert graph.cycle({"a": ["b"], "b": ["a"], "c": ["a"]}) == ["a", "b", "a"]
    assert graph.cycle({"a": ["a"]}) == ["a", "a"]
    assert graph.cycle({"a": ["nobody"], "b": ["a"]}) == []
    assert graph.above({"a": [], "b": ["a"], "c": ["b"]}, "c") == {"a", "b"}


def test_the_templates_are_fine() -> None:
    home = Path(__file__).parents[3] / "agents" / "switchgear_agents" / "pipelines"
    assert [one.name for one in files.load_directory(home)] == [
        "ci", "load-table", "prune-files", "verify-backups",
    ]  # fmt: skip
