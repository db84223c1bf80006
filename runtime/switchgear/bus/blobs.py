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
from datetime import timedelta
from typing import Any, Final

import msgspec

from switchgear.bus import reading
from switchgear.bus.ledger import direct_answer
from switchgear.bus.port import Refused
from switchgear.bus.publisher import Outcome
from switchgear.bus.pulling import Link
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import limits
from switchgear.contract.stored import Stored
from switchgear.errors import NotFound, ProtocolError

STREAM: Final = "OBJ_SG_BLOBS"
CHUNK: Final = 128 * limits.KIB
"""Bytes of one stored piece: the default of the other clients."""
REFRESH_AFTER: Final = timedelta(hours=12)
"""Age after which a writer stores its blob again, so that the janitor does not take it (rule 22)."""

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
            self._publish(f"$O.SG_BLOBS.C.{nuid}", _ANY, data[at : at + CHUNK]) for at in chunks
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

    async def _look(self, digest: str) -> tuple[Stored | None, dict[str, Any] | None]:
        """The description's message, and the description, None where the blob was deleted."""
        if _DIGEST.fullmatch(digest) is None:
            raise ProtocolError(f"{digest[:80]!r} is not a SHA-256 digest", code="SG1102")
        subject = f"$JS.API.DIRECT.GET.{STREAM}.{_meta(digest)}"
        answer = await self._link.asking.read(subject)
        last = direct_answer(answer.headers, answer.data, STREAM)
        if last is None:
            return None, None
        try:
            described: dict[str, Any] = msgspec.json.decode(last.data)
            return last, None if described.get("deleted") or not described.get(
                "nuid"
            ) else described
        except (msgspec.DecodeError, AttributeError):
            return last, None

    def _purge(self, nuid: str) -> None:
        """Delete pieces that no description names; the janitor deletes what is left without the permission."""
        body = msgspec.json.encode({"filter": f"$O.SG_BLOBS.C.{nuid}"})
        self._link.client.publish_now(f"$JS.API.STREAM.PURGE.{STREAM}", body)


def _meta(digest: str) -> str:
    return f"$O.SG_BLOBS.M.{base64.urlsafe_b64encode(digest.encode()).decode()}"


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
