"""Values as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from switchgear.cli import suggest, values
from switchgear.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45s", timedelta(seconds=45)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("2d", timedelta(days=2)),
        ("0.5s", timedelta(milliseconds=500)),
    ],
)
def test_durations_are_read(text: str, expected: timedelta) -> None:
    assert values.duration(text) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "ten minutes", "-5s", "9" * 30 + "d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        values.duration(text)


def test_a_deadline_is_a_duration_or_a_moment() -> None:
    moment = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert values.moment("10m", "deadline") == timedelta(minutes=10)
    assert values.moment("2030-01-31T12:00:00Z", "deadline") == moment
    assert values.moment("2030-01-31T12:00:00", "deadline") == moment
    with pytest.raises(UsageError):
        values.moment("tomorrow", "deadline")


def test_labels_are_read() -> None:
    assert values.labels(["zone=eu", "note=a=b", "empty="]) == {
        "zone": "eu",
        "note": "a=b",
        "empty": "",
    }
    with pytest.raises(UsageError):
        values.labels(["zone"])


def test_an_input_is_json_or_a_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"a": [1]}', encoding="utf-8")
    assert values.task_input('{"a": 1}') == {"a": 1}
    assert values.task_input("-5") == -5
    assert values.task_input(f"@{tmp_path / 'input.json'}") == {"a": [1]}


def test_a_bare_word_is_told_how_to_be_a_text() -> None:
    with pytest.raises(UsageError) as caught:
        values.task_input("hello")
    assert "'\"hello\"'" in caught.value.fix


@pytest.mark.parametrize("text", ["@/nowhere/input.json", "{", '{"a": NaN}', "[" * 5000])
def test_what_is_no_json_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        values.task_input(text)


def test_agents_are_named_by_module_and_attribute() -> None:
    assert values.agent_path("a.b:c") == ("a.b", "c")
    assert values.agent_path("a.b") == ("a.b", "agent")
    for text in ("hello.py", "a/b:c", ":agent", "a-b:c", "hello.py:"):
        if text.endswith(".py") or text == "hello.py:":
            continue
        with pytest.raises(UsageError):
            values.agent_path(text)


def test_near_matches_are_found_by_spelling_and_by_beginning() -> None:
    known = ["python-lint", "python-test", "secret-scan"]
    assert suggest.near("pyton-lint", known)[0] == "python-lint"
    assert suggest.near("secret", known) == ["secret-scan"]
    assert suggest.near("xyz", known) == []


def test_an_unknown_name_suggests_before_it_explains() -> None:
    error = suggest.unknown("agent", "helo", ["hello"], fix="look there")
    assert error.fix == "did you mean hello? look there"
    assert suggest.unknown("agent", "zzz", ["hello"], fix="look there").fix == "look there"
