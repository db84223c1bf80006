"""Bytes that the server makes, taken apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from switchgear.bus import frames
from switchgear.bus.monitoring import go_duration


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.SG_LEDGER.lane=a=b=high.3.17.5.1795369194577392586.9",
        b"$JS.ACK._.ACCHASH.SG_LEDGER.lane=a=b=high.3.17.5.1795369194577392586.9",
        b"$JS.ACK.hub.ACCHASH.SG_LEDGER.lane=a=b=high.3.17.5.1795369194577392586.9.rAnDoM",
    ],
)
def test_both_forms_of_the_reply_subject_are_read(reply: bytes) -> None:
    wanted = frames.Handed("lane=a=b=high", 3, 17, 5, 1795369194577392586, 9)
    assert wanted == frames.handed(reply)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-22T17:39:54.577789748Z", 1795369194577789748),
        ("2026-11-22T17:39:54.58093566Z", 1795369194580935660),
    ],
)
def test_times_keep_their_nanoseconds(text: str, wanted: int) -> None:
    assert wanted == frames.time_ns(text)


@pytest.mark.parametrize("text", ["", "x", "2026-11-22T17:39:54", "2026-11-22T17:39:54+01:00", "Z"])
def test_other_times_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        frames.time_ns(text)


def test_timers_are_written_in_full_precision_and_utc() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 60007, tzinfo=timezone(timedelta(hours=2)))
    assert frames.rfc3339(at) == "2026-01-02T01:04:05.060007Z"
    assert frames.rfc3339(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        (
            b"NATS/1.0\r\nNats-Stream: OTHER\r\nNats-Subject: a\r\nNats-Sequence: 1\r\n"
            b"Nats-Time-Stamp: 1970-01-01T00:00:00Z\r\n\r\n"
        ),
        (
            b"NATS/1.0\r\nNats-Stream: S\r\nNats-Subject: a\r\nNats-Sequence: x\r\n"
            b"Nats-Time-Stamp: 1970-01-01T00:00:00Z\r\n\r\n"
        ),
        (
            b"NATS/1.0\r\nNats-Stream: S\r\nNats-Subject: a\r\nNats-Sequence: 1\r\nNats-Sequence: 2\r\n"
            b"Nats-Time-Stamp: 1970-01-01T00:00:00Z\r\n\r\n"
        ),
        b"NATS/1.0\r\nNats-Stream: S\r\nNats-Sequence: 1\r\n\r\n",
    ],
)
def test_block_that_does_not_end_as_the_server_ends_it_is_none(block: bytes) -> None:
    assert frames.appended(block, "S") is None


def test_republished_message_is_read_like_a_direct_get() -> None:
    block = (
        b"NATS/1.0\r\nX: y\r\nNats-Stream: S\r\nNats-Subject: a.b\r\nNats-Sequence: 7\r\n"
        b"Nats-Time-Stamp: 1970-01-01T00:00:02Z\r\nNats-Last-Sequence: 3\r\n\r\n"
    )
    wanted = (b"NATS/1.0\r\nX: y\r\n\r\n", "a.b", 7, 2_000_000_000)
    assert wanted == frames.appended(block, "S")


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (b"NATS/1.0\r\nNats-Msg-Size: 9\r\n\r\n", b""),
        (b"NATS/1.0\r\nX: y\r\nNats-Msg-Size: 9\r\n\r\n", b"NATS/1.0\r\nX: y\r\n\r\n"),
        (
            b"NATS/1.0\r\nNats-Msg-Size: 1\r\nNats-Msg-Size: 9\r\n\r\n",
            b"NATS/1.0\r\nNats-Msg-Size: 1\r\n\r\n",
        ),
        (b"NATS/1.0\r\nX: cut ofNats-Msg-Size: 9\r\n\r\n", b""),
        (b"NATS/1.0\r\nX: y\r\n\r\n", b"NATS/1.0\r\nX: y\r\n\r\n"),
        (b"", b""),
    ],
    ids=["alone", "last", "twice", "cut off", "none", "nothing"],
)
def test_size_of_a_body_that_was_left_out_is_cut_off(block: bytes, wanted: bytes) -> None:
    assert wanted == frames.without_size(block)


def test_statuses_are_read() -> None:
    block = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 12\r\n\r\n"
    assert (
        frames.status(block),
        frames.description(block),
        frames.pending_messages(block),
    ) == (408, "Request Timeout", 12)
    assert 0 == frames.status(b"NATS/1.0\r\nX: 404\r\n\r\n") == frames.status(b"")
    assert frames.pending_messages(b"NATS/1.0 409 Leadership Change\r\n\r\n") is None


@pytest.mark.parametrize(
    ("nanoseconds", "wanted"),
    [(120 * 10**9, "2m0s"), (10**9 // 2, "0.5s"), (3661 * 10**9, "1h1m1s"), (10**10, "10s")],
)
def test_durations_are_written_as_the_server_does(nanoseconds: int, wanted: str) -> None:
    assert wanted == go_duration(nanoseconds)
