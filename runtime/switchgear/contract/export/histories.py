"""Histories to test a reader with, in any language: entries as stored, and which of them count.

The validity rule is where implementations would drift apart, and a reader that believes a void
entry believes a forgery. Each case is a small scope: feed its entries to your fold and compare.
Ours is held to them as well.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw

from switchgear.contract import subjects
from switchgear.contract.entries import ENTRIES
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE, expect_headers, header_block
from switchgear.contract.values import Awaited, Failure, Retry, Route, Status

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TASK = "01kjp9e2r0f7x3v5bqz8mtd4wa"
SCOPE = subjects.scope("check-repo", "ana", TASK)
POOL = "check-repo-4f1c09d2ab"
FIRST = 101
"""Sequence of the first entry: in the stream others stand before it."""

TEXT = (
    "Each case is a whole scope in ledger order. `headers` is the raw block, `data` the body's "
    "text, `counts` says whether the entry is valid; `then` is what the fold tells after the last "
    "one: the state, the sequence that the next append expects, the live dispatch, whether the "
    "scope is a remnant, and of an open task the hold and the instance that has it."
)

_FAILURE = Failure(error_class="transient", code="SG1510", message="lost", retryable=True)
_DEFAULTS: dict[str, dict[str, Any]] = {
    "submitted": {"input": Raw(b"{}"), "digest": "0" * 64},
    "rejected": {"code": "SG1201", "reason": "unknown priority"},
    "dispatched": {
        "attempt": 1,
        "input": Raw(b"{}"),
        "route": Route(reason="the only pool that fits"),
        "retry": Retry(),
        "submitted": FIRST,
    },
    "taken-over": {"deliveries": 2, "how": "crash"},
    "released": {"why": "drain"},
    "checkpoint": {"key": "clone", "kind": "step", "ok": True, "result": Raw(b"1")},
    "waiting": {"reason": "capacity"},
    "signalled": {"name": "review", "payload": Raw(b"true")},
    "attempt-failed": {"error": _FAILURE},
    "cancel-requested": {"reason": "no longer needed"},
    "completed": {"output": Raw(b"42")},
    "dead": {"error": _FAILURE},
    "cancelled": {},
    "expired": {},
}
REVIEW = Awaited(key="review", kind="signal", begun=START, signal="review")
UNDO: dict[str, Any] = {
    "key": "withdraw",
    "kind": "undo-registered",
    "result": Raw(b'{"function":"shop:withdraw","args":[7]}'),
}
BY_FIRST: dict[str, Any] = {"hold": 102, "writer": "a-1"}
"""An entry of the dispatch's first holder."""
HELD: dict[str, Any] = {"hold": 102, "live_dispatch": 102}
"""The end of a case in which the dispatch is still held."""


class Case:
    """One scope, told entry by entry."""

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self.entries: list[dict[str, Any]] = []
        self.then: dict[str, Any] = {}
        self._last = 0
        self._next = FIRST

    def add(
        self,
        event: str,
        *,
        counts: bool = True,
        expect: int | None = None,
        headers: str | None = None,
        data: str | None = None,
        **fields: Any,
    ) -> Case:
        """The next entry; by default a sound one that expects the entry before it."""
        sequence = self._next
        expected = self._last if expect is None else expect
        block = header_block(expect_headers(expected, SCOPE)).decode()
        subject = (
            subjects.dispatched(SCOPE, POOL, "normal")
            if event == "dispatched"
            else SCOPE[:-1] + event
        )
        self.entries.append(
            {
                "sequence": sequence,
                "time": f"{START + timedelta(milliseconds=sequence - FIRST):%Y-%m-%dT%H:%M:%S.%fZ}",
                "subject": subject,
                "headers": block if headers is None else headers,
                "data": self._body(event, sequence, fields) if data is None else data,
                "counts": counts,
            }
        )
        self._last, self._next = sequence, sequence + 1
        return self

    def end(self, state: str, *, hold: int = 0, holder: str | None = None, **more: Any) -> Case:
        """What the fold tells at the end; of an ended task nobody asks who held it."""
        self.then = {
            "state": state,
            "last": self._last,
            "live_dispatch": more.get("live_dispatch", 0),
            "remnant": more.get("remnant", False),
        }
        if state not in subjects.TERMINAL:
            self.then |= {"hold": hold, "holder": holder}
        return self

    def _body(self, event: str, sequence: int, fields: dict[str, Any]) -> str:
        common: dict[str, Any] = {
            "v": 1,
            "id": f"e{sequence}",
            "task": TASK,
            "time": START,
            "writer": "someone",
            "status": Status(state="held", submitted_at=START),
        }
        entry = ENTRIES[event](**common | _DEFAULTS[event] | fields)
        return json.dumps(
            json.loads(msgspec.json.Encoder(order="deterministic").encode(entry)),
            separators=(",", ":"),
        )


def _opened(name: str, description: str) -> Case:
    """A task with sequence 101 that was dispatched at 102."""
    return Case(name, description).add("submitted").add("dispatched")


def block(*lines: str) -> str:
    """A raw header block of these lines."""
    return "\r\n".join(["NATS/1.0", *lines, "", ""])


def _lives() -> list[Case]:
    return [
        _opened("completed", "The usual life of a task.")
        .add("completed", **BY_FIRST)
        .end("completed"),
        Case("rejected", "A submission that is refused.")
        .add("submitted")
        .add("rejected")
        .end("rejected"),
        Case("waits-for-capacity", "Nobody offers the capability; then somebody does.")
        .add("submitted")
        .add("waiting")
        .add("dispatched")
        .end("held", hold=103, live_dispatch=103),
        Case("starts-later", "A task waits for its start, then for its turn, without a slot.")
        .add("submitted")
        .add("waiting", reason="start")
        .add("waiting", reason="turn")
        .add("dispatched")
        .end("held", hold=104, live_dispatch=104),
        _opened("failed-then-retried", "A failed attempt ends its hold; the next dispatch is one.")
        .add("attempt-failed", **BY_FIRST)
        .add("dispatched", attempt=2)
        .add("completed", counts=False, **BY_FIRST)
        .add("completed", hold=104, writer="a-2")
        .end("completed"),
        _opened("taken-over", "From the take-over on, the former holder's entries are void.")
        .add("checkpoint", **BY_FIRST)
        .add("taken-over", hold=102, writer="a-2", former="a-1")
        .add("completed", counts=False, **BY_FIRST)
        .add("checkpoint", counts=False, hold=104, writer="a-1")
        .add("completed", hold=104, writer="a-2")
        .end("completed"),
    ]


def _stops() -> list[Case]:
    return [
        _opened("released", "What is handed back is continued by a take-over only.")
        .add("released", **BY_FIRST)
        .add("completed", counts=False, **BY_FIRST)
        .end("loose", hold=102, holder="a-1", live_dispatch=102),
        _opened("suspended", "A holder that waits gives its hold back.")
        .add("waiting", reason="signal", waits=(REVIEW,), **BY_FIRST)
        .add("completed", counts=False, **BY_FIRST)
        .add("signalled")
        .end("waiting"),
        _opened("cancelled", "While cancelling, a holder ends the task as cancelled only.")
        .add("cancel-requested")
        .add("completed", counts=False, **BY_FIRST)
        .add("expired", counts=False, **BY_FIRST)
        .add("cancelled", **BY_FIRST)
        .end("cancelled"),
        _opened("past-deadline", "A cancel with the reason `deadline` ends as expired.")
        .add("cancel-requested", reason="deadline")
        .add("expired", **BY_FIRST)
        .end("expired"),
        _opened("ended", "Nothing counts after the end.")
        .add("completed", **BY_FIRST)
        .add("signalled", counts=False)
        .add("cancel-requested", counts=False)
        .end("completed"),
    ]


def _undos() -> list[Case]:
    return [
        _opened("undone", "While cancelling, what is recorded is undone before the end.")
        .add("checkpoint", **UNDO, **BY_FIRST)
        .add("cancel-requested")
        .add("checkpoint", key="withdraw", kind="undo-done", **BY_FIRST)
        .add("cancelled", **BY_FIRST)
        .end("cancelled"),
        _opened("undo-run", "A task that waits is dispatched once more to run its undos.")
        .add("checkpoint", **UNDO, **BY_FIRST)
        .add("waiting", reason="timer", **BY_FIRST)
        .add("cancel-requested")
        .add("dispatched", attempt=2, undoing=True)
        .add("checkpoint", key="withdraw", kind="undo-done", hold=106, writer="a-2")
        .add("cancelled", hold=106, writer="a-2")
        .end("cancelled"),
        _opened("undo-dropped", "What needs no undo any more does not call for an undo run.")
        .add("checkpoint", **UNDO, **BY_FIRST)
        .add("checkpoint", key="withdraw", kind="undo-dropped", **BY_FIRST)
        .add("attempt-failed", **BY_FIRST)
        .add("cancel-requested")
        .add("dispatched", counts=False, attempt=2)
        .end("cancelling"),
        _opened("undo-twice", "An undo is told by its key, however often it is registered.")
        .add("checkpoint", **UNDO, **BY_FIRST)
        .add("checkpoint", **UNDO, **BY_FIRST)
        .add("checkpoint", key="withdraw", kind="undo-done", **BY_FIRST)
        .add("attempt-failed", **BY_FIRST)
        .add("cancel-requested")
        .add("dispatched", counts=False, attempt=2)
        .end("cancelling"),
    ]


def _forgeries() -> list[Case]:
    number, scope = f"{EXPECTED}: 102", f"{EXPECTED_SCOPE}: {SCOPE}"
    blocks = {
        "without-headers": "",
        "without-scope": block(number),
        "foreign-scope": block(number, f"{EXPECTED_SCOPE}: sg.task.check-repo.bob.{TASK}.>"),
        "wider-scope": block(number, f"{EXPECTED_SCOPE}: {SCOPE[:-1]}*"),
        "number-repeated": block(number, f"{EXPECTED}: 7", scope),
        "number-repeated-alike": block(number, number, scope),
        "scope-repeated": block(number, scope, scope),
        "lower-case-name": block(number.lower(), scope),
        "repeated-in-lower-case": block(number, number.lower(), scope),
        "name-on-the-first-line": f"NATS/1.0 {number}\r\n{number}\r\n{scope}\r\n\r\n",
        "name-in-another-value": block(f"X-Note: {EXPECTED}", number, scope),
        "name-in-another-name": block(f"X-{EXPECTED}: 9", number, scope),
        "not-decimal": block(f"{EXPECTED}: 0x66", scope),
        "leading-zero": block(f"{EXPECTED}: 0102", scope),
        "second-space": block(f"{EXPECTED}:  102", scope),
        "signed": block(f"{EXPECTED}: +102", scope),
        "empty-number": block(f"{EXPECTED}: ", scope),
    }
    return [
        _opened(name, "Both headers must stand in the raw block once, in exact case and form.")
        .add("completed", counts=False, headers=headers, **BY_FIRST)
        .end("held", hold=102, live_dispatch=102)
        for name, headers in blocks.items()
    ] + [
        _opened("beside-other-headers", "Other headers do not matter; the space is optional.")
        .add("completed", headers=block("X-A: 1", f"{EXPECTED}:102", scope), **BY_FIRST)
        .end("completed"),
    ]


def _orders() -> list[Case]:
    return [
        _opened("over-a-void-entry", "An entry may expect a void one: it is the last in the scope.")
        .add("completed", counts=False, headers="", **BY_FIRST)
        .add("completed", **BY_FIRST)
        .end("completed"),
        _opened("before-a-void-entry", "A void entry that slipped in between does no harm.")
        .add("completed", counts=False, headers="", **BY_FIRST)
        .add("completed", expect=102, **BY_FIRST)
        .end("completed"),
        _opened("stale", "What was written before a valid entry was known is void.")
        .add("checkpoint", **BY_FIRST)
        .add("completed", counts=False, expect=102, **BY_FIRST)
        .end("held", hold=102, holder="a-1", live_dispatch=102),
        Case("opened-by-a-stranger", "A void entry can stand first; the task opens behind it.")
        .add("cancel-requested", counts=False)
        .add("submitted")
        .end("queued"),
        Case("twice", "A task is opened once.")
        .add("submitted")
        .add("submitted", counts=False)
        .end("queued"),
        Case("remnant", "The first entry expects one that is gone: nobody acts on this scope.")
        .add("completed", counts=False, expect=99, **BY_FIRST)
        .end("none", remnant=True),
    ]


def _claims() -> list[Case]:
    return [
        Case("result-of-a-queued-task", "The state does not allow it.")
        .add("submitted")
        .add("completed", counts=False, hold=101)
        .end("queued"),
        Case("waits-for-a-signal-unheld", "What never ran waits for capacity, start or turn only.")
        .add("submitted")
        .add("waiting", counts=False, reason="signal")
        .end("queued"),
        _opened("wrong-hold", "An agent's entry names the current hold.")
        .add("completed", counts=False, hold=101, writer="a-1")
        .end("held", **HELD),
        _opened("without-hold", "A result without a hold is nobody's.")
        .add("completed", counts=False, hold=0, writer="a-1")
        .end("held", **HELD),
        _opened("second-instance", "The first entry of a hold fixes its instance.")
        .add("checkpoint", **BY_FIRST)
        .add("completed", counts=False, hold=102, writer="a-2")
        .end("held", holder="a-1", **HELD),
        _opened("rejected-too-late", "What was dispatched cannot be rejected.")
        .add("attempt-failed", **BY_FIRST)
        .add("rejected", counts=False)
        .end("failed"),
        _opened("skipped-attempt", "Attempts are counted without gaps.")
        .add("attempt-failed", **BY_FIRST)
        .add("dispatched", counts=False, attempt=3)
        .end("failed"),
        _opened("nothing-to-undo", "While cancelling, only recorded undos are dispatched.")
        .add("attempt-failed", **BY_FIRST)
        .add("cancel-requested")
        .add("dispatched", counts=False, attempt=2)
        .end("cancelling"),
    ]


def _bodies() -> list[Case]:
    unreadable = {
        "not-json": "{",
        "missing-fields": '{"v":1}',
        "empty-body": "",
    }
    bad = [
        _opened(name, "A body that breaks its schema is void.")
        .add("completed", counts=False, data=data)
        .end("held", **HELD)
        for name, data in unreadable.items()
    ]
    known = _opened("", "").add("completed", hold=102, writer="a-1").entries[-1]["data"]
    return [
        *bad,
        _opened("unknown-version", "Another version is another protocol.")
        .add("completed", counts=False, data=known.replace('"v":1', '"v":2'))
        .end("held", **HELD),
        _opened("other-task", "The body belongs to another task than the subject.")
        .add("completed", counts=False, data=known.replace(TASK, "another"))
        .end("held", **HELD),
        _opened("unknown-field", "Fields that a reader does not know are ignored.")
        .add("completed", data=known.replace('"v":1', '"v":1,"new":{"a":[1]}'))
        .end("completed"),
        Case("unreadable-submission", "It opens its task all the same, to be rejected (SG1205).")
        .add("submitted", data='{"v":1,"task":"')
        .add("rejected", code="SG1205", reason="the submission cannot be read")
        .end("rejected"),
        Case("unreadable-is-not-run", "What cannot be read neither waits nor is dispatched.")
        .add("submitted", data='{"v":1,"task":"')
        .add("waiting", counts=False)
        .add("dispatched", counts=False)
        .end("queued"),
    ]


def histories() -> dict[str, Any]:
    """histories.json: all cases."""
    cases = [*_lives(), *_stops(), *_undos(), *_orders(), *_claims(), *_forgeries(), *_bodies()]
    return {
        "description": TEXT,
        "scope": SCOPE,
        "cases": [
            {
                "name": case.name,
                "description": case.description,
                "entries": case.entries,
                "then": case.then,
            }
            for case in cases
        ],
    }
