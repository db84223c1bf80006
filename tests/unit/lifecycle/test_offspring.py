"""Which children a history names."""

from __future__ import annotations

from typing import Any

import msgspec

from switchgear.contract.values import Awaited
from switchgear.lifecycle.offspring import Child, named
from tests.unit.lifecycle.script import T0, Script


def result(**fields: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(fields))


def child(key: str, task: str) -> Awaited:
    return Awaited(key=key, kind="child", begun=T0, capability="check", task=task)


def test_submitted_children_are_named_by_their_checkpoints() -> None:
    """But not those that outlive the task, nor what cannot be read."""
    script = Script()
    hold = script.held()
    for key, value in {
        "a": result(task="t-a", capability="check"),
        "b": result(task="t-b", capability="check", detached=True),
        "c": result(task="not a token", capability="check"),
        "d": msgspec.Raw(b"[]"),
    }.items():
        script.add("checkpoint", hold=hold, key=key, kind="submit", result=value)
    assert list(named(script.history, ())) == [Child("check", "t-a")]


def test_awaited_children_are_named_until_their_wait_is_recorded() -> None:
    """A recorded result came from children that have ended; a recorded failure says nothing of them."""
    script = Script()
    hold = script.held()
    script.add("checkpoint", hold=hold, key="done", kind="call")
    script.add("checkpoint", hold=hold, key="broken", kind="call", ok=False)
    waits = [child("done", "t-1"), child("broken", "t-2"), child("open", "t-3")]
    assert set(named(script.history, waits)) == {Child("check", "t-2"), Child("check", "t-3")}


def test_children_of_a_map_are_named_by_index() -> None:
    """Once, however often the task waited for them; timers and signals name nobody."""
    script = Script()
    script.held()
    wait = Awaited(key="m", kind="children", begun=T0, capability="check", task="t", count=3)
    timer = Awaited(key="s", kind="timer", begun=T0)
    assert list(named(script.history, [wait, timer, wait])) == [
        Child("check", f"t-{index}") for index in range(3)
    ]
