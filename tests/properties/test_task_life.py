"""One task among clients, coordinators, agents, faults and forgers, in any order: what must hold always holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from switchgear.contract import codec, values
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE, expect_headers, header_block
from switchgear.lifecycle.history import fold
from tests.properties.mesh_world import Flight, Lane, Message, World
from tests.properties.task_model import ENDS
from tests.unit.lifecycle.script import FAILURE, SCOPE, entry, subject

AGENTS = st.sampled_from(["a1", "a2", "a3"])
INDEX = st.integers(0, 2)
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
SUBMISSIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a deadline": {"deadline": 40},
    "for an agent that must be there": {"require_agent": True},
    "of one attempt": {"retry": values.Retry(max_attempts=1)},
    "of an unknown priority": {"priority": "urgent"},
}
ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "steps": ("checkpoint", {}),
    "registers an undo": ("checkpoint", {"kind": "undo-registered"}),
    "fails": ("attempt-failed", {"error": FAILURE}),
    "fails for good": (
        "attempt-failed",
        {"error": values.Failure(error_class="invalid", code="SG1501", message="no")},
    ),
    "waits for a time": ("waiting", {"reason": "timer", "until": 30}),
    "waits for a signal": ("waiting", {"reason": "signal", "signal": "go"}),
    "hands back": ("released", {}),
}
DRAWN = [*SUBMISSIONS, *4 * ["plain", "with a deadline"], "garbage"]
RARELY = st.sampled_from([False, False, False, True])
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


class TaskLife(RuleBasedStateMachine):
    """Every rule is one step of one actor, or one fault."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.first_end: str = ""
        self.most_failures = values.Retry().max_attempts

    # clients

    @initialize(kind=st.sampled_from(DRAWN), spoilt=RARELY, busy=RARELY)
    def client_submits(self, kind: str, spoilt: bool, busy: bool) -> None:  # noqa: FBT001  # drawn
        """Now and then somebody else writes into the scope first."""
        if spoilt:
            self.forger_appends_unchecked("cancel-requested", "none", hold=False, readable=True)
        if kind == "garbage":
            self._garbage()
            return
        fields = dict(SUBMISSIONS[kind])
        if "retry" in fields:
            self.most_failures = fields["retry"].max_attempts
        if "deadline" in fields:
            fields["deadline"] = self.world.now + timedelta(seconds=fields["deadline"])
            self.world.deadline = fields["deadline"]
        self._client("submitted", **fields)
        if not busy:
            self.nothing_goes_wrong_for_a_while()

    def _garbage(self) -> None:
        world = self.world
        truth = world.truth(entry("submitted"), "submitted", world.last)._replace(readable=False)
        headers = header_block(expect_headers(world.last, SCOPE))
        world.store(subject("submitted"), b'{"v":', headers, truth)

    @precondition(lambda self: self.world.history.is_open)
    @rule(name=st.sampled_from(["go", "stop"]))
    def client_signals(self, name: str) -> None:
        self._client("signalled", name=name)

    @precondition(lambda self: self.world.history.state not in ("none", "cancelling", *ENDS))
    @rule(really=RARELY)
    def client_cancels(self, really: bool) -> None:  # noqa: FBT001  # drawn
        if really:
            self._client("cancel-requested", reason="enough")

    def _client(self, event: str, **fields: Any) -> None:
        one = entry(event, id=self.world.fresh_id(), writer="client", **fields)
        self.world.flights.append(Flight("client", subject(event), one, self.world.last))

    # coordinators

    @precondition(lambda self: self._untaken())
    @rule(index=INDEX)
    def coordinator_consumes(self, index: int) -> None:
        waiting = self._untaken()
        self.world.consume(waiting[index % len(waiting)])

    def _untaken(self) -> list[Message]:
        return [one for one in self.world.intake if not one.taken]

    @precondition(lambda self: any(one.message for one in self.world.flights))
    @rule(index=INDEX)
    def coordinator_crashes(self, index: int) -> None:
        flights = [one for one in self.world.flights if one.message]
        flight = flights[index % len(flights)]
        self.world.flights.remove(flight)
        assert flight.message is not None
        flight.message.taken = False

    @rule(staffed=st.sampled_from([True, True, True, False]))
    def pools_come_or_go(self, staffed: bool) -> None:  # noqa: FBT001  # drawn
        self.world.staffed = staffed

    @rule()
    def nothing_goes_wrong_for_a_while(self) -> None:
        """All that was sent lands, all that was stored is consumed, and a lane delivers."""
        for flight in list(self.world.flights):
            if flight in self.world.flights:
                self.world.land(flight)
        for message in self._untaken():
            self.world.consume(message)
        for flight in list(self.world.flights):
            self.world.land(flight)
        if self._offered() and not self.world.runs:
            self.world.deliver(self._offered()[-1], "a1")

    # agents

    @precondition(lambda self: self._offered())
    @rule(index=INDEX, name=AGENTS)
    def lane_delivers(self, index: int, name: str) -> None:
        offered = self._offered()
        sequence = offered[index % len(offered)]
        run = self.world.runs.get(name)
        if not self._sending(name) and (run is None or run.sequence == sequence):
            self.world.deliver(sequence, name)

    def _offered(self) -> list[int]:
        lanes = self.world.lanes.items()
        return [sequence for sequence, lane in lanes if not lane.acked and not lane.at]

    def _sending(self, name: str) -> bool:
        return any(one.writer == name for one in self.world.flights)

    @precondition(lambda self: self._idle())
    @rule(index=INDEX, action=st.sampled_from(sorted(ACTIONS)), lands=st.booleans())
    def agent_acts(self, index: int, action: str, lands: bool) -> None:  # noqa: FBT001  # drawn
        name = self._idle()[index % len(self._idle())]
        run = self.world.runs[name]
        if run.told and ACTIONS[action][0] != "checkpoint":
            return
        event, fields = ACTIONS[action]
        if "until" in fields:
            fields = fields | {"until": self.world.now + timedelta(seconds=fields["until"])}
        self.world.say(name, run, event, **fields)
        if lands:
            self.world.land(self.world.flights[-1])

    def _idle(self) -> list[str]:
        """Instances that run the task and have nothing in flight."""
        return sorted(name for name in self.world.runs if not self._sending(name))

    @precondition(lambda self: self._idle())
    @rule(index=INDEX, really=RARELY)
    def agent_ends(self, index: int, really: bool) -> None:  # noqa: FBT001  # drawn
        name = self._idle()[index % len(self._idle())]
        if really or self.world.runs[name].told:
            self.world.end(name, self.world.runs[name])

    @precondition(lambda self: self.world.runs)
    @rule(index=INDEX)
    def agent_crashes(self, index: int) -> None:
        names = sorted(self.world.runs)
        name = names[index % len(names)]
        run = self.world.runs.pop(name)
        self.world.flights = [one for one in self.world.flights if one.run is not run]
        if self.world.lanes[run.sequence].at == name:
            self.world.lanes[run.sequence].at = ""

    # the broker and time

    @precondition(lambda self: self.world.flights)
    @rule(index=INDEX, answered=st.booleans())
    def append_lands(self, index: int, answered: bool) -> None:  # noqa: FBT001  # drawn
        flights = self.world.flights
        self.world.land(flights[index % len(flights)], answered=answered)

    @precondition(lambda self: self.world.lanes)
    @rule(index=INDEX)
    def lease_expires(self, index: int) -> None:
        lanes = list(self.world.lanes.values())
        lanes[index % len(lanes)].at = ""

    @precondition(lambda self: self.world.lanes)
    @rule()
    def server_restarts(self) -> None:
        """Deliveries count from 1 again, and what was just acked comes again (measured)."""
        self.world.lanes = {sequence: Lane() for sequence in self.world.lanes}

    @rule(seconds=st.sampled_from([0.5, 7, 61]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(timedelta(seconds=seconds))

    @precondition(lambda self: self.world.timers)
    @rule(index=INDEX)
    def timer_fires_early(self, index: int) -> None:
        kinds = sorted(self.world.timers)
        self.world.fire(kinds[index % len(kinds)])

    # forgers

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

    # what holds after every step

    @invariant()
    def the_fold_says_what_the_model_says(self) -> None:
        model, seen = self.world.model, self.world.seen
        assert (model.state, model.hold, model.holder) == (seen.state, seen.hold, seen.holder)
        assert model.cancelling == (seen.cancelling.reason if seen.cancelling else "")
        assert (model.attempt, model.failures, model.undos, model.live) == (
            seen.attempt,
            seen.failures,
            seen.undos,
            seen.live_dispatch,
        )
        assert model.voids == [void.stored.sequence for void in seen.voids]

    @invariant()
    def reading_anew_equals_reading_along(self) -> None:
        anew, along = fold(SCOPE, self.world.log), self.world.seen
        assert str(anew.malformed) == str(along.malformed)
        assert replace(anew, malformed=None) == replace(along, malformed=None)

    @invariant()
    def an_end_is_final(self) -> None:
        assert len(self.world.model.ends) <= 1
        self.first_end = self.first_end or self.world.seen.ended or ""
        assert self.first_end == (self.world.seen.ended or "")

    @invariant()
    def attempts_strictly_increase(self) -> None:
        attempts = self.world.model.attempts
        assert attempts == list(range(1, len(attempts) + 1))
        assert self.world.model.failures <= self.most_failures

    @invariant()
    def every_open_task_has_somebody_who_moves_it(self) -> None:
        world, model = self.world, self.world.model
        if model.where == "none" or model.ended or world.intake:
            return
        if model.live:
            assert not world.lanes[model.live].acked
            assert not model.cancelling or "cleanup" in world.timers
            assert not world.deadline or model.cancelling or "deadline" in world.timers
        else:
            assert model.where == "waiting"
            assert not model.cancelling
            assert world.timers.keys() & {"capacity", "wait", "retry"}

    # after the last fault

    def teardown(self) -> None:
        world = self.world
        world.staffed = True
        for _ in range(200):
            if world.model.ended and not world.flights:
                break
            self._settle_once()
        model = world.model
        if model.where == "none":
            return
        assert model.ended in ENDS, (model, world.timers, world.intake)
        if model.ended in ("cancelled", "expired") and model.cancelling:
            assert (model.ended == "expired") == (model.cancelling == "deadline")
        assert model.cancelling == "" or model.ended in ("cancelled", "expired")
        assert model.ended != "rejected" or not model.attempts
        assert model.ended != "dead" or model.failures
        assert model.ended != "expired" or (world.deadline and world.now >= world.deadline)
        assert model.ended == "rejected" or model.runnable or model.cancelling

    def _settle_once(self) -> None:
        """All honest actors do what is theirs; only when nothing is left to do, time passes."""
        world = self.world
        for flight in list(world.flights):
            if flight in world.flights:
                world.land(flight)
        for message in self._untaken():
            world.consume(message)
        for name, run in list(world.runs.items()):
            if not self._sending(name):
                world.end(name, run)
        for sequence, lane in world.lanes.items():
            if lane.at not in world.runs or world.runs[lane.at].sequence != sequence:
                lane.at = ""
            if not lane.acked and not lane.at and "a1" not in world.runs:
                world.deliver(sequence, "a1")
        if not (world.flights or world.intake or world.runs):
            moments = [arm.at - world.now for arm in world.timers.values()]
            world.tick(max(min(moments, default=timedelta(0)), timedelta(0)))


TestTaskLife = TaskLife.TestCase
