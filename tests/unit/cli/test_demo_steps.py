"""What the demo says of where its steps ran."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from switchgear.cli.demo_steps import Engine, Ran, engine, environment, kinds, ran, told, why_plain
from switchgear.contract.queries import Moment

OWN = f"python:{sys.version_info.major}.{sys.version_info.minor}"
ENGINE = {
    "_EXPERIMENTAL_DAGGER_CLI_BIN": "/bin/dagger",
    "_EXPERIMENTAL_DAGGER_RUNNER_HOST": "unix:///run/engine.sock",
}
LINT = Ran("python-lint", "ruff", "process", "bubblewrap")
INSIDE = Ran("python-lint", "ruff", "dagger", "container")


def moment(detail: str, kind: str = "run") -> Moment:
    return Moment(
        task="t",
        capability="python-lint",
        event="checkpoint",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        sequence=1,
        detail=detail,
        key="ruff",
        kind=kind,
    )


def test_steps_are_read_from_the_checkpoints_of_commands() -> None:
    moments = [
        moment("run ruff (process, bubblewrap)"),
        moment("run ruff in 0.2 s (process, not isolated): step ruff ended with exit code 1"),
        moment("call python-lint", "call"),
        moment("run ruff: nothing ran"),
    ]
    assert ran(moments) == [LINT, LINT._replace(isolation="not isolated")]


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], "no step ran"),
        ([LINT, LINT], "steps ran in bubblewrap"),
        ([LINT._replace(isolation="not isolated")], "steps ran plain: no bwrap"),
        ([LINT, LINT._replace(isolation="not isolated")], "steps ran in part plain: no bwrap"),
        ([INSIDE], "steps ran in the engine, image i"),
        (
            [INSIDE, LINT._replace(step="x"), LINT._replace(step="x")],
            "steps ran in the engine, image i; python-lint/x on the host, in bubblewrap",
        ),
    ],
)
def test_the_closing_line_says_where_they_ran(steps: list[Ran], sentence: str) -> None:
    assert told(steps, Engine("the engine", "i"), "no bwrap") == sentence


def test_programs_read_executor_and_isolation() -> None:
    assert kinds([LINT, INSIDE, LINT]) == "dagger, container; process, bubblewrap"


def test_agents_get_an_image_where_there_is_an_engine() -> None:
    assert environment({}) == {"SWITCHGEAR_ISOLATION": "preferred"}
    assert environment({"SWITCHGEAR_ISOLATION": "required"}) == {"SWITCHGEAR_ISOLATION": "required"}
    assert environment(ENGINE)["SWITCHGEAR_ENGINE_IMAGE"] == OWN
    set_ = environment({**ENGINE, "SWITCHGEAR_ENGINE_IMAGE": "mine:1"})
    assert set_["SWITCHGEAR_ENGINE_IMAGE"] == "mine:1"


def test_the_engine_is_told_with_the_image_that_is_really_used() -> None:
    assert engine({}) is None
    where = "the Dagger engine at unix:///run/engine.sock"
    assert engine(ENGINE) == Engine(where, OWN)
    aliased = {**ENGINE, "SWITCHGEAR_IMAGE_ALIASES": f"{OWN}=oci:/images/python.tar"}
    assert engine(aliased) == Engine(where, f"oci:/images/python.tar ({OWN})")
    given = {"DAGGER_SESSION_PORT": "99", "DAGGER_SESSION_TOKEN": "t"}
    assert engine(given) == Engine("the Dagger engine of the session at port 99", OWN)


async def test_what_is_missing_for_a_sandbox_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await why_plain({"SWITCHGEAR_ISOLATION": "none"}) == "SWITCHGEAR_ISOLATION is none"
    monkeypatch.setenv("PATH", "/nowhere")
    assert await why_plain({}) == "bubblewrap is not installed (install the package bubblewrap)"
