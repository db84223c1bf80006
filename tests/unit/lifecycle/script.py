"""A task's entries as writers would make them and the broker would store them, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from switchgear.contract import codec, entries, subjects, values
from switchgear.contract.announcement import Offer
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.lifecycle import admission, routing
from switchgear.lifecycle.coordination import Decision, Stamp, View, decide
from switchgear.lifecycle.history import History, fold

TASK = "t1"
SCOPE = f"sg.task.review.alice.{TASK}.>"
T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)
DIGEST = "0" * 64
NULL = msgspec.Raw(b"null")
STATUS = values.Status(state="queued", submitted_at=T0)
FAILURE = values.Failure(error_class="transient", code="SG1510", message="it broke", retryable=True)

_DEFAULTS: dict[str, dict[str, Any]] = {
    "submitted": {"input": msgspec.Raw(b'{"source":"x"}'), "digest": DIGEST},
    "rejected": {"code": "SG1205", "reason": "no"},
    "dispatched": {
        "attempt": 1,
        "input": NULL,
        "route": values.Route(reason="the only pool that fits"),
        "retry": values.Retry(),
        "submitted": 1,
    },
    "taken-over": {"hold": 0, "deliveries": 2, "how": "crash"},
    "released": {"hold": 0, "why": "drain"},
    "checkpoint": {"hold": 0, "key": "k", "kind": "step", "ok": True, "result": NULL},
    "waiting": {"reason": "timer"},
    "signalled": {"name": "go", "payload": NULL},
    "attempt-failed": {"hold": 0, "error": FAILURE},
    "cancel-requested": {"reason": "no longer needed"},
    "completed": {"hold": 0, "output": NULL},
    "dead": {"error": FAILURE},
    "cancelled": {},
    "expired": {},
}


def entry(event: str, **fields: Any) -> entries.Entry:
    """An entry of this event; whatever it needs and is not given has a plain value."""
    common: dict[str, Any] = {
        "v": 1,
        "id": "e",
        "task": TASK,
        "time": T0,
        "writer": "i1",
        "status": STATUS,
    }
    return entries.ENTRIES[event](**(common | _DEFAULTS[event] | fields))


def subject(event: str, pool: str = "p1") -> str:
    """The event's subject in the scope of these tests."""
    stem = SCOPE[:-1]
    return f"{stem}dispatched.{pool}.normal" if event == "dispatched" else stem + event


def fits(_offer: Offer, _data: bytes) -> admission.Misfit | None:
    """The check of a schema that allows everything."""
    return None


class Script:
    """Entries of one scope, written one after another; each expects the last unless told otherwise."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []

    @property
    def last(self) -> int:
        """Sequence of the newest entry."""
        return self.stored[-1].sequence if self.stored else 0

    @property
    def history(self) -> History:
        """All of it, folded."""
        return fold(SCOPE, self.stored)

    def add(
        self,
        event: str,
        *,
        expect: int | None = None,
        headers: bytes | None = None,
        data: bytes | None = None,
        at: datetime = T0,
        sequence: int | None = None,
        **fields: Any,
    ) -> int:
        """Store one more entry. Returns its sequence."""
        expected = self.last if expect is None else expect
        number = self.last + 1 if sequence is None else sequence
        body = codec.encode(entry(event, **({"id": f"e{number}"} | fields)))
        self.stored.append(
            Stored(
                subject(event),
                number,
                int(at.timestamp()) * 1_000_000_000,
                header_block(expect_headers(expected, SCOPE)) if headers is None else headers,
                body if data is None else data,
            )
        )
        return number

    def append(self, decision: Decision, at: datetime = T0) -> Stored:
        """Store what a coordinator decided."""
        assert decision.entry is not None
        stored = Stored(
            decision.subject,
            self.last + 1,
            int(at.timestamp()) * 1_000_000_000,
            header_block(expect_headers(self.last, SCOPE)),
            codec.encode(decision.entry),
        )
        self.stored.append(stored)
        return stored

    def held(self, *, attempt: int = 1, **submission: Any) -> int:
        """Submit if need be, then dispatch. Returns the hold."""
        if not self.stored:
            self.add("submitted", **submission)
        return self.add("dispatched", attempt=attempt)

    def decide(
        self, at: datetime = T0, *, pools: Iterable[routing.Pool] | None = None, **fields: Any
    ) -> Decision:
        """What a coordinator decides about it at this time; with one pool unless told otherwise.

        It knows what a suspended handler waits for.
        """
        suspended = self.history.waiting
        fields.setdefault("waits", suspended.waits if suspended is not None else ())
        view = View(
            pools=[pool()] if pools is None else list(pools),
            check=fields.pop("check", fits),
            input=fields.pop("data", b"null"),
            **fields,
        )
        return decide(self.history, view, Stamp(f"d{self.last}", "c1", at))


def offer(name: str = "p1", version: str = "1.0.0", **fields: Any) -> Offer:
    """An offer of the capability of these tests."""
    return Offer(
        name="review",
        version=version,
        pool=name,
        input_digest=DIGEST,
        output_digest=DIGEST,
        input_schema={},
        output_schema={},
        **fields,
    )


def pool(name: str = "p1", version: str = "1.0.0", **fields: Any) -> routing.Pool:
    """A pool of one live instance with four free slots, unless told otherwise."""
    plain: dict[str, Any] = {
        "labels": {},
        "instances": 1,
        "draining": 0,
        "slots": 4,
        "free": 4,
        "retry": values.Retry(),
    }
    given = plain | fields
    offered = offer(name, version, retry=given.pop("retry"))
    return routing.Pool(offer=offered, agent=f"agent-{name}", **given)


def awaited(kind: Any, **fields: Any) -> values.Awaited:
    """A wait of this kind, under its name as the key; for the signal `go`, or a child of its own."""
    plain: dict[str, Any] = {"key": kind, "kind": kind, "begun": T0}
    if kind == "signal":
        plain["signal"] = "go"
    elif kind != "timer":
        plain |= {"capability": "review", "task": "c1"}
    return values.Awaited(**(plain | fields))


def seconds(count: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=count)


def parsed(decision: Decision) -> subjects.TaskSubject:
    """The parts of the subject that a decision appends under."""
    return subjects.parse_task(decision.subject)


def submitted(**fields: Any) -> Script:
    """A task that was just submitted."""
    script = Script()
    script.add("submitted", **fields)
    return script


def failed(error: values.Failure = FAILURE, *, retry: values.Retry | None = None) -> Script:
    """A task whose first attempt failed."""
    script = submitted()
    hold = script.add("dispatched", retry=retry or values.Retry())
    script.add("attempt-failed", hold=hold, error=error)
    return script


def settled(script: Script, decision: Decision) -> Decision:
    """Append what was decided: it must count; return what is decided then."""
    script.append(decision)
    assert script.history.last_valid == script.last, script.history.voids
    again = script.decide()
    if again.entry is not None and decision.entry is not None:
        assert type(again.entry) is not type(decision.entry)
    return again
