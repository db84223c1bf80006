"""Who may signal a task that waits."""

from __future__ import annotations

from typing import Any

import pytest

from switchgear.contract.values import Awaited
from switchgear.errors import Forbidden
from switchgear.lifecycle.signalling import may_signal
from tests.unit.lifecycle.script import T0, Script

GROUPS = {"approvers": frozenset({"bob", "carol"}), "ops": frozenset({"dan"})}


def waiting(*waits: Awaited) -> Script:
    script = Script()
    hold = script.held()
    script.add("waiting", hold=hold, reason="signal", waits=waits)
    return script


def signal(name: str = "approve", sender: str = "approvers") -> Awaited:
    return Awaited(key=name, kind="signal", begun=T0, signal=name, sender=sender)


def test_a_member_of_the_awaited_group_may() -> None:
    """And signals as the group, not as the owner."""
    script = waiting(signal())
    waits = script.history.waiting.waits if script.history.waiting else ()
    assert may_signal(script.history, waits, "bob", "approve", GROUPS) == "approvers"


def test_the_owner_may_at_any_time() -> None:
    """Early signals are kept."""
    script = Script()
    script.held()
    owner = script.history.owner
    assert may_signal(script.history, (), owner, "anything", GROUPS) == ""
    waits = waiting(signal(sender=""))
    assert may_signal(waits.history, [signal(sender="")], owner, "approve", GROUPS) == ""


def test_the_owner_is_no_group_but_may_be_a_member_of_one() -> None:
    """What it sends as the owner no wait for a group would take, so it is told."""
    script = waiting(signal())
    owner = script.history.owner
    with pytest.raises(Forbidden, match="no member"):
        may_signal(script.history, [signal()], owner, "approve", GROUPS)
    groups = {"approvers": frozenset({owner})}
    assert may_signal(script.history, [signal()], owner, "approve", groups) == "approvers"
    both = [signal(), signal(sender="")]
    assert may_signal(script.history, both, owner, "approve", GROUPS) == ""


@pytest.mark.parametrize(
    ("principal", "name", "wait"),
    [
        ("dan", "approve", signal()),
        ("bob", "approve", signal(sender="")),
        ("bob", "other", signal()),
        ("bob", "approve", signal(sender="nobody-knows-it")),
        ("", "approve", signal(sender="")),
    ],
)
def test_nobody_else_may(principal: str, name: str, wait: Awaited) -> None:
    """Not members of other groups, not for other signals, not where the owner is asked."""
    script = waiting(wait)
    with pytest.raises(Forbidden) as caught:
        may_signal(script.history, [wait], principal, name, GROUPS)
    assert caught.value.code == "SG1404"
    assert caught.value.fix


@pytest.mark.parametrize("event", ["dispatched", "cancel-requested"])
def test_a_wait_that_is_over_asks_nobody(event: str) -> None:
    """A task that runs again, or is being cancelled, does not wait."""
    script = waiting(signal())
    fields: dict[str, Any] = {"attempt": 2} if event == "dispatched" else {}
    script.add(event, **fields)
    with pytest.raises(Forbidden):
        may_signal(script.history, [signal()], "bob", "approve", GROUPS)
