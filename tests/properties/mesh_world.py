"""A mesh of one task, in memory: a broker with compare-and-set, coordinators, time, and the tasks around it.

Appends are in flight until somebody lets them land, in any order, so every interleaving of honest writers with
each other and with forgers can be drawn. Below are the pure decisions alone; the world is their shell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from switchgear.contract import codec, entries, subjects
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.lifecycle import coordination
from switchgear.lifecycle.coordination import (
    Arm,
    CancelChildren,
    Effect,
    Stamp,
    TellHolder,
    View,
    Wake,
)
from switchgear.lifecycle.history import History, fold
from switchgear.lifecycle.suspension import Condition
from tests.properties.judge import Judge
from tests.properties.task_model import Model, Truth
from tests.unit.lifecycle.script import SCOPE, T0, fits, pool

CONSUMED = {"submitted", "attempt-failed", "waiting", "signalled", "cancel-requested"}
"""What a coordinator's intake delivers."""


@dataclass(eq=False)
class Message:
    """What a coordinator holds until it is acked: of an intake, or (`lane`) of the lane of a pool that is gone."""

    due: str = ""
    rechecks: int = 0
    lane: int = 0
    taken: bool = False


@dataclass(eq=False)
class Lane:
    """A `dispatched` as its lane's consumer has it."""

    deliveries: int = 0
    at: str = ""
    """The instance that it was delivered to last; empty while anybody may pull it."""
    acked: bool = False


@dataclass(eq=False)
class Run:
    """A task that an instance runs."""

    sequence: int
    hold: int
    expect: int
    told: str = ""
    undoing: bool = False
    """The handler is not run (any more), only the undos."""


@dataclass(eq=False)
class Flight:
    """An append that was sent."""

    writer: str
    subject: str
    entry: entries.Entry
    expect: int
    message: Message | None = None
    run: Run | None = None
    then: tuple[Effect, ...] = ()


@dataclass
class Mesh:
    """Everything that the actors share."""

    now: datetime = T0
    log: list[Stored] = field(default_factory=list[Stored])
    model: Model = field(default_factory=Model)
    judge: Judge = field(default_factory=Judge)
    seen: History = field(default_factory=lambda: History(SCOPE))
    """The incremental reader."""
    intake: list[Message] = field(default_factory=list[Message])
    timers: dict[str, Arm] = field(default_factory=dict[str, Arm])
    lanes: dict[int, Lane] = field(default_factory=dict[int, Lane])
    flights: list[Flight] = field(default_factory=list[Flight])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    staffed: bool = True
    deadline: datetime | None = None
    before_open: bool = False
    over_budget: timedelta | None = None
    children: dict[str, Condition] = field(default_factory=dict[str, Condition])
    """How the children stand that the task waits for, by key."""
    wakes: set[str] = field(default_factory=set[str])
    """What was told of this task's end: `child` its parent, `turn` the task after it."""
    ids: int = 0

    @property
    def last(self) -> int:
        """Sequence of the newest entry."""
        return self.log[-1].sequence if self.log else 0

    @property
    def history(self) -> History:
        """The whole scope, read anew."""
        return fold(SCOPE, self.log)

    def fresh_id(self) -> str:
        """An id that no entry has yet."""
        self.ids += 1
        return f"e{self.ids}"

    # the broker

    def store(self, where: str, data: bytes, headers: bytes, truth: Truth) -> int:
        """Keep a message, and hand it to whoever consumes such."""
        nanoseconds = int((self.now - T0) / timedelta(microseconds=1)) * 1000
        nanoseconds += int(T0.timestamp()) * 10**9
        stored = Stored(where, truth.sequence, nanoseconds, headers, data)
        self.log.append(stored)
        counts = self.model.take(truth)
        assert counts == (self.seen.add(stored) == ""), (truth, self.model, self.seen.voids)
        if counts and len(self.seen.valid) and self.seen.valid[-1].stored is stored:
            self.judge.stored(self.seen.valid[-1].entry, truth.sequence, self.now)
        if truth.event in CONSUMED:
            self.intake.append(Message())
        elif truth.event == "dispatched":
            self.lanes[truth.sequence] = Lane()
        return truth.sequence

    def truth(self, one: entries.Entry, event: str, expected: int | None) -> Truth:
        """What an append of this entry now would be."""
        return Truth(
            self.last + 1 + self.ids % 2,
            event,
            expected,
            hold=getattr(one, "hold", 0),
            writer=one.writer,
            attempt=getattr(one, "attempt", 0),
            detail=getattr(one, "kind", "") or getattr(one, "reason", ""),
            key=getattr(one, "key", ""),
            failed=getattr(one, "error", None) is not None,
        )

    def land(self, flight: Flight, *, answered: bool = True) -> None:
        """The broker takes or refuses an append; an unanswered one is sent again, the same bytes."""
        if flight.expect == self.last:
            event = subjects.parse_task(flight.subject).event
            truth = self.truth(flight.entry, event, flight.expect)
            headers = header_block(expect_headers(flight.expect, SCOPE))
            sequence = self.store(flight.subject, codec.encode(flight.entry), headers, truth)
            # What a coordinator decided on the newest history is legal, always.
            assert flight.message is None or self.model.valid == sequence
            if answered:
                self.flights.remove(flight)
                self.appended(flight, event, sequence)
        elif answered:
            self.flights.remove(flight)
            self.refused(flight)

    def tick(self, by: timedelta) -> None:
        """Time passes; what is due reaches the intake."""
        self.now += by
        for kind, arm in list(self.timers.items()):
            if arm.at <= self.now:
                self.fire(kind)

    def fire(self, kind: str) -> None:
        """A timer's message reaches the intake; by a clock that is ahead, too early."""
        arm = self.timers.pop(kind)
        self.intake.append(Message(kind, arm.rechecks))

    def wake(self, kind: str, how: str) -> None:
        """Somebody tells the task that something has ended; a wake may be lost, or come twice."""
        for _ in range({"lost": 0, "once": 1, "twice": 2}[how]):
            self.intake.append(Message(kind))

    # coordinators

    def consume(self, message: Message) -> None:
        """A coordinator settles what it was delivered, as coordinator/settling.py does."""
        history = self.history
        if message.lane and history.live_dispatch != message.lane:
            self.settled(message)
            return
        view = self._view(message, history)
        decision = coordination.decide(history, view, Stamp(self.fresh_id(), "c1", self.now))
        self.judge.decided(decision, history, view, self.now)
        self.perform(decision.effects)
        if decision.entry is None:
            self.settled(message)
            return
        message.taken = True
        flight = Flight(
            "c1", decision.subject, decision.entry, history.last, message, then=decision.then
        )
        self.flights.append(flight)

    def _view(self, message: Message, history: History) -> View:
        return View(
            pools=[pool()] if self.staffed else [],
            check=fits,
            input=b"null",
            due=message.due,
            rechecks=message.rechecks,
            lane_gone=bool(message.lane),
            before_open=self.before_open,
            over_budget=self.over_budget,
            waits=history.waiting.waits if history.waiting is not None else (),
            children=dict(self.children),
        )

    def perform(self, effects: tuple[Effect, ...]) -> None:
        """What a decision calls for beyond the scope."""
        for effect in effects:
            if isinstance(effect, Arm):
                self.timers[effect.kind] = effect
            elif isinstance(effect, TellHolder):
                for run in self.runs.values():
                    run.told = effect.reason
            elif isinstance(effect, Wake):
                assert self.model.ended
                self.wakes.add(effect.kind)
            else:
                assert isinstance(effect, CancelChildren)

    def settled(self, message: Message) -> None:
        """Ack what led here, or hand it back."""
        if message.lane:
            # Rule 4: acked if, and only if, it is not live; a task that is being cancelled stays in its lane.
            lane = self.lanes[message.lane]
            lane.acked, lane.at = self.model.live != message.lane, ""
            return
        self.intake.remove(message)

    # answers

    def appended(self, flight: Flight, event: str, sequence: int) -> None:
        """The writer hears that its append stands."""
        raise NotImplementedError

    def refused(self, flight: Flight) -> None:
        """The writer hears that another append was faster."""
        raise NotImplementedError
