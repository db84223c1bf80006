"""Ledger entries as watchers receive them: republished, with the broker's own headers added."""

from __future__ import annotations

from switchgear.bus import frames
from switchgear.bus.port import Message
from switchgear.contract.stored import Stored

_LEDGER = "SG_LEDGER"


def stored_of(message: Message) -> Stored | None:
    """The entry behind a live message; None where its headers leave doubt: then read the ledger.

    The broker adds its headers to whatever the writer sent, so a repeated one may be a forgery. What is judged is
    the writer's part alone, as in every other read of the entry.
    """
    headers = message.headers
    if headers.count(b"Nats-Sequence:") != 1 or headers.count(b"Nats-Time-Stamp:") != 1:
        return None
    return frames.stored_directly(headers, message.data, _LEDGER)
