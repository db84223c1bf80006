"""What a raw writer can put into a task's scope that must count for nothing: every way to break rule 1."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.integration.spine.rawwriter import (
    EVENTS,
    EXPECTED,
    EXPECTED_SCOPE,
    Raw,
    honest_headers,
)

DEEP = b"[" * 200_000
UNREADABLE = {
    "bad UTF-8": b'{"v":1,"id":"\xff\xfe"}',
    "bad UTF-8 inside a raw field": b'{"v":1,"output":"\xff"}',
    "deep nesting": DEEP,
    "deep nesting inside a raw field": b'{"v":1,"output":' + DEEP,
    "nothing": b"",
    "not JSON": b"\x00\x01",
    "no object": b"null",
    "no fields": b"{}",
}
"""Bodies that are no message of any kind."""


class Target(NamedTuple):
    """The task under attack, as it stands."""

    scope: str
    hold: int
    """Of its newest `dispatched`; 0 for none."""
    attempt: int
    ended: bool = False


async def attack(raw: Raw, target: Target) -> dict[int, str]:
    """Everything below, one after the other. Returns what was stored, by sequence."""
    stored: dict[int, str] = {}
    for kind in (unproven, misspelled, foreign, illegal, unheld, unreadable):
        stored |= {sequence: what async for what, sequence in kind(raw, target)}
    return stored


async def _last(raw: Raw, scope: str) -> int:
    newest = await raw.last(scope)
    return newest.sequence if newest else 0


Written = AsyncIterator[tuple[str, int]]


async def unproven(raw: Raw, target: Target) -> Written:
    """Every event, in the holder's name, without compare-and-set; half of it too."""
    scope = target.scope
    for event in EVENTS:
        body = raw.body(scope, event, hold=target.hold)
        yield f"no headers: {event}", await raw.store(scope[:-1] + event, body)
    last = {EXPECTED: "0"}
    subject = f"{scope[:-1]}released"
    if await raw.last(subject):
        last = {EXPECTED: str(await _last(raw, subject))}
    body = raw.body(scope, "released", hold=target.hold)
    yield "no scope in the header", await raw.store(subject, body, last)


async def misspelled(raw: Raw, target: Target) -> Written:
    """Headers that the broker does not check, or of which it checks the first only."""
    scope = target.scope
    for event in ("completed", "cancel-requested", "attempt-failed"):
        body = raw.body(scope, event, hold=target.hold)
        headers = honest_headers(await _last(raw, scope), scope)
        lower = {name.lower(): value for name, value in headers.items()}
        yield f"lower case: {event}", await raw.store(scope[:-1] + event, body, lower)
        last = await _last(raw, scope)
        lines = [f"{EXPECTED}: {last}", f"{EXPECTED_SCOPE}: {scope}"]
        for name, more in {
            "doubled": lines,
            "doubled with other values": [f"{EXPECTED}: 1", f"{EXPECTED_SCOPE}: sg.other"],
            "doubled in lower case": [line.lower() for line in lines],
        }.items():
            lines[0] = f"{EXPECTED}: {await _last(raw, scope)}"
            block = "".join(f"{line}\r\n" for line in ["NATS/1.0", *lines, *more, ""]).encode()
            yield f"{name}: {event}", await raw.store_block(scope[:-1] + event, body, block)


async def foreign(raw: Raw, target: Target) -> Written:
    """Compare-and-set on another scope, or on this one spelled otherwise."""
    scope = target.scope
    for event in ("completed", "cancel-requested", "dead"):
        body = raw.body(scope, event, hold=target.hold)
        elsewhere = honest_headers(0, "sg.task.other.mallory.none.>")
        yield f"foreign scope: {event}", await raw.store(scope[:-1] + event, body, elsewhere)
        wider = scope.rsplit(".", 2)[0] + ".>"
        for spelled in (f"{scope[:-1]}*", wider, "sg.task.>"):
            headers = honest_headers(await _last(raw, spelled), spelled)
            yield f"{spelled}: {event}", await raw.store(scope[:-1] + event, body, headers)


async def illegal(raw: Raw, target: Target) -> Written:
    """Honest appends of events that no state allows here, or that do not follow."""
    scope = target.scope
    submitted = raw.body(scope, "submitted")
    yield "submitted again", await raw.honest(scope, "submitted", submitted)
    for attempt in {target.attempt, target.attempt + 2, 99} - {0}:
        event = "dispatched.forged.normal"
        body = raw.body(scope, event, attempt=attempt)
        yield f"dispatched as attempt {attempt}", await raw.honest(scope, event, body)
    if target.hold:
        body = raw.body(scope, "rejected")
        yield "rejected after a dispatch", await raw.honest(scope, "rejected", body)
    if target.ended:
        for event in EVENTS:
            body = raw.body(scope, event, hold=target.hold, attempt=target.attempt + 1)
            yield f"after the end: {event}", await raw.honest(scope, event, body)


async def unheld(raw: Raw, target: Target) -> Written:
    """Honest appends of agents' entries under a hold that is not the task's."""
    scope = target.scope
    for event in ("completed", "attempt-failed", "checkpoint", "released", "taken-over"):
        for hold in (target.hold + 1, 10**9):
            body = raw.body(scope, event, hold=hold, attempt=target.attempt)
            yield f"hold {hold}: {event}", await raw.honest(scope, event, body)


async def unreadable(raw: Raw, target: Target) -> Written:
    """Honest appends of bodies that are no entry, and of subjects that are no event."""
    scope = target.scope
    whole = json.loads(raw.body(scope, "completed", hold=target.hold))
    bodies = {
        **UNREADABLE,
        "version 9": json.dumps({**whole, "v": 9}).encode(),
        "another task": json.dumps({**whole, "task": "other"}).encode(),
        "task with a newline": json.dumps({**whole, "task": whole["task"] + "\n"}).encode(),
        "oversize": json.dumps({**whole, "output": "x" * 600_000}).encode(),
    }
    for event in ("completed", "cancel-requested"):
        for what, body in bodies.items():
            yield f"{what}: {event}", await raw.honest(scope, event, body)
    body = raw.body(scope, "completed", hold=target.hold)
    for event in (
        "nonsense",
        "dispatched",
        "dispatched.pool.urgent",
        "completed.twice",
        "com$pleted",
    ):
        yield f"subject: {event}", await raw.honest(scope, event, body)
