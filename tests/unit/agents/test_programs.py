"""Functions that run as processes of their own."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear import Permanent, Retryable, StepFailed
from switchgear.steps.sources import Local
from switchgear_agents.packages import Code, code
from switchgear_agents.places import cache_directory, tool, tool_files, uv_cache
from switchgear_agents.programs import Needs, answer, program
from switchgear_agents.refusals import Refused, Temporary
from switchgear_agents.repository import SecretFinding
from tests.patience import PATIENCE
from tests.unit.agents.handling import context

HERE = Path(__file__).parents[3]
SOON = Needs(timedelta(seconds=PATIENCE))


def echo(text: str, number: int) -> SecretFinding:
    """Run in the other process."""
    return SecretFinding(text, number, f"isolated {sys.flags.safe_path}")


def refuse() -> None:
    """Run in the other process."""
    raise Refused("never")


def put_off() -> None:
    """Run in the other process."""
    raise Temporary("later")


def break_down() -> None:
    """Run in the other process."""
    raise ZeroDivisionError


def told() -> dict[str, str]:
    """Run in the other process."""
    return dict(os.environ)


def test_a_tool_that_is_missing_is_named() -> None:
    assert tool("ruff").endswith("/ruff")
    with pytest.raises(Refused, match=r"no-such-tool.*switchgear\[agents\]"):
        tool("no-such-tool")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other process find this module."""

    def known(*more: str) -> Code:
        found = code(*more)
        return Code((*found.roots, str(HERE)), (*found.files, str(HERE / "tests")))

    monkeypatch.setattr("switchgear_agents.packages.code", known)


def test_what_a_program_needs_stands_at_the_same_path_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://index.example")
    needs = Needs(timedelta(1), (str(tmp_path), str(tmp_path / "missing")), tools=("ruff",))
    spec = program("a:b", needs)
    paths = {one.path for one in spec.mounts}
    ruff = tool_files(("ruff",))
    assert paths == {*code().files, str(HERE / "tests"), str(tmp_path), *ruff}
    assert all(one.source == Local(one.path) and one.read_only for one in spec.mounts)
    assert not spec.networked
    assert not spec.host_only
    assert "UV_INDEX_URL" not in dict(spec.environment)
    assert spec.commands[0][0].startswith("python3.")
    networked = program("a:b", needs._replace(network=True))
    assert networked.networked
    assert dict(networked.environment)["UV_INDEX_URL"] == "https://index.example"


def test_what_writes_caches_or_has_the_users_credentials_stays_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = program("a:b", Needs(timedelta(1), caches=("uv", "environments")))
    assert cached.host_only
    assert [one.path for one in cached.mounts if not one.read_only] == sorted(
        [str(uv_cache()), str(cache_directory("environments"))]
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    homely = Needs(timedelta(1), network=True, home=(".netrc",))
    assert not program("a:b", homely).host_only
    (tmp_path / ".netrc").touch()
    spec = program("a:b", homely)
    assert spec.host_only
    assert dict(spec.environment)["HOME"] == str(tmp_path)


def test_a_program_that_was_killed_from_outside_may_run_again() -> None:
    assert program("a:b", Needs(timedelta(1))).repeatable


async def test_a_program_sees_the_agents_variables_only_with_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://index.example")
    monkeypatch.setenv("TOKEN", "secret")
    seen = await answer(context(), "it", told, SOON)
    assert not {"UV_INDEX_URL", "TOKEN"} & seen.keys()


async def test_an_image_without_this_python_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the shell of an image that finds no such program.
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho python3: not found >&2; exit 127\n", "utf-8")
    shell.chmod(0o755)
    monkeypatch.setattr("switchgear_agents.places.interpreter", lambda: str(shell))
    with pytest.raises(Permanent, match=r"needs an image with Python 3.*not found"):
        await answer(context(), "it", told, SOON)


async def test_arguments_and_answer_travel() -> None:
    given = await answer(context(), "it", echo, SOON, "-- ü\n", 7)
    assert given == SecretFinding("-- ü\n", 7, "isolated True")


async def test_a_refusal_is_permanent() -> None:
    with pytest.raises(Permanent, match="never"):
        await answer(context(), "it", refuse, SOON)


async def test_a_passing_condition_may_be_retried() -> None:
    with pytest.raises(Retryable, match="later"):
        await answer(context(), "it", put_off, SOON)


async def test_any_other_end_is_a_failed_step() -> None:
    with pytest.raises(StepFailed, match="ZeroDivisionError"):
        await answer(context(), "it", break_down, SOON)
