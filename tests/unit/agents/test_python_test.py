"""Running a tree's tests in an environment of their own: real uv, real pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear_agents.pytest_runner import python_test
from switchgear_agents.pytest_runner.environment import environment_of
from switchgear_agents.pytest_runner.suite import run_suite
from switchgear_agents.repository import SuiteReport, SuiteRequest
from tests.unit.agents.handling import context
from tests.unit.agents.repositories import Repository

TESTS = """
import os, pathlib, sys, pytest

def test_good():
    pathlib.Path("written").touch()

def test_bad():
    assert 1 == 2, "on purpose"

@pytest.mark.skip
def test_later(): ...

def test_where():
    assert "UV_CACHE_DIR" not in os.environ and "XDG_CACHE_HOME" not in os.environ
    assert sys.prefix == os.environ["VIRTUAL_ENV"]
"""


async def service(repository: Repository) -> SuiteReport:
    return await python_test.handler(SuiteRequest(path=str(repository)), context())


async def test_a_tree_without_tests_gets_no_environment(
    repository: Repository, cache: Path
) -> None:
    repository.commit(a_dot_py="x = 1\n")
    assert (await service(repository)).outcome == "no tests"
    assert not list((cache / "environments").glob("*/bin"))


@pytest.mark.slow
async def test_a_tree_that_declares_nothing_gets_pytest_alone(repository: Repository) -> None:
    repository.commit(test_a_dot_py=TESTS)
    report = await service(repository)
    assert (report.outcome, report.passed, report.failed, report.skipped) == ("failed", 2, 1, 1)
    assert report.failures[0].name == "test_a::test_bad"
    assert "on purpose" in report.failures[0].message
    assert report.environment == "pytest alone"
    assert report.notes == ["the tree declares no test dependencies: it gets pytest alone"]
    assert repository.git("status", "--porcelain", "--ignored") == ""
    assert (await service(repository)).environment == "pytest alone, cached"


@pytest.mark.slow
def test_the_tree_is_installed_and_its_own_choice_is_run(repository: Repository) -> None:
    repository.write(
        pyproject_dot_toml=(
            "[project]\nname = 'sample'\nversion = '1.2'\n"
            "[project.optional-dependencies]\ntest = ['pytest']\n"
            "[project.scripts]\nsample = 'sample:main'\n"
            "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
            "[tool.switchgear.check]\ntests = ['checks']\n"
        ),
        src__sample____init___dot_py="",
    )
    repository.put("src/sample/__init__.py", "def main():\n    print('hello')\n")
    repository.put(
        "checks/test_it.py",
        "import subprocess\nfrom importlib.metadata import version\nimport sample\n"
        "def test_it():\n    assert version('sample') == '1.2'\n"
        "    assert subprocess.check_output(['sample']) == b'hello\\n'\n",
    )
    repository.put("tests/test_other.py", "def test_other():\n    assert False\n")
    repository.commit()
    environment = environment_of(str(repository))
    assert environment.origin == "extra test"
    report = run_suite(str(repository), 120, environment.path)
    assert report.notes == []
    assert (report.outcome, report.passed, report.failed) == ("passed", 1, 0)


@pytest.mark.slow
def test_tests_that_take_too_long_are_stopped_and_counted(repository: Repository) -> None:
    repository.commit(
        test_a_dot_py="import time\ndef test_fast(): ...\ndef test_slow(): time.sleep(600)\n"
    )
    report = run_suite(str(repository), 10, environment_of(str(repository)).path)
    assert (report.outcome, report.passed) == ("timed out", 1)
    assert report.notes[0] == "stopped after 10 s"
    assert "test_a.py:3: KeyboardInterrupt" in report.notes[1]


@pytest.mark.slow
def test_a_suite_that_cannot_be_collected_is_told(repository: Repository) -> None:
    repository.commit(test_a_dot_py="import nosuchmodule\n")
    report = run_suite(str(repository), 120, environment_of(str(repository)).path)
    assert (report.outcome, report.errors) == ("failed", 1)
    assert "nosuchmodule" in report.failures[0].message or report.failures[0].name == "test_a"


@pytest.mark.slow
def test_a_pytest_that_breaks_off_is_told(repository: Repository) -> None:
    repository.commit(test_a_dot_py="", pytest_dot_ini="[pytest]\naddopts = --no-such-option\n")
    report = run_suite(str(repository), 120, environment_of(str(repository)).path)
    assert report.outcome == "broken"
    assert "no-such-option" in report.notes[-1]
