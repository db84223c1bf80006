"""docs/reference/cli.md says what the commands are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from switchgear.cli import exits, shell
from switchgear.cli.app import COMMANDS, Command

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SHARED = {"--url", "--context", "--json", "--help", "--version"}


def section(path: str) -> str:
    """What the page says of one command."""
    return PAGE.partition(f"\n### {path}\n")[2].partition("\n### ")[0].partition("\n## ")[0]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_option_of_every_command_is_on_the_page(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    text = section(command.path)
    assert f"`switchgear {command.path}" in text
    shell.run([*command.path.split(), "--help"])
    options = set(re.findall(r"^│ +\*? *(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert options >= {"--url"}
    missing = [option for option in options - SHARED if option not in text]
    assert missing == []


def test_the_page_names_no_command_that_is_gone() -> None:
    named = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert set(named) == {command.path for command in COMMANDS}


def test_every_exit_code_is_on_the_page_as_it_is() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in exits.MEANING.items()}
