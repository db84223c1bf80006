"""The object store (ADR-20): payloads above the inline limit, named by their SHA-256, verified when read.

Own code on the publisher rather than nats-py's object store, which sends its chunks one at a time. The layout is
the standard one, so `nats object` reads it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from switchgear.bus import reading
from switchgear.bus.ledger import delete, direct_answer, leader_get
from switchgear.bus.port import Refused, StoredBlob
from switchgear.bus.publisher import Outcome
from switchgear.bus.pulling import Link
from switchgear.bus.side_streams import REFRESH_AFTER
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import limits
from switchgear.contract.stored import Stored
from switchgear.errors import NotFound, ProtocolError

STREAM: Final = "OBJ_SG_BLOBS"
CHUNK: Final = 128 * limits.KIB
"""Bytes of one stored piece: the default of the other clients."""
AT_ONCE: Final = 50_000
"""Uploads whose pieces `tidy` looks at together: what it holds in memory."""

_META: Final = "$O.SG_BLOBS.M."
_PIECE: Final = "$O.SG_BLOBS.C."
_NUID: Final = re.compile("[A-Za-z0-9_-]{1,64}")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_ANY: Final = "NATS/1.0\r\n\r\n"


class ObjectBlobs:
    """`port.Blobs` on the bucket SG_BLOBS."""

    def __init__(self, link: Link, clock: Clock = SYSTEM) -> None:
        self._link = link
        self._clock = clock
        self._publish = link.publisher.publish

    async def put(self, data: bytes) -> str:
        """Store; returns the digest. Raises ProtocolError SG1103, Unavailable (full: `retry_after` set)."""
        if len(data) > limits.MAX_BLOB:
            raise ProtocolError(
                f"a blob of {len(data)} bytes", code="SG1103", why=f"{limits.MAX_BLOB} are allowed"
            )
        digest = hashlib.sha256(data).hexdigest()
        last, described = await self._look(digest)
        if (
            described is not None
            and last is not None
            and self._clock.now() - last.time < REFRESH_AFTER
        ):
            return digest
        nuid = os.urandom(11).hex()
        chunks = range(0, len(data), CHUNK)
        stored: list[asyncio.Future[Outcome]] = [
            self._publish(_PIECE + nuid, _ANY, data[at : at + CHUNK]) for at in chunks
        ]
        try:
            await asyncio.gather(*stored)
            outcome = await self._publish(
                _meta(digest),
                "NATS/1.0\r\nNats-Rollup: sub\r\nNats-Expected-Last-Subject-Sequence: "
                f"{0 if last is None else last.sequence}\r\n\r\n",
                msgspec.json.encode(_description(digest, nuid, len(data), len(chunks))),
            )
        except BaseException:
            self._purge(nuid)
            raise
        if isinstance(outcome, Refused):
            # Somebody stored the same meanwhile, or our first send did.
            _, described = await self._look(digest)
            if described is None or described["nuid"] != nuid:
                self._purge(nuid)
            if described is None:
                return await self.put(data)
        elif described is not None:
            self._purge(described["nuid"])
        return digest

    async def get(self, digest: str) -> bytes:
        """Fetch and verify. Raises NotFound, ProtocolError SG1109 for other content, Unavailable."""
        for last_try in (False, True):
            _, described = await self._look(digest)
            if described is None:
                raise NotFound(
                    f"no blob {digest}",
                    why="it was never stored, or no kept entry names it any more",
                )
            chunks = await reading.everything(
                self._link, STREAM, f"$O.SG_BLOBS.C.{described['nuid']}"
            )
            data = b"".join([chunk.data for chunk in chunks])
            if hashlib.sha256(data).hexdigest() == digest:
                return data
            if last_try:
                break
            # A writer may just have stored it anew and purged the pieces that we were reading.
        raise ProtocolError(
            f"blob {digest} has other content",
            code="SG1109",
            why="its stored bytes do not have the digest that names it",
            fix="store it again (submit with the same input); if it comes back, check who may write to SG_BLOBS",
        )

    async def list(self, after: int = 0) -> list[StoredBlob]:
        """A page of the blobs beyond this sequence, oldest put first; empty at the end. Raises Unavailable."""
        found: list[StoredBlob] = []
        async with aclosing(self._follow(_META, after)) as batches:
            async for batch in batches:
                for one in batch:
                    digest = _digest(one.subject)
                    if digest:
                        found.append(StoredBlob(digest, one.sequence, one.time_ns))
                if found or not batch:
                    break
        return found

    async def remove(self, digest: str, *, expect: int) -> bool:
        """Delete the blob if its description is still this one. Raises Unavailable.

        Its pieces wait for `tidy`: a description may name those of another blob, and nobody checks who wrote it.
        """
        found = await leader_get(self._link.asking, STREAM, {"seq": expect}) if expect > 0 else None
        if found is None or found.subject != _meta(digest):
            return False
        return await delete(self._link.asking, STREAM, expect)

    async def tidy(self, before: datetime) -> int:
        """Delete pieces stored before this time that no description names. Returns how many. Raises Unavailable."""
        gone = after = 0
        while True:
            old, after = await self._old_pieces(before, after)
            if not old:
                return gone
            # Read after the pieces were: an upload's pieces come before its description.
            await self._spare_described(old)
            for nuid in old:
                body = {"filter": _PIECE + nuid}
                answer = await self._link.asking.api(f"STREAM.PURGE.{STREAM}", body)
                gone += int(answer.get("purged", 0))

    async def _old_pieces(self, before: datetime, after: int) -> tuple[set[str], int]:
        """Uploads with pieces beyond this sequence stored before this time, and the sequence of the last one seen."""
        found: set[str] = set()
        async with aclosing(self._follow(_PIECE, after)) as batches:
            async for batch in batches:
                for one in batch:
                    if one.time >= before or len(found) >= AT_ONCE:
                        return found, after
                    after = one.sequence
                    nuid = one.subject.removeprefix(_PIECE)
                    # A raw writer may store under a wildcard: as a filter it would cover everybody's pieces.
                    if _NUID.fullmatch(nuid) is not None:
                        found.add(nuid)
                if not batch:
                    break
        return found, after

    async def _spare_described(self, nuids: set[str]) -> None:
        """Take out those that a description names."""
        async with aclosing(self._follow(_META, 0, bodies=True)) as batches:
            async for batch in batches:
                for one in batch:
                    described = _described(one.data)
                    nuids.discard(described["nuid"] if described else "")
                if not batch:
                    return

    def _follow(
        self, prefix: str, after: int, *, bodies: bool = False
    ) -> AsyncGenerator[list[Stored]]:
        followed = reading.follow(self._link, STREAM, after, filters=(f"{prefix}>",), bodies=bodies)
        return cast("AsyncGenerator[list[Stored]]", followed)

    async def _look(self, digest: str) -> tuple[Stored | None, dict[str, Any] | None]:
        """The description's message, and the description, None where the blob was deleted."""
        if _DIGEST.fullmatch(digest) is None:
            raise ProtocolError(f"{digest[:80]!r} is not a SHA-256 digest", code="SG1102")
        subject = f"$JS.API.DIRECT.GET.{STREAM}.{_meta(digest)}"
        answer = await self._link.asking.read(subject)
        last = direct_answer(answer.headers, answer.data, STREAM)
        return last, None if last is None else _described(last.data)

    def _purge(self, nuid: str) -> None:
        """Delete pieces that no description names; the janitor deletes what is left without the permission."""
        body = msgspec.json.encode({"filter": _PIECE + nuid})
        self._link.client.publish_now(f"$JS.API.STREAM.PURGE.{STREAM}", body)


def _meta(digest: str) -> str:
    return f"{_META}{base64.urlsafe_b64encode(digest.encode()).decode()}"


def _digest(meta: str) -> str:
    """What this subject describes; empty for an object that is none of ours."""
    try:
        name = base64.urlsafe_b64decode(meta.removeprefix(_META)).decode()
    except ValueError:
        return ""
    return name if _DIGEST.fullmatch(name) is not None and _meta(name) == meta else ""


def _described(data: bytes) -> dict[str, Any] | None:
    """The description; None of a deleted object, or where it cannot be read."""
    try:
        described: dict[str, Any] = msgspec.json.decode(data)
        # One with a wildcard in it would name everybody's pieces.
        named = _NUID.fullmatch(described["nuid"]) is not None
        return described if named and not described.get("deleted") else None
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None


def _description(digest: str, nuid: str, size: int, chunks: int) -> dict[str, object]:
    encoded = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()
    return {
        "name": digest,
        "bucket": "SG_BLOBS",
        "nuid": nuid,
        "size": size,
        "mtime": "0001-01-01T00:00:00Z",
        "chunks": chunks,
        "digest": f"SHA-256={encoded}",
        "options": {"max_chunk_size": CHUNK},
    }
