"""Who may signal a task: the run's owner, and the members of the group that its present wait names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from switchgear.contract.values import Awaited
from switchgear.errors import Forbidden
from switchgear.lifecycle.history import History

Groups = Mapping[str, frozenset[str]]
"""Principals by the group that they belong to."""


def may_signal(
    history: History, waits: Iterable[Awaited], principal: str, name: str, groups: Groups
) -> str:
    """The group as whose member this principal may send the signal now; empty: as the run's owner.

    `waits`: what the newest `waiting` of the task names. Raises Forbidden SG1404.
    """
    asked: list[str] = []
    if history.position == "waiting" and history.ended is None and history.cancelling is None:
        asked = [one.sender for one in waits if one.kind == "signal" and one.signal == name]
    for group in asked:
        if principal in groups.get(group, ()):
            return group
    # What the owner sends as such is taken by no wait for a group.
    if principal == history.owner and ("" in asked or not asked):
        return ""
    if not any(asked):
        raise Forbidden(
            f"{principal} may not send the signal {name} to task {history.task}",
            why="the task does not wait for it from a group now",
            fix="`switchgear explain ID` tells what it waits for; its owner may signal at any time",
        )
    named = ", ".join(sorted({group for group in asked if group}))
    raise Forbidden(
        f"{principal} may not send the signal {name} to task {history.task}",
        why=f"the task waits for it from {named}, and {principal} is no member",
        fix="add the principal to the group in SWITCHGEAR_GROUPS of all coordinators",
    )
