"""What a tree declares about its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear_agents.pytest_runner.declarations import declared, has_tests
from switchgear_agents.refusals import Refused
from tests.unit.agents.repositories import Repository

PROJECT = "[project]\nname = 'x'\nversion = '1'\ndependencies = ['msgspec']\n"


def pyproject(tree: Path, text: str) -> None:
    (tree / "pyproject.toml").write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("text", "extras", "groups"),
    [
        (PROJECT, (), ()),
        ("[project.optional-dependencies]\ntest = ['pytest>=8']\ndev = ['pytest']", ("test",), ()),
        (
            "[project.optional-dependencies]\ntesting = ['pytest-mock']\ndev = ['pytest']",
            ("dev",),
            (),
        ),
        ("[project.optional-dependencies]\ndocs = ['sphinx']", (), ()),
        ("[project.optional-dependencies]\ntests = ['nose']", ("tests",), ()),
        ("[dependency-groups]\ndev = [{include-group = 'test'}]\ntest = ['pytest']", (), ("test",)),
        (
            "[dependency-groups]\ntest = ['pytest']\n[tool.switchgear.check]\nextras = ['dev']",
            ("dev",),
            (),
        ),
    ],
)
def test_the_best_declaration_is_chosen(
    tmp_path: Path, text: str, extras: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    pyproject(tmp_path, text)
    found = declared(tmp_path)
    assert (found.extras, found.groups) == (extras, groups)


def test_a_tree_without_declarations_says_so(tmp_path: Path) -> None:
    found = declared(tmp_path)
    assert (found.origin, found.project, found.arguments) == ("", None, None)


def test_requirements_files_stand_in_for_a_project(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("msgspec\n", "utf-8")
    (tmp_path / "requirements-dev.txt").write_text("pytest\n", "utf-8")
    found = declared(tmp_path)
    assert found.lists == ("requirements.txt", "requirements-dev.txt")
    assert found.origin == "file requirements.txt, file requirements-dev.txt"


def test_what_to_run_is_the_trees_own_choice(tmp_path: Path) -> None:
    pyproject(tmp_path, "[tool.switchgear.check]\ntests = ['tests/unit', '-m', 'not slow']\n")
    assert declared(tmp_path).arguments == ("tests/unit", "-m", "not slow")


def test_the_digest_changes_with_dependencies_and_with_nothing_else(tmp_path: Path) -> None:
    pyproject(tmp_path, PROJECT)
    first = declared(tmp_path).digest
    pyproject(tmp_path, PROJECT + "[tool.ruff]\nline-length = 100\n")
    assert declared(tmp_path).digest == first
    pyproject(tmp_path, PROJECT.replace("msgspec", "msgspec>=0.20"))
    assert declared(tmp_path).digest != first


def test_constraints_count_and_must_lie_in_the_tree(tmp_path: Path) -> None:
    table = PROJECT + "[tool.switchgear.check]\nconstraints = ['constraints.txt']\n"
    pyproject(tmp_path, table)
    (tmp_path / "constraints.txt").write_text("pytest==8.0\n", "utf-8")
    first = declared(tmp_path)
    (tmp_path / "constraints.txt").write_text("pytest==8.1\n", "utf-8")
    assert first.constraints == ("constraints.txt",)
    assert declared(tmp_path).digest != first.digest
    pyproject(tmp_path, table.replace("constraints.txt", "../secret"))
    with pytest.raises(Refused, match="outside"):
        declared(tmp_path)


@pytest.mark.parametrize("text", ["[project", "[project]\ndependencies = 7\n"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    pyproject(tmp_path, text)
    with pytest.raises(Refused, match=r"pyproject\.toml"):
        declared(tmp_path)


def test_tests_show_by_names_or_configuration(repository: Repository) -> None:
    tree = repository.path
    assert not has_tests(tree, ["a.py", "testing.py", "latest.py"], declared(tree))
    assert has_tests(tree, ["src/test_a.py"], declared(tree))
    assert has_tests(tree, ["a_test.py"], declared(tree))
    repository.write(tox_dot_ini="[pytest]\n")
    assert has_tests(tree, [], declared(tree))
