"""nats-py's private methods that the bus builds on: a change of any of them must be looked at."""

# Some faults can only be set up, and seen, from inside.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from switchgear.bus.parsing import MessageParser
from switchgear.bus.raw import RawClient


def test_nats_py_is_the_pinned_minor_release() -> None:
    assert version("nats-py").startswith("2.16.")


async def test_everything_received_passes_the_own_parser() -> None:
    client = RawClient()
    assert isinstance(client._ps, MessageParser)
    assert "await self._ps.parse(b)" in inspect.getsource(Client._read_loop)
    assert "_ps = " not in inspect.getsource(Client.connect)
    assert list(inspect.signature(Parser.parse).parameters) == ["self", "data"]
    assert inspect.iscoroutinefunction(Parser.parse)


@pytest.mark.parametrize(
    ("where", "names", "digest"),
    [
        (
            Client,
            (
                "connect",
                "_close",
                "_send_command",
                "_flush_pending",
                "_select_next_server",
                "_connect_to_server",
                "_process_err",
                "_process_op_err",
                "_attempt_reconnect",
                "_process_ping",
                "_process_pong",
                "_process_msg",
                "_process_info",
                "_process_connect_init",
                "_send_ping",
                "_flusher",
                "_ping_interval",
                "_read_loop",
            ),
            "92b5b206da10a835",
        ),
        (Parser, ("reset", "parse"), "15b4bf7eefdf8eef"),
        (
            TcpTransport,
            ("connect", "connect_tls", "write", "close", "wait_closed"),
            "7c0e9e167fa50fff",
        ),
    ],
)
def test_code_around_the_overrides_is_the_one_that_was_read(
    where: type, names: tuple[str, ...], digest: str
) -> None:
    """On a failure: read what changed in nats-py, adapt `bus/raw.py`, then note the new digest."""
    source = "".join(inspect.getsource(getattr(where, name)) for name in names)
    assert digest == hashlib.sha256(source.encode()).hexdigest()[:16]
