"""Forgers: whoever may write into the scope writes what no honest writer would; nothing of it counts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from switchgear.contract import codec
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE, expect_headers, header_block
from tests.properties.mesh_agents import World
from tests.unit.lifecycle.script import SCOPE, entry, subject

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
_FOREIGN = "sg.task.review.alice.t2.>"


def forged(kind: str, expected: int) -> bytes:
    """Header blocks with which the broker stores a message unchecked, or checks another scope or number."""
    good = header_block(expect_headers(expected, SCOPE))
    hidden = f"X: {EXPECTED}{EXPECTED_SCOPE}{EXPECTED_SCOPE}\r\n".encode()
    return {
        "none": b"",
        "lower case": good.lower(),
        "doubled": good[:-2] + good[10:],
        "foreign scope": header_block(expect_headers(0, _FOREIGN)),
        "hidden from the broker": b"NATS/1.0\r\n" + hidden + good[10:],
        "without a first line": good[10:].replace(
            EXPECTED_SCOPE.encode(),
            f"X: {EXPECTED_SCOPE}{EXPECTED_SCOPE}\r\n{EXPECTED_SCOPE}".encode(),
        ),
    }[kind]


FORGERIES = [
    "none",
    "lower case",
    "doubled",
    "foreign scope",
    "hidden from the broker",
    "without a first line",
]


class Forgers(RuleBasedStateMachine):
    """Two kinds: those whose headers prove nothing, and those whose entry is illegal."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(
        event=st.sampled_from(EVENTS),
        kind=st.sampled_from(FORGERIES),
        hold=st.booleans(),
        readable=st.booleans(),
    )
    def forger_appends_unchecked(self, event: str, kind: str, hold: bool, readable: bool) -> None:  # noqa: FBT001
        world = self.world
        one = self._forgery(event, world.model.hold if hold else 0)
        truth = world.truth(one, event, None)
        data = codec.encode(one) if readable else b"\xff"
        world.store(subject(event), data, forged(kind, world.last), truth)

    @rule(
        events=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=6),
        offset=st.sampled_from([-1, 0, 0, 1]),
        later=st.sampled_from([0, 1, 1, 2]),
        behind=st.sampled_from([0, 0, 0, 1, 2]),
        writer=st.sampled_from(["a9", "a1"]),
        readable=st.sampled_from([True, True, True, False]),
    )
    def forger_appends_what_is_illegal(  # all drawn
        self,
        events: list[str],
        offset: int,
        later: int,
        behind: int,
        writer: str,
        readable: bool,  # noqa: FBT001
    ) -> None:
        """With headers as they should be, but nothing that the table, the holds and the chain allow."""
        world = self.world
        for event in events:
            expected = max(world.last - behind, 0)
            one = self._forgery(event, max(world.model.hold + offset, 0), later, writer)
            truth = world.truth(one, event, expected)._replace(readable=readable)
            if world.model.counts(truth):
                continue
            data = codec.encode(one) if readable else b"{"
            world.store(subject(event), data, header_block(expect_headers(expected, SCOPE)), truth)

    def _forgery(self, event: str, hold: int, later: int = 1, writer: str = "a9") -> Any:
        fields: dict[str, Any] = {"writer": writer}
        if event in ("dispatched", "waiting", "cancelled", "expired"):
            fields["attempt"] = max(self.world.model.attempt + later, 1)
        plain = entry(event, **fields)
        return entry(event, hold=hold, **fields) if hasattr(plain, "hold") else plain
