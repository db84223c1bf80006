"""Where answers go, and in which form."""

from __future__ import annotations

import io
import json

import pytest
from rich.text import Text

from switchgear.cli.output import Output, document, is_plain, plain
from switchgear.cli.render.tables import pairs, table, word


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_document_has_schema_and_version() -> None:
    assert json.loads(document("task", {"id": "t"})) == {
        "schema": "switchgear/task",
        "version": 1,
        "id": "t",
    }


def test_data_and_messages_go_different_ways() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(as_json=False, out=out, err=err)
    output.show("data")
    output.say("message")
    assert (out.getvalue(), err.getvalue()) == ("data\n", "message\n")


def test_json_is_one_line_and_draws_nothing() -> None:
    def never() -> str:
        raise AssertionError

    out = io.StringIO()
    Output(as_json=True, out=out).put("task", {"text": "a\nb"}, never)
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue())["text"] == "a\nb"


def test_a_table_is_plain_in_a_pipe_and_coloured_on_a_terminal() -> None:
    made = table(("NAME", "STATE"), [("a", word("completed"))])
    piped, terminal = io.StringIO(), Terminal()
    Output(as_json=False, out=piped).show(made)
    Output(as_json=False, out=terminal).show(made)
    assert piped.getvalue() == "NAME  STATE\na     completed\n"
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_may_ask_for_plain_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    assert not is_plain(terminal)
    monkeypatch.setenv(name, value)
    assert is_plain(terminal)
    Output(as_json=False, out=terminal).show(Text("red", style="red"))
    assert terminal.getvalue() == "red\n"


def test_progress_is_live_only_where_it_can_be_seen() -> None:
    assert Output(as_json=False, err=Terminal()).is_live
    assert not Output(as_json=True, err=Terminal()).is_live
    assert not Output(as_json=False, err=io.StringIO()).is_live


def test_plain_lines_are_neither_cut_nor_marked_up() -> None:
    long = "x" * 500
    assert plain(table(("A", "B"), [(long, "[bold]:smile:")])).splitlines()[1] == (
        f"{long}  [bold]:smile:"
    )


def test_pairs_without_a_value_are_left_out() -> None:
    assert plain(pairs([("a", "1"), ("long", ""), ("b", "2")])) == "a  1\nb  2\n"
