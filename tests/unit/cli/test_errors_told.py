"""How errors reach people: code, what, why, fix; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from switchgear import errors
from switchgear.cli import common, exits, shell


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place without settings, and an address where nobody listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SWITCHGEAR_URL", "SWITCHGEAR_CONTEXT", "SWITCHGEAR_PRINCIPAL"):
        monkeypatch.delenv(name, raising=False)


def test_an_error_is_told_with_code_cause_and_fix() -> None:
    error = errors.NotFound("no task t", why="nobody submitted it", fix="submit it")
    assert shell.text_of(error) == (
        "SG1401: no task t\n  why: nobody submitted it\n  fix: submit it\n"
    )


def test_a_broker_that_is_away_ends_with_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["task", "ls", "--url", "nats://127.0.0.1:1"]) == exits.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("SG1301: no connection to nats://127.0.0.1:1")
    assert "fix: start the mesh (`switchgear dev`)" in told.err
    assert "Traceback" not in told.err


def test_an_error_is_a_document_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["--json", "task", "ls", "--url", "nats://127.0.0.1:1"]) == exits.UNREACHABLE
    told = capsys.readouterr()
    document = json.loads(told.err)
    assert told.out == ""
    assert document["schema"] == "switchgear/error"
    assert document["version"] == 1
    assert (document["code"], document["exit_code"]) == ("SG1301", exits.UNREACHABLE)
    assert document["fix"]


def test_clear_text_beyond_this_machine_is_an_auth_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shell.run(["task", "ls", "--url", "nats://192.0.2.1:4222"]) == exits.AUTH
    assert "SG1303" in capsys.readouterr().err


def test_an_unexpected_exception_is_seventy_with_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(common, "locate", broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert shell.run(["task", "ls"]) == exits.BUG
    told = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: by zero" in told
    assert "Traceback" not in told
    log = next(tmp_path.glob("switchgear-crash-*.log"))
    assert str(log) in told
    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")


def test_ctrl_c_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "locate", interrupted)
    assert shell.run(["task", "ls"]) == exits.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_contexts_are_saved_used_listed_and_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    url = "nats://127.0.0.1:1"
    save = ["context", "save", "staging", "--url", url, "--principal", "ada"]
    assert shell.run(save) == 0
    assert shell.run(["context", "use", "stagin"]) == exits.NOT_FOUND
    assert "did you mean staging?" in capsys.readouterr().err
    assert shell.run(["context", "use", "staging"]) == 0
    assert "nats://127.0.0.1:1 as ada" in capsys.readouterr().out
    assert shell.run(["context", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["contexts"] == [{"name": "staging", "url": url, "principal": "ada", "used": True}]
    assert shell.run(["task", "ls", "--context", "stagign"]) == exits.NOT_FOUND
    assert "did you mean staging?" in capsys.readouterr().err


def test_no_context_is_used_after_none(capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(["context", "save", "staging", "--url", "nats://127.0.0.1:1"])
    shell.run(["context", "use", "staging"])
    capsys.readouterr()
    assert shell.run(["context", "use", "--none"]) == 0
    assert shell.run(["context", "use"]) == exits.USAGE
    located = common.locate(common.COMMON)
    assert located.origins == {"url": "default", "principal": "default", "context": "none"}


def test_a_principal_that_is_no_token_is_not_saved() -> None:
    assert shell.run(["context", "save", "x", "--principal", "a.b"]) == exits.USAGE


def test_each_setting_knows_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option over environment over context over default."""
    save = ["context", "save", "staging", "--url", "nats://127.0.0.1:7", "--principal", "ada"]
    shell.run(save)
    shell.run(["context", "use", "staging"])
    located = common.locate(common.COMMON)
    assert located.settings.url == "nats://127.0.0.1:7"
    assert located.origins["url"] == "context staging"
    monkeypatch.setenv("SWITCHGEAR_URL", "nats://127.0.0.1:8")
    monkeypatch.setenv("SWITCHGEAR_PRINCIPAL", "bob")
    located = common.locate(common.COMMON)
    assert (located.settings.url, located.settings.principal) == ("nats://127.0.0.1:8", "bob")
    assert located.origins["principal"] == "SWITCHGEAR_PRINCIPAL"
    located = common.locate(common.Common(context="staging"))
    assert located.settings.url == "nats://127.0.0.1:7"
    assert located.origins["url"] == "context staging"
    located = common.locate(common.Common(url="nats://127.0.0.1:9"))
    assert located.settings.url == "nats://127.0.0.1:9"
    assert located.origins["url"] == "--url"


@pytest.mark.parametrize(
    "option", [("--limit", "0"), ("--limit", "1001"), ("--run", "a.b"), ("--capability", "a b")]
)
def test_a_list_that_cannot_be_asked_for_is_a_usage_error(option: tuple[str, str]) -> None:
    assert shell.run(["task", "ls", *option]) == exits.USAGE
