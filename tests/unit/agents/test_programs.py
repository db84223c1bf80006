"""Functions that run as processes of their own."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear import Permanent, Retryable, StepFailed
from switchgear_agents.programs import Needs, Refused, Temporary, answer, tool
from switchgear_agents.repository import SecretFinding
from tests.unit.agents.handling import context

HERE = Path(__file__).parents[3]
SOON = Needs(timedelta(seconds=20), reads=(str(HERE),))


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


def test_a_tool_that_is_missing_is_named() -> None:
    assert tool("ruff").endswith("/ruff")
    with pytest.raises(Refused, match=r"no-such-tool.*switchgear\[agents\]"):
        tool("no-such-tool")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other process find this module."""
    monkeypatch.setattr("switchgear_agents.programs.NETWORK", ("PYTHONPATH",))
    monkeypatch.setenv("PYTHONPATH", str(HERE))


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
