"""The last bytes of a stream, and its lines."""

from __future__ import annotations

import pytest

from switchgear.steps.tail import MAX_LINE, Tail


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_the_last_bytes_are_kept_and_the_others_counted(size: int) -> None:
    data = bytes(range(48, 58)) * 10
    tail = Tail(12)
    for start in range(0, len(data), size):
        tail.feed(data[start : start + size])
    assert tail.text() == data[-12:].decode()
    assert tail.cut == len(data) - 12


def test_a_short_stream_is_complete() -> None:
    tail = Tail(12)
    tail.feed(b"hello")
    assert (tail.text(), tail.cut) == ("hello", 0)


def test_nothing_is_kept_where_nothing_may_be() -> None:
    tail = Tail(0)
    tail.feed(b"hello")
    assert (tail.text(), tail.cut) == ("", 5)


def test_a_character_cut_in_two_is_left_out() -> None:
    tail = Tail(4)
    tail.feed("äöü".encode() * 3)
    tail.feed(b"x")
    assert tail.text() == "üx"


def test_bytes_that_are_no_text_are_replaced() -> None:
    tail = Tail(10)
    tail.feed(b"a\xffb")
    assert tail.text() == "a\ufffdb"


def test_lines_are_handed_on_when_they_are_complete() -> None:
    lines: list[str] = []
    tail = Tail(100, lines.append)
    tail.feed(b"one\r\ntw")
    assert lines == ["one"]
    tail.feed(b"o\nthree")
    assert lines == ["one", "two"]
    tail.close()
    assert lines == ["one", "two", "three"]


def test_an_endless_line_comes_in_pieces() -> None:
    lines: list[str] = []
    tail = Tail(0, lines.append)
    for _ in range(5):
        tail.feed(b"x" * MAX_LINE)
    tail.close()
    assert {len(line) for line in lines} == {MAX_LINE}
    assert len(lines) == 5
