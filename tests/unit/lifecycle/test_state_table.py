"""Every cell of the protocol's state table, against a transcription of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.lifecycle.script import Script

# state -> who -> which events; transcribed from the document, not from the code.
TABLE: dict[str, dict[str, str]] = {
    "none": {"client": "submitted"},
    "queued": {
        "client": "signalled cancel-requested",
        "coordinator": "dispatched waiting rejected expired cancelled",
    },
    "held": {
        "client": "signalled cancel-requested",
        "holder": "checkpoint waiting released attempt-failed completed",
        "next holder": "taken-over",
        "coordinator": "dispatched waiting expired cancelled",
    },
    "loose": {
        "client": "signalled cancel-requested",
        "next holder": "taken-over",
        "coordinator": "dispatched waiting expired cancelled",
    },
    "failed": {
        "client": "signalled cancel-requested",
        "coordinator": "dispatched waiting dead expired cancelled",
    },
    "waiting": {
        "client": "signalled cancel-requested",
        "coordinator": "dispatched waiting dead expired cancelled",
    },
    "waiting, never dispatched": {
        "client": "signalled cancel-requested",
        "coordinator": "dispatched waiting dead rejected expired cancelled",
    },
    "cancelling, unheld": {
        "client": "signalled cancel-requested",
        "coordinator": "expired cancelled",
    },
    "cancelling, unheld, undos": {
        "client": "signalled cancel-requested",
        "coordinator": "dispatched expired cancelled",
    },
    "cancelling, held": {
        "client": "signalled cancel-requested",
        "holder": "checkpoint released cancelled",
        "next holder": "taken-over",
        "coordinator": "expired cancelled",
    },
    "cancelling by deadline, held": {
        "client": "signalled cancel-requested",
        "holder": "checkpoint released cancelled expired",
        "next holder": "taken-over",
        "coordinator": "expired cancelled",
    },
    "cancelling, loose": {
        "client": "signalled cancel-requested",
        "next holder": "taken-over",
        "coordinator": "expired cancelled",
    },
    "ended": {},
}

EVENTS = [
    "submitted",
    "rejected",
    "dispatched",
    "taken-over",
    "released",
    "checkpoint",
    "waiting",
    "signalled",
    "attempt-failed",
    "cancel-requested",
    "completed",
    "dead",
    "cancelled",
    "expired",
]
AGENTS_ONLY = {"released", "checkpoint", "attempt-failed", "completed"}
EITHER = {"waiting", "cancelled", "expired"}


def _none(_script: Script) -> None:
    pass


def _queued(script: Script) -> None:
    script.add("submitted")


def _held(script: Script) -> None:
    hold = script.held()
    script.add("checkpoint", hold=hold)


def _dispatched(script: Script) -> None:
    script.held()


def _taken_over(script: Script) -> None:
    script.add("taken-over", hold=script.held())


def _loose(script: Script) -> None:
    script.add("released", hold=script.held())


def _failed(script: Script) -> None:
    script.add("attempt-failed", hold=script.held())


def _waiting(script: Script) -> None:
    script.add("waiting", hold=script.held())


def _waiting_by_coordinator(script: Script) -> None:
    script.held()
    script.add("waiting", reason="capacity")


def _never_dispatched(script: Script) -> None:
    script.add("submitted")
    script.add("waiting", reason="capacity")


def _retrying(script: Script) -> None:
    _failed(script)
    script.add("waiting", reason="retry")


def _undo(then: str) -> Callable[[Script], None]:
    def build(script: Script) -> None:
        hold = script.held()
        script.add("checkpoint", hold=hold, kind="undo-registered")
        script.add(then, hold=hold)

    return build


def _undone(script: Script) -> None:
    hold = script.held()
    script.add("checkpoint", hold=hold, kind="undo-registered")
    script.add("checkpoint", hold=hold, kind="undo-done")
    script.add("waiting", hold=hold)


def _cancelled_in(
    build: Callable[[Script], None], reason: str = "enough"
) -> Callable[[Script], None]:
    def cancelled(script: Script) -> None:
        build(script)
        script.add("cancel-requested", reason=reason)

    return cancelled


def _ended(event: str) -> Callable[[Script], None]:
    def build(script: Script) -> None:
        script.add("submitted")
        if event == "rejected":
            script.add("rejected")
            return
        hold = script.add("dispatched")
        if event == "dead":
            script.add("attempt-failed", hold=hold)
        fields: dict[str, Any] = {"hold": hold} if event == "completed" else {}
        script.add(event, **fields)

    return build


WAYS: dict[str, tuple[str, Callable[[Script], None]]] = {
    "nothing": ("none", _none),
    "submitted": ("queued", _queued),
    "dispatched": ("held", _dispatched),
    "checkpoint": ("held", _held),
    "taken-over": ("held", _taken_over),
    "released": ("loose", _loose),
    "attempt-failed": ("failed", _failed),
    "waiting by its holder": ("waiting", _waiting),
    "waiting by a coordinator": ("waiting", _waiting_by_coordinator),
    "waiting before any dispatch": ("waiting, never dispatched", _never_dispatched),
    "waiting for a retry": ("waiting", _retrying),
    "cancel of queued": ("cancelling, unheld", _cancelled_in(_queued)),
    "cancel of failed": ("cancelling, unheld", _cancelled_in(_failed)),
    "cancel of waiting": ("cancelling, unheld", _cancelled_in(_waiting)),
    "cancel with undos done": ("cancelling, unheld", _cancelled_in(_undone)),
    "cancel of waiting with undos": ("cancelling, unheld, undos", _cancelled_in(_undo("waiting"))),
    "cancel of failed with undos": (
        "cancelling, unheld, undos",
        _cancelled_in(_undo("attempt-failed")),
    ),
    "cancel of dispatched": ("cancelling, held", _cancelled_in(_dispatched)),
    "cancel of held": ("cancelling, held", _cancelled_in(_held)),
    "cancel of taken-over": ("cancelling, held", _cancelled_in(_taken_over)),
    "deadline of held": ("cancelling by deadline, held", _cancelled_in(_held, "deadline")),
    "cancel of released": ("cancelling, loose", _cancelled_in(_loose)),
    "cancel of released with undos": ("cancelling, loose", _cancelled_in(_undo("released"))),
    "rejected": ("ended", _ended("rejected")),
    "completed": ("ended", _ended("completed")),
    "dead": ("ended", _ended("dead")),
    "cancelled": ("ended", _ended("cancelled")),
    "expired": ("ended", _ended("expired")),
}


def _roles(event: str) -> list[str]:
    """Who could have written such an entry, as far as its shape tells."""
    if event in AGENTS_ONLY:
        return ["holder", "stranger", "coordinator"]
    if event in EITHER:
        return ["holder", "stranger", "coordinator"]
    if event == "taken-over":
        return ["next holder"]
    return ["client" if event in ("submitted", "signalled", "cancel-requested") else "coordinator"]


CELLS = [(way, event, role) for way in WAYS for event in EVENTS for role in _roles(event)]


def _fields(script: Script, event: str, role: str) -> dict[str, Any]:
    before = script.history
    fields: dict[str, Any] = {}
    if role in ("holder", "stranger", "next holder"):
        fields["hold"] = before.hold or 2
        fields["writer"] = "i1" if role == "holder" else "i9"
    if event == "dispatched":
        fields["attempt"] = before.attempt + 1
    if event == "waiting" and role == "coordinator":
        fields["reason"] = "capacity"
    return fields


@pytest.mark.parametrize(("way", "event", "role"), CELLS, ids=[" · ".join(one) for one in CELLS])
def test_an_entry_counts_exactly_where_the_table_has_it(way: str, event: str, role: str) -> None:
    """A void entry leaves everything as it was but the number that the next append expects."""
    row, build = WAYS[way]
    script = Script()
    build(script)
    before = script.history
    assert before.voids == []
    script.add(event, **_fields(script, event, role))
    after = script.history
    # Who comes first fixes the instance of a hold: a stranger is the holder where none is known.
    fresh = before.holder is None and before.position == "held"
    acting = "holder" if role == "stranger" and fresh else role
    legal = event in TABLE[row].get(acting, "").split()
    assert legal == (after.voids == []), after.voids
    assert legal == (after.last_valid == script.last)
    assert after.last == script.last
    if not legal:
        assert (after.state, after.hold, after.holder, after.attempt) == (
            before.state,
            before.hold,
            before.holder,
            before.attempt,
        )


STATES = {
    "nothing": "none",
    "submitted": "queued",
    "dispatched": "held",
    "released": "loose",
    "attempt-failed": "failed",
    "waiting by its holder": "waiting",
    "cancel of held": "cancelling",
    "rejected": "rejected",
    "completed": "completed",
    "dead": "dead",
    "cancelled": "cancelled",
    "expired": "expired",
}


@pytest.mark.parametrize(("way", "state"), STATES.items())
def test_the_state_that_people_read_is_the_tables(way: str, state: str) -> None:
    """One word tells where a task is."""
    script = Script()
    WAYS[way][1](script)
    assert script.history.state == state
    assert script.history.is_open == (WAYS[way][0] not in ("none", "ended"))
