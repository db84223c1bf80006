"""Programs that a version manager stands in front of: what its sandbox cannot start is named before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import command
from tests.unit.steps.sandboxes import failure, needs_sandbox, run

pytestmark = needs_sandbox


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version manager, first in PATH, whose shim of `python3` starts what is elsewhere in its tree."""
    tree = tmp_path / "manager"
    for name, text in (
        ("versions/3.11/bin/python3", "echo the real one"),
        ("shims/python3", f'exec "{tree}/versions/3.11/bin/python3" "$@"'),
    ):
        program = tree / name
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tree}/shims:/usr/bin:/bin")
    return tree


async def test_a_shim_is_refused_by_name_with_what_mends_it(manager: Path) -> None:
    error = await failure(command("python3", "-V"))
    assert (error.error_class, error.exit_code) == ("invalid", None)
    assert f"{manager}/shims/python3 is a shim" in error.why
    assert f"SWITCHGEAR_SANDBOX_PATHS={manager}" in error.fix
    assert "command()" in error.fix


async def test_a_shim_works_where_settings_show_its_tree(manager: Path) -> None:
    result = await run(command("python3"), settings=StepSettings(shown=(str(manager),)))
    assert result.stdout == "the real one\n"


async def test_the_real_program_needs_no_settings(manager: Path) -> None:
    result = await run(command(manager / "versions/3.11/bin/python3"))
    assert result.stdout == "the real one\n"


async def test_a_shim_works_without_a_sandbox(manager: Path) -> None:
    result = await run(command("python3"), settings=StepSettings(isolation="none"))
    assert result.stdout == "the real one\n"
