"""Durable topics: messages on SG_TOPICS, each stored once by its id, read by any number of consumers.

Above it: agents' `publish`. Who reads is an intake of the source `topics` (`consumer.Work`).
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from switchgear.bus.publisher import Repeated
from switchgear.bus.pulling import Link
from switchgear.errors import ProtocolError, UsageError

PREFIX: Final = "sg.topic."
LONGEST_ID: Final = 256


class StreamTopics:
    """`port.Topics` on the stream SG_TOPICS."""

    def __init__(self, link: Link) -> None:
        self._publish = link.publisher.publish

    async def publish(
        self, subject: str, data: bytes, *, id: str, ttl: timedelta | None = None
    ) -> bool:
        """See `port.Topics.publish`; False also where the answer to our own first send got lost.

        Raises UsageError for an id that cannot stand in a header, ProtocolError, Unavailable.
        """
        if not subject.startswith(PREFIX):
            raise ProtocolError(f"{subject[:200]!r} is not a topic's subject", code="SG1107")
        checked_id(id)
        life = "" if ttl is None else f"Nats-TTL: {max(1, math.ceil(ttl.total_seconds()))}s\r\n"
        outcome = await self._publish(subject, f"NATS/1.0\r\nNats-Msg-Id: {id}\r\n{life}\r\n", data)
        return not isinstance(outcome, Repeated)


def checked_id(id: str) -> str:
    """The id itself. Raises UsageError for one that cannot stand in a header as it is."""
    if (
        not id.isascii()
        or not id.isprintable()
        or id.strip() != id
        or not 0 < len(id) <= LONGEST_ID
    ):
        raise UsageError(
            f"{id[:80]!r} cannot be the id of a message",
            fix=f"use 1 to {LONGEST_ID} printable ASCII characters, without blanks around",
        )
    return id
