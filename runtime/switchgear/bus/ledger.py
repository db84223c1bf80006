"""The ledger's stream: compare-and-set appends, tails, histories, and the endless read of projections.

Above it: everything that decides. Reads that clients and agents may do name their target in the subject, so that
permissions can confine them; reads by body (`STREAM.MSG.GET`) are for coordinators.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from switchgear.bus import frames, reading, streams
from switchgear.bus.asking import ApiError, Asking, decoded
from switchgear.bus.durable import LEDGER
from switchgear.bus.port import Room
from switchgear.bus.publisher import Outcome
from switchgear.bus.pulling import MISSING, Link
from switchgear.contract.stored import Stored
from switchgear.errors import ServerUnfit, Unavailable

_NO_MESSAGE: Final = 10037
_NO_SEQUENCE: Final = 10043
_NOT_DELETED: Final = 10057
_GONE: Final = ("EOF", "not found", "no message", "deleted message")
"""What the text of 10057 says of a message that is not there, as opposed to one that cannot be deleted."""
_BEYOND: Final = 2**31 - 1
"""More subjects than any stream has: a page that begins there lists none of them, and still counts all."""
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
        return await leader_get(self._asking, LEDGER, {"last_by_subj": scope})

    async def entry(self, sequence: int) -> Stored | None:
        """The entry with this sequence, from the leader. Raises Unavailable."""
        if sequence <= 0:
            return None
        return await leader_get(self._asking, LEDGER, {"seq": sequence})

    async def history(self, scope: str) -> list[Stored]:
        """All entries of the scope, oldest first. Raises ServerUnfit, Unavailable."""
        return await reading.everything(self._link, LEDGER, scope)

    def follow(
        self, after: int, *, filters: Iterable[str] = (), bodies: bool = True
    ) -> AsyncIterator[list[Stored]]:
        """All entries beyond this sequence, in batches, without end; survives restarts of the server."""
        return reading.follow(self._link, LEDGER, after, filters=tuple(filters), bodies=bodies)

    async def last_sequence(self) -> int:
        """The stream's last sequence. Raises Unavailable."""
        return int((await self._info())["state"]["last_seq"])

    async def first_sequence(self) -> int:
        """The sequence of the oldest entry; last + 1 of an empty ledger. Raises Unavailable."""
        state = (await self._info())["state"]
        return int(state["first_seq"]) if state["messages"] else int(state["last_seq"]) + 1

    async def count(self, subject_filter: str) -> int:
        """How many subjects match; the broker visits each, and sends none. Raises Unavailable."""
        body = {"subjects_filter": subject_filter, "offset": _BEYOND}
        info = await self._asking.api(f"STREAM.INFO.{LEDGER}", body)
        return int(info.get("total", 0))

    async def delete(self, sequence: int) -> bool:
        """Delete one entry; False where it was gone, or an answer got lost after it went. Raises Unavailable."""
        return await delete(self._asking, LEDGER, sequence)

    async def room(self) -> Room:
        """How full the ledger is. Raises Unavailable."""
        info = await self._info()
        return Room(int(info["state"]["bytes"]), max(0, int(info["config"]["max_bytes"])))

    async def enlarge(self, limit: int) -> None:
        """Set the limit in bytes (0: none); deletes nothing. Raises ServerUnfit (no room), Unavailable."""
        await streams.enlarge(self._asking, LEDGER, limit)

    async def _info(self) -> dict[str, Any]:
        """The stream, as the broker has it. Raises Unavailable, also as long as there is none."""
        try:
            return await self._asking.api(f"STREAM.INFO.{LEDGER}")
        except ApiError as error:
            if error.number not in MISSING:
                raise
            raise Unavailable(
                "the broker has no ledger",
                why="no coordinator has made one yet",
                fix="start a coordinator: `switchgear coordinator`, or all of a mesh: `switchgear dev`",
            ) from error


async def leader_get(asking: Asking, stream: str, target: dict[str, object]) -> Stored | None:
    """A message as the stream's leader has it; None: there is none. Raises Unavailable."""
    try:
        found = await asking.api(f"STREAM.MSG.GET.{stream}", target)
    except ApiError as error:
        if error.number == _NO_MESSAGE:
            return None
        raise
    return _from_api(found["message"])


async def delete(asking: Asking, stream: str, sequence: int) -> bool:
    """Delete one message; False where it was gone, or an answer got lost after it went. Raises Unavailable."""
    body = {"seq": sequence, "no_erase": True}
    try:
        await asking.api(f"STREAM.MSG.DELETE.{stream}", body)
    except ApiError as error:
        gone = error.number == _NOT_DELETED and any(text in error.text for text in _GONE)
        if gone or error.number == _NO_SEQUENCE:
            return False
        raise
    return True


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
