"""A raw NATS client that is permitted to publish: writes entries by hand, knows nothing of the SDK."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tests.conformance.nats_backend import raw_request
from tests.patience import PATIENCE

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SCOPE = "Nats-Expected-Last-Subject-Sequence-Subject"
LEDGER = "SG_LEDGER"
NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


class Entry(NamedTuple):
    """An entry as the stream has it."""

    subject: str
    sequence: int
    data: bytes

    @property
    def event(self) -> str:
        """The event of its subject."""
        return self.subject.split(".")[5]


class Raw:
    """One raw connection."""

    def __init__(self, url: str, client: Client) -> None:
        self._url = url
        self.client = client
        stream: Any = client
        self._stream: JetStreamContext = stream.jetstream()
        self._ids = itertools.count(1)

    async def request(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """One answer, as JSON."""
        answer = await self.client.request(subject, data, timeout=PATIENCE, headers=headers)
        return json.loads(answer.data)

    async def store(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Publish into a stream; the sequence, or an AssertionError with the broker's refusal."""
        answer = await self.request(subject, data, headers)
        assert "error" not in answer, (subject, headers, answer)
        return int(answer["seq"])

    async def store_block(self, subject: str, data: bytes, headers: bytes) -> int:
        """The same over a bare socket, with any header block: nats-py can send no name twice."""
        answer = json.loads(await raw_request(self._url, subject, headers, data))
        assert "error" not in answer, (subject, headers, answer)
        return int(answer["seq"])

    async def last(self, subject_filter: str) -> Entry | None:
        """The newest entry under a filter, from the leader."""
        try:
            found = await self._stream.get_last_msg(LEDGER, subject_filter)
        except NotFoundError:
            return None
        return Entry(found.subject or "", found.seq or 0, found.data or b"")

    async def entries(self, scope: str) -> list[Entry]:
        """All entries of a scope, oldest first."""
        found, sequence = list[Entry](), 1
        while True:
            try:
                one = await self._stream.get_msg(LEDGER, sequence, subject=scope, next=True)
            except NotFoundError:
                return found
            assert one.seq is not None
            found.append(Entry(one.subject or "", one.seq, one.data or b""))
            sequence = one.seq + 1

    async def honest(self, scope: str, event: str, data: bytes) -> int:
        """Append as rule 1 wants it: expecting the newest entry of the scope."""
        newest = await self.last(scope)
        return await self.store(
            scope[:-1] + event, data, honest_headers(newest.sequence if newest else 0, scope)
        )

    async def consumer(self, stream: str, name: str) -> dict[str, int]:
        """What the server counts for a consumer."""
        info = await self.request(f"$JS.API.CONSUMER.INFO.{stream}.{name}", b"")
        keys = ("num_pending", "num_ack_pending", "num_waiting")
        return {key: int(info[key]) for key in keys}

    def body(self, scope: str, event: str, **fields: Any) -> bytes:
        """A plausible entry of this event, as JSON written by hand."""
        common = {
            "v": 1,
            "id": f"raw-{next(self._ids)}",
            "task": scope.split(".")[4],
            "time": NOW,
            "writer": "mallory",
            "status": {"state": "queued", "submitted_at": NOW},
        }
        return json.dumps({**common, **FIELDS[event.split(".", 1)[0]], **fields}).encode()


def honest_headers(last: int, scope: str) -> dict[str, str]:
    """The headers of an honest append."""
    return {EXPECTED: str(last), EXPECTED_SCOPE: scope}


async def connected(url: str) -> Client:
    """A connection of nats-py's own, which does not come back when it is lost."""
    client: Any = Client()
    async with asyncio.timeout(PATIENCE):
        await client.connect(url, allow_reconnect=False, connect_timeout=PATIENCE)
    return client


async def raw_client(url: str) -> Raw:
    """Connect; close it with `raw.client.close()`."""
    return Raw(url, await connected(url))


_FAILURE = {"error_class": "bug", "code": "SG1510", "message": "forged"}
FIELDS: dict[str, dict[str, Any]] = {
    "submitted": {"input": {"text": "forged"}, "digest": "0" * 64},
    "rejected": {"code": "SG1204", "reason": "forged"},
    "dispatched": {
        "attempt": 1,
        "input": {"text": "forged"},
        "route": {"reason": "forged"},
        "retry": {},
        "submitted": 1,
    },
    "taken-over": {"hold": 1, "deliveries": 2, "how": "crash"},
    "released": {"hold": 1, "why": "drain"},
    "checkpoint": {"hold": 1, "key": "k", "kind": "step", "ok": True, "result": None},
    "waiting": {"reason": "capacity"},
    "signalled": {"name": "go", "payload": None},
    "attempt-failed": {"hold": 1, "error": _FAILURE},
    "cancel-requested": {"reason": "forged"},
    "completed": {"hold": 1, "output": {"text": "forged"}},
    "dead": {"error": _FAILURE},
    "cancelled": {"reason": "forged"},
    "expired": {},
}
"""What each event carries beside the common fields."""
EVENTS = [event if event != "dispatched" else "dispatched.forged.normal" for event in FIELDS]
"""What stands at the end of each subject."""
