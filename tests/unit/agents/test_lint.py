"""ruff on a tree."""

from __future__ import annotations

import pytest

from switchgear_agents.lint import python_lint
from switchgear_agents.lint.ruff import lint
from switchgear_agents.refusals import Refused
from switchgear_agents.repository import LintFinding, LintRequest
from tests.unit.agents.handling import context
from tests.unit.agents.repositories import Repository

UNUSED = "import os\n"
TABS = "if True:\n\tx = 1\n"


def test_a_tree_without_rules_is_judged_by_the_defaults(repository: Repository) -> None:
    repository.commit(a_dot_py=UNUSED, b_dot_py=TABS, c_dot_txt="text\n")
    # Rules above the tree are somebody else's.
    (repository.path.parent / "ruff.toml").write_text("lint.select = ['W191']\n", "utf-8")
    report = lint(str(repository))
    assert (report.config, report.files, report.findings, report.rules) == (
        "defaults",
        2,
        1,
        {"F401": 1},
    )
    assert report.first == [LintFinding("a.py", 1, "F401", "`os` imported but unused")]
    assert report.tool.startswith("ruff ")


def test_the_trees_own_rules_are_applied(repository: Repository) -> None:
    repository.commit(
        a_dot_py=UNUSED, b_dot_py=TABS, pyproject_dot_toml="[tool.ruff.lint]\nselect = ['W191']\n"
    )
    report = lint(str(repository))
    assert (report.config, report.rules) == ("target", {"W191": 1})


def test_rules_that_cannot_be_used_give_way_to_the_defaults(repository: Repository) -> None:
    repository.commit(a_dot_py=UNUSED, ruff_dot_toml="lint.select = ['NOSUCHRULE']\n")
    report = lint(str(repository))
    assert (report.config, report.rules) == ("defaults", {"F401": 1})
    assert "NOSUCHRULE" in report.notes[0]


def test_a_tree_that_asks_for_fixes_is_not_written(repository: Repository) -> None:
    repository.commit(a_dot_py=UNUSED, ruff_dot_toml="fix = true\nunsafe-fixes = true\n")
    assert lint(str(repository)).findings == 1
    assert repository.git("status", "--porcelain", "--ignored") == ""


def test_code_that_cannot_be_parsed_is_a_finding(repository: Repository) -> None:
    repository.commit(a_dot_py="def (:\n")
    assert set(lint(str(repository)).rules) == {"invalid-syntax"}


def test_a_clean_tree_has_no_findings(repository: Repository) -> None:
    repository.commit(a_dot_py="x = 1\n")
    assert lint(str(repository)).findings == 0


def test_what_is_no_tree_is_refused() -> None:
    with pytest.raises(Refused):
        lint("/nowhere")


async def test_the_service_reports_what_ruff_found(repository: Repository) -> None:
    repository.commit(a_dot_py=UNUSED)
    told: list[str] = []
    report = await python_lint.handler(LintRequest(path=str(repository)), context(progress=told))
    assert report.findings == 1
    assert told[-1] == "1 findings"
