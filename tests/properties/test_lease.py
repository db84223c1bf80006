"""Instances that hold a task under a lease, block, crash, hand back and come again: who runs it, and how often."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from switchgear.contract import limits
from switchgear.lifecycle import holding
from switchgear.lifecycle.history import History
from tests.unit.lifecycle.script import FAILURE, SCOPE, T0, Script

NAMES = st.sampled_from(["a1", "a2", "a3"])
SECONDS = st.sampled_from([4, 11, 31])
EXTEND = limits.LANE_ACK_WAIT / 3
POISON = msgspec.structs.replace(FAILURE, retryable=False, error_class="crash-loop")


class Instance:
    """What one instance believes about the task that it was delivered."""

    def __init__(self, hold: int, expect: int, since: datetime) -> None:
        self.hold = hold
        self.expect = expect
        self.extended = since
        self.blocked = False


class Lease(RuleBasedStateMachine):
    """One attempt of one task; the lease is the broker's, the holds are the ledger's."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.sequence = self.script.held()
        self.now = T0
        self.running: dict[str, Instance] = {}
        self.at: str = ""
        self.until = T0
        self.deliveries = 0
        self.deaths = 0
        """Holders that were lost without a word, as the next holder counts them."""
        self.completed: list[str] = []
        self.acked = False

    @property
    def history(self) -> History:
        """As stored now."""
        return self.script.history

    def _is_offered(self) -> bool:
        return not self.acked and (not self.at or self.now >= self.until)

    # the broker

    @precondition(lambda self: self._is_offered())
    @rule(name=NAMES)
    def lane_delivers(self, name: str) -> None:
        """To whoever pulls; who still runs it goes on."""
        if name in self.running and self.running[name].blocked:
            return
        self.deliveries += 1
        self.at, self.until = name, self.now + limits.LANE_ACK_WAIT
        begun = holding.begin(
            self.history, self.sequence, name, self.deliveries, running=name in self.running
        )
        if begun.act == "ack":
            self.running.pop(name, None)
            self._ack()
        elif begun.act == "run":
            self.running[name] = Instance(self.sequence, self.script.last, self.now)
        elif begun.act == "take-over":
            self._take_over(name, loose=begun.loose)

    def _take_over(self, name: str, *, loose: bool) -> None:
        former = self.history
        alive = any(not one.blocked for other, one in self.running.items() if other != name)
        how = "released" if loose else "alive" if alive else "crash"
        self.deaths += how == "crash"
        hold = self.script.add(
            "taken-over", hold=former.hold, writer=name, how=how, at=self.now, deliveries=9
        )
        self.running[name] = Instance(hold, hold, self.now)
        if self.history.crashes > limits.MAX_CRASHES:
            self._say(name, "attempt-failed", error=POISON)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: int) -> None:
        """Second by second: whoever is not blocked extends what it believes to hold."""
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            for name, one in self.running.items():
                if not one.blocked and self.now - one.extended >= EXTEND:
                    one.extended = self.now
                    if name == self.at:
                        self.until = self.now + limits.LANE_ACK_WAIT

    # instances

    @precondition(lambda self: self.running)
    @rule(name=NAMES, blocked=st.booleans())
    def loop_blocks_or_goes_on(self, name: str, blocked: bool) -> None:  # noqa: FBT001  # drawn
        if name in self.running:
            self.running[name].blocked = blocked

    @precondition(lambda self: self.running)
    @rule(name=NAMES)
    def instance_dies(self, name: str) -> None:
        self.running.pop(name, None)

    @precondition(lambda self: self.running)
    @rule(name=NAMES, event=st.sampled_from(["checkpoint", "checkpoint", "released", "completed"]))
    def instance_appends(self, name: str, event: str) -> None:
        if name in self.running and not self.running[name].blocked:
            self._say(name, event)

    def _say(self, name: str, event: str, **fields: Any) -> None:
        """Append with compare-and-set; after a refusal read, and go on only as holder."""
        one = self.running[name]
        if one.expect != self.script.last:
            after = holding.after_refusal(self.history, "", one.hold, name)
            one.expect = after.expect
            if after.act == "lost":
                del self.running[name]
                return
        one.expect = self.script.add(
            event, hold=one.hold, writer=name, expect=one.expect, at=self.now, **fields
        )
        assert self.history.last_valid == one.expect, self.history.voids
        if event == "checkpoint":
            return
        del self.running[name]
        if event == "completed":
            self.completed.append(name)
        if event == "released":
            self.at = ""
        elif name == self.at:
            self._ack()

    def _ack(self) -> None:
        assert self.history.live_dispatch != self.sequence
        self.acked = True

    # what holds

    @invariant()
    def one_result_and_one_holder(self) -> None:
        history = self.history
        assert len(self.completed) <= 1
        assert [name for name, one in self.running.items() if one.hold == history.hold] in (
            [],
            [history.holder],
            *([[name] for name in self.running] if history.holder is None else []),
        )
        assert history.voids == []

    @invariant()
    def a_healthy_holder_keeps_its_lease(self) -> None:
        one = self.running.get(self.at)
        if one is not None and not one.blocked and one.extended + EXTEND > self.now:
            assert self.until >= one.extended + limits.LANE_ACK_WAIT

    @invariant()
    def exactly_so_many_crashes_are_survived(self) -> None:
        history = self.history
        assert history.crashes == self.deaths
        if history.failure is not None:
            assert history.failure.error == POISON
            assert self.deaths == limits.MAX_CRASHES + 1
        elif history.position in ("held", "loose") and not history.ended:
            assert self.deaths <= limits.MAX_CRASHES

    def teardown(self) -> None:
        """Whoever holds it last finishes it; with all of them gone the lease runs out, and another begins."""
        for _ in range(8):
            self.running = {name: one for name, one in self.running.items() if not one.blocked}
            for name in list(self.running):
                self._say(name, "completed")
            self.time_passes(31)
            if self._is_offered():
                self.lane_delivers("a3")
        assert self.acked
        assert self.history.ended == "completed" or self.history.position == "failed"
        assert self.history.scope == SCOPE


Lease.TestCase.settings = settings(max_examples=max(settings().max_examples // 2, 1))
TestLease = Lease.TestCase
