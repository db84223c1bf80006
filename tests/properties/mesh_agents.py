"""The agents of a mesh in memory: they receive, take over, run, undo, give up and end as agents do."""

from __future__ import annotations

from typing import Any

import msgspec

from switchgear.contract import codec, entries, limits, subjects
from switchgear.errors import ProtocolError
from switchgear.lifecycle import holding
from switchgear.lifecycle.history import History
from tests.properties.mesh_world import Flight, Mesh, Message, Run
from tests.unit.lifecycle.script import FAILURE, SCOPE, entry, subject

POISON = msgspec.structs.replace(FAILURE, retryable=False, error_class="crash-loop")
FINAL = msgspec.structs.replace(FAILURE, retryable=False, error_class="step")
TOLD = {"child", "turn"}
ENDS = ("completed", "cancelled", "expired")

__all__ = ["FINAL", "Flight", "Message", "Run", "World"]


class World(Mesh):
    """The mesh with its agents."""

    def deliver(self, sequence: int, name: str) -> None:
        """The lane hands a dispatch to an instance, which begins as agent/receiving.py does."""
        lane = self.lanes[sequence]
        lane.deliveries += 1
        lane.at = name
        stored = next(one for one in self.log if one.sequence == sequence)
        try:
            dispatched = codec.decode_entry(subjects.parse_task(stored.subject), stored.data)
        except ProtocolError:
            self.ack(sequence)
            return
        fresh = holding.receive(stored, SCOPE, lane.deliveries, self.now) is holding.Fresh.RUN
        if fresh and isinstance(dispatched, entries.Dispatched) and dispatched.attempt == 1:
            run = self.runs[name] = Run(sequence, sequence, sequence)
            self._started(name, run)
            return
        self._begin(sequence, name)

    def _begin(self, sequence: int, name: str) -> None:
        history, lane = self.history, self.lanes[sequence]
        begun = holding.begin(history, sequence, name, lane.deliveries, running=name in self.runs)
        told = history.cancelling.reason if history.cancelling else ""
        if begun.act == "ack":
            if history.ended:
                self.wakes |= TOLD
            self.runs.pop(name, None)
            self.ack(sequence)
        elif begun.act == "run":
            run = Run(sequence, sequence, history.last, told, undoing=_undoes(history))
            self.runs[name] = run
            self._started(name, run)
        elif begun.act == "take-over":
            run = Run(sequence, history.hold, history.last, told, undoing=_undoes(history))
            self.runs[name] = run
            how = "released" if begun.loose else "crash"
            self.say(name, run, "taken-over", how=how, deliveries=lane.deliveries)

    def _started(self, name: str, run: Run) -> None:
        """Nothing starts after the deadline but undos."""
        late = self.deadline is not None and self.now >= self.deadline
        if late and not run.undoing and not run.told:
            error = msgspec.structs.replace(POISON, error_class="timeout")
            self.say(name, run, "attempt-failed", error=error)

    def say(self, name: str, run: Run, event: str, **fields: Any) -> None:
        """An instance sends an entry about the task that it runs."""
        one = entry(event, id=self.fresh_id(), writer=name, hold=run.hold, **fields)
        self.flights.append(Flight(name, subject(event), one, run.expect, run=run))

    def end(self, name: str, run: Run, *, undo: bool = True) -> None:
        """The holder runs what is to be undone, one at a time, then ends its part as it was told."""
        undos = list(self.seen.open_undos)
        ending = run.told or run.undoing
        if undo and ending and undos:
            self.say(name, run, "checkpoint", kind="undo-done", key=undos[-1])
        elif run.told:
            event = "expired" if run.told == "deadline" else "cancelled"
            self.say(name, run, event, **({} if event == "expired" else {"reason": run.told}))
        elif run.undoing:
            self.say(name, run, "attempt-failed", error=FINAL)
        else:
            self.say(name, run, "completed")

    def fail(self, name: str, run: Run) -> None:
        """A failure that is final: with undos the holder says that they begin."""
        if self.seen.open_undos and not run.undoing:
            self.say(name, run, "checkpoint", kind="undo-begun", key="", ok=False, error=FINAL)
        else:
            self.say(name, run, "attempt-failed", error=FINAL)

    def ack(self, sequence: int) -> None:
        """Rule 4: acked if, and only if, it is not live."""
        assert self.model.live != sequence
        self.lanes[sequence].acked = True

    # answers

    def appended(self, flight: Flight, event: str, sequence: int) -> None:
        """Effects first, then the ack."""
        if flight.message is not None:
            self.perform(flight.then)
            self.settled(flight.message)
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
            if event in ENDS:
                self.wakes |= TOLD
            self.ack(run.sequence)
        elif getattr(flight.entry, "kind", "") == "undo-begun":
            run.undoing = True

    def _took_over(self, name: str, run: Run, sequence: int) -> None:
        run.hold = sequence
        if self.seen.crashes > limits.MAX_CRASHES:
            if run.told:
                self.end(name, run, undo=False)
            else:
                self.say(name, run, "attempt-failed", error=POISON)
        else:
            self._started(name, run)

    def refused(self, flight: Flight) -> None:
        """Read what was stored since, and decide anew (rule 2)."""
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
            self.appended(flight, event, after.expect)
        elif after.act == "lost":
            del self.runs[name]
        elif after.act == "cancelled" and event not in ("cancelled", "expired", "released"):
            run.told = after.reason
        else:
            flight.expect = history.last
            self.flights.append(flight)


def _undoes(history: History) -> bool:
    """Whether whoever holds the task now runs its undos only."""
    dispatched = history.dispatched
    return history.undoing is not None or (dispatched is not None and dispatched.undoing)
