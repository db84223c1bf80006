"""nats-py's private methods that the bus builds on: a change of any of them must be looked at."""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from switchgear.bus.raw import RawClient


def test_nats_py_is_the_pinned_minor_release() -> None:
    assert version("nats-py").startswith("2.16.")


def test_messages_pass_the_override_with_the_known_arguments() -> None:
    wanted = ["self", "sid", "subject", "reply", "data", "headers"]
    assert wanted == list(inspect.signature(Client._process_msg).parameters)
    assert wanted == list(inspect.signature(RawClient._process_msg).parameters)
    assert inspect.iscoroutinefunction(Client._process_msg)


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
        (TcpTransport, ("connect", "connect_tls", "write", "close", "wait_closed"), "7c0e9e167fa50fff"),
    ],
)
def test_code_around_the_overrides_is_the_one_that_was_read(
    where: type, names: tuple[str, ...], digest: str
) -> None:
    """On a failure: read what changed in nats-py, adapt `bus/raw.py`, then note the new digest."""
    source = "".join(inspect.getsource(getattr(where, name)) for name in names)
    assert digest == hashlib.sha256(source.encode()).hexdigest()[:16]
