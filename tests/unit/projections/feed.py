"""A ledger as plain values: tasks written entry by entry, with the headers of a broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from switchgear import ids
from switchgear.contract import codec, entries, subjects
from switchgear.contract.entries import ENTRIES
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.contract.values import Failure, Parent, Retry, Route, State, Status

START = datetime(2026, 1, 1, tzinfo=UTC)
NULL = msgspec.Raw(b"null")
DIGEST = "0" * 64
BOOM = Failure(
    error_class="transient", code="SG1510", message="The Boiler exploded", retryable=True
)

DEFAULTS: dict[str, dict[str, Any]] = {
    "submitted": {"input": msgspec.Raw(b'{"secret":1}'), "digest": DIGEST, "token": "tok-en"},
    "rejected": {"code": "SG1203", "reason": "the input is bad", "path": "$.source"},
    "dispatched": {
        "attempt": 1,
        "input": msgspec.Raw(b'{"secret":1}'),
        "route": Route(reason="the only pool"),
        "retry": Retry(),
        "submitted": 1,
        "token": "tok-en",
    },
    "taken-over": {"hold": 0, "deliveries": 2, "how": "crash", "former": "agent-1"},
    "released": {"hold": 0, "why": "drain"},
    "checkpoint": {
        "hold": 0,
        "key": "build",
        "kind": "step",
        "ok": True,
        "result": msgspec.Raw(b'{"secret":2}'),
    },
    "waiting": {"reason": "retry", "detail": "attempt 1 failed"},
    "signalled": {"name": "approved", "payload": msgspec.Raw(b'{"secret":3}')},
    "attempt-failed": {"hold": 0, "error": BOOM},
    "cancel-requested": {"reason": "no longer wanted"},
    "completed": {"hold": 0, "output": msgspec.Raw(b'{"secret":4}')},
    "dead": {"error": BOOM, "reason": "all attempts failed"},
    "cancelled": {"reason": "no longer wanted"},
    "expired": {},
}


class Feed:
    """The stream: gives sequences and store times, and remembers each scope's last sequence."""

    def __init__(self, *, start: datetime = START, after: int = 0) -> None:
        self.start = start
        self.sequence = after
        self.stored: list[Stored] = []
        self.last: dict[str, int] = {}

    def put(self, subject: str, headers: bytes, data: bytes) -> Stored:
        """Store anything."""
        self.sequence += 1
        time_ns = int((self.start + timedelta(seconds=self.sequence)).timestamp()) * 10**9
        stored = Stored(subject, self.sequence, time_ns, headers, data)
        self.stored.append(stored)
        return stored

    def task(self, name: str, *, owner: str = "ann", capability: str = "lint") -> Scope:
        return Scope(self, subjects.scope(capability, owner, name), name)

    def since(self, sequence: int) -> list[Stored]:
        return [stored for stored in self.stored if stored.sequence > sequence]


class Scope:
    """One task being written."""

    def __init__(self, feed: Feed, scope: str, name: str) -> None:
        self.feed, self.scope, self.name = feed, scope, name
        self.hold = 0
        self.attempt = 0

    def add(
        self,
        event: str,
        *,
        expect: int | None = None,
        writer: str = "agent-1",
        raw: bytes | None = None,
        **fields: Any,
    ) -> Stored:
        """Append an entry as a well-behaved writer does, or with what the test says instead."""
        if event == "dispatched":
            self.attempt += 1
            fields.setdefault("attempt", self.attempt)
        values: dict[str, Any] = DEFAULTS[event] | fields
        if values.get("hold") == 0:
            values["hold"] = self.hold
        if values.get("hold"):
            values = {"token_digest": ids.digest(b"tok-en")} | values
        values |= {
            "v": entries.VERSION,
            "id": f"e{self.feed.sequence + 1}",
            "task": self.name,
            "time": START,
            "writer": writer,
            "status": Status(state="none", submitted_at=START),
        }
        entry = ENTRIES[event](**values)
        last = self.feed.last.get(self.scope, 0)
        headers = header_block(expect_headers(last if expect is None else expect, self.scope))
        end = "dispatched.main.normal" if event == "dispatched" else event
        data = codec.encode(entry) if raw is None else raw
        stored = self.feed.put(self.scope[:-1] + end, headers, data)
        self.feed.last[self.scope] = stored.sequence
        if event in ("dispatched", "taken-over"):
            self.hold = stored.sequence
        return stored

    def raw(self, event: str, data: bytes = b"{}") -> Stored:
        """Append without compare-and-set, as any permitted raw client can."""
        stored = self.feed.put(f"{self.scope[:-1]}{event}", b"", data)
        self.feed.last[self.scope] = stored.sequence
        return stored

    def finish(self) -> None:
        """The usual life of a task: four entries."""
        self.add("submitted", writer="client-1")
        self.add("dispatched", writer="coordinator-1")
        self.add("checkpoint")
        self.add("completed")


__all__ = ["BOOM", "Feed", "Parent", "Scope", "State"]
