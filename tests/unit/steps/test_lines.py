"""Lines of a step in an engine, put together from what its script sent and what it told in the end."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.steps.executors.dagger import script
from switchgear.steps.executors.dagger.lines import Lines, beginning
from switchgear.steps.spec import container

PLAIN = {9, *range(32, 127)}
"""Bytes that are sent as they are."""

line = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"\r"))
pieces = st.lists(st.integers(1, 30), min_size=1)


def sent(stream: str, lines: list[bytes]) -> str:
    """As the script sends them."""
    plain = [
        "".join(chr(byte) if byte in PLAIN else f"\x01{byte:o};" for byte in line) for line in lines
    ]
    return "".join(
        f"{stream}.{n} {len(line)} {text} {stream}.{n}\n"
        for n, (line, text) in enumerate(zip(lines, plain, strict=True), 1)
    )


def cut(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of these sizes, over and over."""
    records: list[str] = []
    for size in itertools.cycle(sizes):
        if not text:
            return records
        records.append(text[:size])
        text = text[size:]
    return records


def told(lines: list[bytes]) -> list[str]:
    return [one.rstrip(b"\r").decode(errors="replace") for one in lines]


class Ear:
    def __init__(self, *secrets: str) -> None:
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.lines = Lines(lambda stream, text: getattr(self, stream).append(text), secrets)

    def end(self, out: bytes, err: bytes = b"", counts: tuple[int, int] | None = None) -> None:
        texts = [text.decode(errors="replace") for text in (out, err)]
        self.lines.end(texts, counts or (out.count(b"\n"), err.count(b"\n")))


@given(lines=st.lists(line), heard=st.integers(0, 20), sizes=pieces, last=line)
def test_each_line_is_told_once_and_in_order_wherever_the_stream_ended(
    lines: list[bytes], heard: int, sizes: list[int], last: bytes
) -> None:
    ear = Ear()
    for record in cut(sent("5", lines[:heard]), sizes):
        ear.lines.feed(record)
    assert ear.stdout == told(lines[:heard])
    ear.end(b"".join(one + b"\n" for one in lines) + last)
    # What has no end yet is told as it is.
    assert ear.stdout == told(lines) + ([last.decode(errors="replace")] if last else [])


@given(
    out=st.lists(line, min_size=1),
    err=st.lists(line, min_size=1),
    sizes=st.lists(st.integers(40, 200), min_size=1),
    lost=st.sets(st.integers(0, 30)),
)
def test_records_that_are_lost_lose_no_line_and_garble_none(
    out: list[bytes], err: list[bytes], sizes: list[int], lost: set[int]
) -> None:
    ear = Ear()
    for number, record in enumerate(cut(sent("5", out) + sent("6", err), sizes)):
        if number not in lost:
            ear.lines.feed(record)
    ear.end(b"".join(one + b"\n" for one in out), b"".join(one + b"\n" for one in err))
    assert (ear.stdout, ear.stderr) == (told(out), told(err))


def test_lines_that_come_again_are_told_once() -> None:
    ear = Ear()
    for _ in range(2):
        ear.lines.feed(sent("6", [b"a", b"b"]))
    ear.end(b"", b"a\nb\n")
    assert ear.stderr == ["a", "b"]


def test_of_a_text_that_was_cut_only_the_lines_are_told_that_were_not_yet() -> None:
    ear = Ear()
    ear.lines.feed(sent("5", [b"1", b"2", b"3"]))
    ear.end(b"2\n3\n4\n5\nend", counts=(5, 0))
    assert ear.stdout == ["1", "2", "3", "4", "5", "end"]


def test_lines_beyond_what_is_kept_are_left_out() -> None:
    ear = Ear()
    ear.lines.feed(sent("5", [b"1"]))
    ear.end(b"8\n9\n", counts=(9, 0))
    assert ear.stdout == ["1", "8", "9"]


def test_secrets_are_masked_while_it_runs_and_in_the_end() -> None:
    ear = Ear("hush")
    ear.lines.feed(sent("5", ["é hush".encode()]))
    ear.end("é hush\nhush hush".encode())
    assert ear.stdout == ["é ***", "*** ***"]


def test_lines_are_sent_only_where_an_engine_finds_each_secret_in_them() -> None:
    assert Ear().lines.live
    assert Ear('p\\a"ss word').lines.live
    assert not Ear("fine", "pä\u00df").lines.live
    assert not Ear("two\nlines").lines.live
    assert not Lines(None, []).live


def test_nobody_who_wants_no_lines_is_told_any() -> None:
    lines = Lines(None, [])
    lines.feed(sent("5", [b"1"]))
    lines.end(["1\n", ""], [1, 0])


def test_the_first_record_tells_the_run_and_what_follows() -> None:
    assert beginning("\nsg-abc123 0aff\n5.1 1 a 5.1\n") == ("0aff", "5.1 1 a 5.1\n")
    assert beginning("anything else") is None


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_a_script_sends_every_byte_of_both_outputs_while_its_command_runs(
    shell: str, tmp_path: Path
) -> None:
    found = shutil.which(shell)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{shell} is missing", pytrace=False)
        pytest.skip(f"{shell} is missing")
    # A shell's variable cannot hold a zero.
    data = b"".join(bytes([byte, 65, byte]) + b"\n" for byte in range(1, 256) if byte != 10)
    (tmp_path / "data").write_bytes(data + "é ✓ \\ ".encode() * 2000 + b"\n\n")
    gate = tmp_path / "gate"
    text = f"cat data; cat data >&2; while [ ! -e {gate} ]; do sleep 0.05; done; printf end"
    spec = container("any").exec("sh", "-c", text)
    argv = [found, *(["sh"] if shell == "busybox" else []), "-c", script.script(spec)]
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), script.RUN: "0a"}
    wanted = told([*(tmp_path / "data").read_bytes().split(b"\n")[:-1]])
    ear = Ear()
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environ
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        first = beginning(process.stderr.readline().decode() + process.stderr.readline().decode())
        assert first == ("0a", "")
        while (ear.stdout, ear.stderr) != (wanted, wanted) and process.poll() is None:
            ear.lines.feed(process.stderr.readline().decode("ascii"))
        gate.touch()
        frame = script.parse(spec, process.stdout.read().decode(errors="replace"))
        assert process.stderr.read() == b""
    ear.lines.end((frame.stdout, frame.stderr), frame.lines)
    assert (ear.stdout, ear.stderr) == ([*wanted, "end"], wanted)
    assert process.returncode == 0
