"""The broker's word that a connection ended: who it was."""

from __future__ import annotations

import msgspec


class _Client(msgspec.Struct, frozen=True):
    name: str = ""


class _Ended(msgspec.Struct, frozen=True):
    """nats-server's `client_disconnect` advisory, as far as it matters."""

    client: _Client = _Client()


_decode = msgspec.json.Decoder(_Ended).decode


def lost_name(event: bytes) -> str:
    """The name of the connection that ended; empty where it had none, or the event cannot be read."""
    try:
        return _decode(event).client.name
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def loss_event(name: str) -> bytes:
    """The event for a connection of this name."""
    return msgspec.json.encode(_Ended(_Client(name)))
