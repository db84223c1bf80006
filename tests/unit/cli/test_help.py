"""Every command explains itself, with an example, and costs nothing but the parser."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from switchgear.cli import exits, shell
from switchgear.cli.app import COMMANDS, GROUPS, Command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_command_has_help_with_an_example(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run([*command.path.split(), "--help"]) == 0
    told = capsys.readouterr().out
    assert "Example" in told
    assert command.examples[0] in told
    assert f"Usage: switchgear {command.path}" in told
    for option in ("--url", "--context", "--json"):
        assert option in told


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_option_of_a_command_is_explained(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option without a sentence stands alone on its line."""
    shell.run([*command.path.split(), "--help"])
    for line in capsys.readouterr().out.splitlines():
        words = line.strip("│ ").split()
        if words and words[0].startswith("--"):
            assert len(words) > 2, line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_example_is_a_call_of_its_command(command: Command) -> None:
    for example in command.examples:
        assert example.startswith(f"switchgear {command.path}")


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_lists_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run([group, "--help"]) == 0
    told = capsys.readouterr().out
    for command in COMMANDS:
        if command.path.startswith(f"{group} "):
            assert command.path.partition(" ")[2] in told
            assert command.examples[0] in told


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("switchgear 0.")


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell_name: str) -> None:
    from switchgear.cli.app import build

    script = build().generate_completion(prog_name="switchgear", shell=shell_name)  # type: ignore[arg-type]
    for command in COMMANDS:
        assert command.path.rpartition(" ")[2] in script


def test_help_imports_no_package_that_it_does_not_need() -> None:
    """What keeps `--help` fast; the time itself depends on the machine."""
    paths = ["", *GROUPS, *(command.path for command in COMMANDS)]
    code = (
        "import sys, json\n"
        "from switchgear.cli import shell\n"
        f"codes = [shell.run([*path.split(), '--help']) for path in {paths!r}]\n"
        "heavy = {'nats', 'msgspec', 'uvloop', 'asyncio', 'ssl', 'jsonschema_rs', 'sqlite3'}\n"
        "print(json.dumps([codes, sorted(heavy & set(sys.modules))]), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, heavy = json.loads(ran.stderr)
    assert set(codes) == {0}
    assert heavy == []


@pytest.mark.parametrize(
    ("tokens", "suggested"),
    [
        (["taks", "ls"], "task"),
        (["task", "sumbit"], "submit"),
        (["task", "ls", "--limt", "3"], "--limit"),
    ],
)
def test_what_is_mistyped_is_suggested(
    tokens: list[str], suggested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run(tokens) == exits.USAGE
    told = capsys.readouterr().err
    assert told.startswith("SG1001: ")
    assert suggested in told
    assert "--help" in told


def test_a_value_of_the_wrong_kind_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["task", "submit", "greet", "--priority", "urgent"]) == exits.USAGE
    assert "urgent" in capsys.readouterr().err


def test_a_missing_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["explain"]) == exits.USAGE
    assert "switchgear explain --help" in capsys.readouterr().err


def test_shared_options_may_stand_before_the_command() -> None:
    given = ["--json", "--url", "nats://h", "task", "ls", "--", "x"]
    assert shell.globals_last(given) == ["task", "ls", "--json", "--url", "nats://h", "--", "x"]
    assert shell.globals_last(["--url=nats://h", "doctor"]) == ["doctor", "--url=nats://h"]
    assert shell.globals_last(["--json"]) == ["--json"]
