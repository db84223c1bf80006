"""A mesh of one task, in memory: a broker with compare-and-set, coordinators, agents, clients and forgers.

Appends are in flight until somebody lets them land, in any order, so every interleaving of honest writers with
each other and with forgers can be drawn. Below are the pure decisions alone; the world is their shell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.stored import Stored, expect_headers, header_block
from switchgear.lifecycle import coordination, holding
from switchgear.lifecycle.coordination import Arm, Stamp, View
from switchgear.lifecycle.history import History, fold
from tests.properties.task_model import Model, Truth
from tests.unit.lifecycle.script import FAILURE, SCOPE, T0, entry, fits, pool, subject

CONSUMED = {"submitted", "attempt-failed", "waiting", "signalled", "cancel-requested"}
"""What a coordinator's intake delivers."""
FINAL = msgspec.structs.replace(FAILURE, retryable=False, error_class="crash-loop")


@dataclass(eq=False)
class Message:
    """What a coordinator's intake holds until it is acked."""

    due: str = ""
    rechecks: int = 0
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


@dataclass(eq=False)
class Flight:
    """An append that was sent."""

    writer: str
    subject: str
    entry: entries.Entry
    expect: int
    message: Message | None = None
    run: Run | None = None


@dataclass
class World:
    """Everything that the actors share."""

    now: datetime = T0
    log: list[Stored] = field(default_factory=list[Stored])
    model: Model = field(default_factory=Model)
    seen: History = field(default_factory=lambda: History(SCOPE))
    """The incremental reader."""
    intake: list[Message] = field(default_factory=list[Message])
    timers: dict[str, Arm] = field(default_factory=dict[str, Arm])
    lanes: dict[int, Lane] = field(default_factory=dict[int, Lane])
    flights: list[Flight] = field(default_factory=list[Flight])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    staffed: bool = True
    deadline: datetime | None = None
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
        nanoseconds = int(self.now.timestamp() * 1e9)
        stored = Stored(where, truth.sequence, nanoseconds, headers, data)
        self.log.append(stored)
        counts = self.model.take(truth)
        assert counts == (self.seen.add(stored) == ""), (truth, self.model, self.seen.voids)
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
                self._appended(flight, event, sequence)
        elif answered:
            self.flights.remove(flight)
            self._refused(flight)

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

    # coordinators

    def consume(self, message: Message) -> None:
        """A coordinator settles what its intake delivered, as coordinator/service.py does."""
        history = self.history
        view = View(
            pools=[pool()] if self.staffed else [],
            check=fits,
            input=b"null",
            due=message.due,
            rechecks=message.rechecks,
        )
        decision = coordination.decide(history, view, Stamp(self.fresh_id(), "c1", self.now))
        for effect in decision.effects:
            if isinstance(effect, Arm):
                self.timers[effect.kind] = effect
            else:
                for run in self.runs.values():
                    run.told = effect.reason
        if decision.entry is None:
            self.intake.remove(message)
            return
        message.taken = True
        flight = Flight("c1", decision.subject, decision.entry, history.last, message)
        self.flights.append(flight)

    # agents

    def deliver(self, sequence: int, name: str) -> None:
        """The lane hands a dispatch to an instance, which begins as agent/receiving.py does."""
        lane = self.lanes[sequence]
        lane.deliveries += 1
        lane.at = name
        stored = next(one for one in self.log if one.sequence == sequence)
        if holding.receive(stored, SCOPE, lane.deliveries, self.now) is holding.Fresh.RUN:
            self.runs[name] = Run(sequence, sequence, sequence)
            return
        self._begin(sequence, name)

    def _begin(self, sequence: int, name: str) -> None:
        history, lane = self.history, self.lanes[sequence]
        begun = holding.begin(history, sequence, name, lane.deliveries, running=name in self.runs)
        told = history.cancelling.reason if history.cancelling else ""
        if begun.act == "ack":
            self.runs.pop(name, None)
            self.ack(sequence)
        elif begun.act == "run":
            self.runs[name] = Run(sequence, sequence, history.last, told)
        elif begun.act == "take-over":
            run = self.runs[name] = Run(sequence, history.hold, history.last, told)
            how = "released" if begun.loose else "crash"
            self.say(name, run, "taken-over", how=how, deliveries=lane.deliveries)

    def say(self, name: str, run: Run, event: str, **fields: Any) -> None:
        """An instance sends an entry about the task that it runs."""
        one = entry(event, id=self.fresh_id(), writer=name, hold=run.hold, **fields)
        self.flights.append(Flight(name, subject(event), one, run.expect, run=run))

    def end(self, name: str, run: Run) -> None:
        """The holder ends the task as it was told, or with its result."""
        told = {"": "completed", "deadline": "expired"}.get(run.told, "cancelled")
        self.say(name, run, told)

    def ack(self, sequence: int) -> None:
        """Rule 4: acked if, and only if, it is not live."""
        assert self.model.live != sequence
        self.lanes[sequence].acked = True

    # answers

    def _appended(self, flight: Flight, event: str, sequence: int) -> None:
        if flight.message is not None:
            self.intake.remove(flight.message)
        run = flight.run
        if run is None or self.runs.get(flight.writer) is not run:
            return
        run.expect = sequence
        if event == "taken-over":
            self._took_over(flight.writer, run, sequence)
        elif event == "released":
            del self.runs[flight.writer]
            self.lanes[run.sequence].at = ""
        elif event != "checkpoint":
            del self.runs[flight.writer]
            self.ack(run.sequence)

    def _took_over(self, name: str, run: Run, sequence: int) -> None:
        run.hold = sequence
        if self.history.crashes > limits.MAX_CRASHES:
            if run.told:
                self.end(name, run)
            else:
                self.say(name, run, "attempt-failed", error=FINAL)

    def _refused(self, flight: Flight) -> None:
        history = self.history
        if flight.message is not None:
            self.consume(flight.message)
        elif flight.run is None:
            if history.is_open or (flight.subject.endswith("submitted") and not history.ended):
                flight.expect = history.last
                if not history.landed(flight.entry.id) and history.malformed is None:
                    self.flights.append(flight)
        elif self.runs.get(flight.writer) is flight.run:
            self._agent_refused(flight, flight.run, history)

    def _agent_refused(self, flight: Flight, run: Run, history: History) -> None:
        name, event = flight.writer, subjects.parse_task(flight.subject).event
        if event == "taken-over":
            landed = history.landed(flight.entry.id)
            if landed and history.hold == landed:
                run.expect = history.last
                self._took_over(name, run, landed)
            else:
                del self.runs[name]
                self._begin(run.sequence, name)
            return
        after = holding.after_refusal(history, flight.entry.id, run.hold, name)
        run.expect = history.last
        if after.act == "landed":
            self._appended(flight, event, history.last)
        elif after.act == "lost":
            del self.runs[name]
        elif after.act == "cancelled" and event not in ("cancelled", "expired", "released"):
            run.told = after.reason
        else:
            flight.expect = history.last
            self.flights.append(flight)
