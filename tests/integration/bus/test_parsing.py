"""The parser of received bytes: the same messages as nats-py's, however the bytes are cut."""

from __future__ import annotations

import asyncio
import os
import random
from itertools import pairwise
from typing import Any

import pytest
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from switchgear.bus.parsing import MessageParser

Message = tuple[int, bytes, bytes, bytes, bytes]


class Recorder:
    """Stands for either client."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.others: list[str] = []
        self.on_error: Any = None

    def hand_over(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """A message from our parser."""
        self.messages.append((sid, subject, reply, data, headers))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.messages.append((sid, subject, reply, data, headers or b""))

    async def _process_ping(self) -> None:
        self.others.append("ping")

    async def _process_pong(self) -> None:
        self.others.append("pong")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.others.append(f"info {info}")

    async def _process_err(self, text: str) -> None:
        self.others.append(text)
        if self.on_error is not None:
            self.on_error()


def parser(recorder: Recorder) -> MessageParser:
    """Our parser before a recorder."""
    return MessageParser(recorder)


def msg(line: bytes, data: bytes, headers: bytes | None = None) -> bytes:
    """A message as the server sends it."""
    if headers is None:
        return b"MSG %b %d\r\n%b\r\n" % (line, len(data), data)
    size = len(headers) + len(data)
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (line, len(headers), size, headers, data)


STREAM = b"".join(
    [
        b'INFO {"a": 1}\r\nPING\r\n',
        msg(b"a.b 1", b"abc"),
        msg(b"a 12 re.ply", b""),
        b"+OK\r\n",
        msg(b"h 3", b"abc", b"NATS/1.0\r\nX:\r\n\r\n"),
        b"PONG\r\n",
        msg(b"h 3 re.ply", b"", b"NATS/1.0\r\n\r\n"),
        b"-ERR 'Some Error'\r\n",
        msg(b"M 4", msg(b"H 1", b"")),
        msg(b"h 5", b"", b"NATS/1.0 404 N\r\n\r\n"),
    ]
)


async def fed(feeds: list[bytes]) -> Recorder:
    """What our parser makes of it."""
    recorder = Recorder()
    ours = parser(recorder)
    for feed in feeds:
        await ours.parse(feed)
    return recorder


async def test_messages_are_those_of_nats_py_wherever_the_bytes_are_cut() -> None:
    wanted = Recorder()
    await Parser(wanted).parse(STREAM)
    assert len(wanted.messages) == 6
    dice = random.Random(7)  # noqa: S311 - any cuts will do
    cuts = [[at] for at in range(len(STREAM) + 1)]
    cuts += [sorted(dice.sample(range(len(STREAM)), 9)) for _ in range(200)]
    cuts.append(list(range(len(STREAM))))
    for cut in cuts:
        places = [0, *cut, len(STREAM)]
        feeds = [STREAM[start:end] for start, end in pairwise(places)]
        found = await fed(feeds)
        assert (wanted.messages, wanted.others) == (found.messages, found.others)


async def test_large_message_in_many_pieces_is_whole() -> None:
    body = os.urandom(1_000_000)
    stream = b"MSG a 1 1000000\r\n" + body + b"\r\nPING\r\n"
    found = await fed([stream[at : at + 999] for at in range(0, len(stream), 999)])
    assert [(1, b"a", b"", body, b"")] == found.messages
    assert found.others == ["ping"]


@pytest.mark.parametrize(
    "junk",
    [
        b"MSG a\r\n",
        b"MSG a x 3\r\n",
        b"HMSG a 1 x 3\r\n",
        b"HELLO\r\n",
        b"-ERR bare\r\n",
        b"INFO {\r\n",
        b"X" * 70_000,
        b"Y" * 5000 + b"\r\n",
    ],
)
async def test_what_no_server_sends_is_a_protocol_error(junk: bytes) -> None:
    """Nothing else: nats-py reconnects after this one, and after no other."""
    with pytest.raises(ProtocolError):
        await fed([junk])


async def test_what_follows_a_reset_is_a_new_connection() -> None:
    recorder = Recorder()
    ours = parser(recorder)
    recorder.on_error = ours.reset
    await ours.parse(b"-ERR 'Expired'\r\nMSG a 1 3\r\nab")
    await ours.parse(b"PING\r\n")
    assert (recorder.others, recorder.messages) == (["'expired'", "ping"], [])
    await asyncio.sleep(0)
