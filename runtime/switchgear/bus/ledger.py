"""The ledger's stream: compare-and-set appends, tails, histories, and the endless read of projections.

Above it: everything that decides. Reads that clients and agents may do name their target in the subject, so that
permissions can confine them; reads by body (`STREAM.MSG.GET`) are for coordinators.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from switchgear.bus import frames, reading
from switchgear.bus.asking import ApiError, decoded
from switchgear.bus.consumer import LEDGER
from switchgear.bus.publisher import Outcome
from switchgear.bus.pulling import Link
from switchgear.contract.stored import Stored
from switchgear.errors import ServerUnfit

_NO_MESSAGE: Final = 10037
_EXPECT: Final = "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: "
_SCOPE: Final = "\r\nNats-Expected-Last-Subject-Sequence-Subject: "


class StreamLedger:
    """`port.Ledger` on the stream SG_LEDGER."""

    def __init__(self, link: Link) -> None:
        self._asking = link.asking
        self._publish = link.publisher.publish
        self._link = link

    def append(
        self, subject: str, body: bytes, *, scope: str, expect: int
    ) -> asyncio.Future[Outcome]:
        """Store the body if `expect` is the scope's last sequence; sent before this returns. See `port.Ledger`."""
        return self._publish(subject, f"{_EXPECT}{expect}{_SCOPE}{scope}\r\n\r\n", body)

    async def tail(self, scope: str) -> Stored | None:
        """The newest entry by a direct get. Raises ServerUnfit, Unavailable."""
        answer = await self._asking.read(f"$JS.API.DIRECT.GET.{LEDGER}.{scope}")
        return direct_answer(answer.headers, answer.data, LEDGER)

    async def leader_tail(self, scope: str) -> Stored | None:
        """The newest entry as the stream's leader has it. Raises Unavailable."""
        return await self._leader({"last_by_subj": scope})

    async def entry(self, sequence: int) -> Stored | None:
        """The entry with this sequence, from the leader. Raises Unavailable."""
        return await self._leader({"seq": sequence}) if sequence > 0 else None

    async def _leader(self, target: dict[str, object]) -> Stored | None:
        try:
            found = await self._asking.api(f"STREAM.MSG.GET.{LEDGER}", target)
        except ApiError as error:
            if error.number == _NO_MESSAGE:
                return None
            raise
        return _from_api(found["message"])

    async def history(self, scope: str) -> list[Stored]:
        """All entries of the scope, oldest first. Raises ServerUnfit, Unavailable."""
        return await reading.everything(self._link, LEDGER, scope)

    def follow(self, after: int) -> AsyncIterator[list[Stored]]:
        """All entries beyond this sequence, in batches, without end; survives restarts of the server."""
        return reading.follow(self._link, LEDGER, after)

    async def last_sequence(self) -> int:
        """The stream's last sequence. Raises Unavailable."""
        info = await self._asking.api(f"STREAM.INFO.{LEDGER}")
        return int(info["state"]["last_seq"])


def direct_answer(headers: bytes, data: bytes, stream: str) -> Stored | None:
    """The message that a direct get answered with; None: there is none. Raises ServerUnfit."""
    if frames.status(headers) == frames.NOTHING:
        return None
    stored = frames.stored_directly(headers, data, stream)
    if stored is None:
        raise ServerUnfit(
            f"the broker answered a direct get on {stream} in an unknown form",
            why=headers[:200].decode("utf-8", "replace"),
        )
    return stored


def _from_api(message: dict[str, Any]) -> Stored:
    return Stored(
        message["subject"],
        int(message["seq"]),
        frames.time_ns(message["time"]),
        frames.whole(decoded(message.get("hdrs"))),
        decoded(message.get("data")),
    )
