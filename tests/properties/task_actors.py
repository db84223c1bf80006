"""Whoever acts on one task: clients, coordinators, agents, the broker and time, each rule one step of one of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from msgspec.structs import replace

from switchgear.contract import values
from switchgear.contract.stored import expect_headers, header_block
from switchgear.lifecycle import suspension
from tests.properties.forgers import Forgers
from tests.properties.mesh_agents import Flight, Message, Run
from tests.properties.mesh_world import Lane
from tests.properties.task_model import ENDS
from tests.unit.lifecycle.script import FAILURE, SCOPE, awaited, entry, subject

AGENTS = st.sampled_from(["a1", "a2", "a3"])
INDEX = st.integers(0, 2)
PARENT = values.Parent(task="t0", capability="plan", key="k")
SUBMISSIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a deadline": {"deadline": 40},
    "for an agent that must be there": {"require_agent": True},
    "of one attempt": {"retry": values.Retry(max_attempts=1)},
    "of an unknown priority": {"priority": "urgent"},
    "for later": {"start": 20},
    "for later, with a deadline": {"start": 20, "deadline": 40},
    "after another": {"after": "t8"},
}
ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "steps": ("checkpoint", {}),
    "registers an undo": ("checkpoint", {"kind": "undo-registered", "key": "u1"}),
    "registers another undo": ("checkpoint", {"kind": "undo-registered", "key": "u2"}),
    "drops an undo": ("checkpoint", {"kind": "undo-dropped", "key": "u2"}),
    "fails": ("attempt-failed", {"error": FAILURE}),
    "waits for nobody knows what": ("waiting", {"reason": "signal"}),
    "hands back": ("released", {}),
}
WAITS: dict[str, tuple[values.Awaited, ...]] = {
    "a time": (awaited("timer"),),
    "a signal": (awaited("signal"),),
    "a child": (awaited("child"),),
    "a signal for a while": (awaited("signal", max_failures=1),),
    "a time or a child": (awaited("timer"), awaited("child")),
    "a time and a child": (awaited("timer", together="g"), awaited("child", together="g")),
    "two signals": (
        awaited("signal", key="s1", together="g"),
        awaited("signal", key="s2", together="g"),
    ),
}
"""Timers, and waits with `max_failures` (which means nothing to them), end 30 s after they begin."""
DRAWN = [*SUBMISSIONS, *4 * ["plain", "with a deadline"], "garbage"]
RARELY = st.sampled_from([False, False, False, True])


class Actors(Forgers):
    """All that is honest, and all that goes wrong by itself."""

    def __init__(self) -> None:
        super().__init__()
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
        for name in {"deadline", "start"} & fields.keys():
            fields[name] = self.world.now + timedelta(seconds=fields[name])
        self.world.deadline = fields.get("deadline")
        self.world.before_open = "after" in fields
        self._client("submitted", parent=PARENT, then="t9", **fields)
        if not busy:
            self.nothing_goes_wrong_for_a_while()

    def _garbage(self) -> None:
        world = self.world
        truth = world.truth(entry("submitted"), "submitted", world.last)._replace(readable=False)
        headers = header_block(expect_headers(world.last, SCOPE))
        world.store(subject("submitted"), b'{"v":', headers, truth)

    @precondition(lambda self: self.world.seen.is_open)
    @rule(name=st.sampled_from(["go", "stop"]))
    def client_signals(self, name: str) -> None:
        self._client("signalled", name=name)

    @precondition(lambda self: self.world.seen.state not in ("none", "cancelling", *ENDS))
    @rule(really=RARELY)
    def client_cancels(self, really: bool) -> None:  # noqa: FBT001  # drawn
        if really:
            self._client("cancel-requested", reason="enough")

    @rule(how=st.sampled_from(["lost", "once", "twice"]))
    @precondition(lambda self: self.world.before_open)
    def predecessor_ends(self, how: str) -> None:
        """The task that this one comes after; its wake may get lost."""
        self.world.before_open = False
        self.world.wake("turn", how)

    @rule(how=st.sampled_from(["done", "failed"]), wake=st.sampled_from(["lost", "once", "twice"]))
    @precondition(lambda self: "open" in self.world.children.values())
    def child_ends(self, how: Any, wake: str) -> None:
        self.world.children["child"] = how
        self.world.wake("child", wake)

    @precondition(lambda self: self.world.seen.position == "waiting")
    @rule(really=RARELY)
    def operator_says_now(self, really: bool) -> None:  # noqa: FBT001  # drawn
        if really:
            self.world.intake.append(Message("now"))

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
        if flight.message.lane:
            self.world.lanes[flight.message.lane].at = ""

    @precondition(lambda self: self._offered())
    @rule(index=INDEX, really=st.booleans())
    def coordinator_empties_a_lane(self, index: int, really: bool) -> None:  # noqa: FBT001  # drawn
        """Its pool has been gone for long, or seems so."""
        if not really:
            return
        sequence = self._offered()[index % len(self._offered())]
        lane = self.world.lanes[sequence]
        lane.at = "c1"
        lane.deliveries += 1
        self.world.consume(Message(lane=sequence))

    @rule(over=RARELY)
    def retry_budget_is_used_up_or_not(self, over: bool) -> None:  # noqa: FBT001  # drawn
        self.world.over_budget = timedelta(seconds=6) if over else None

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
        if (run.told or run.undoing) and action != "steps":
            return
        event, fields = ACTIONS[action]
        self.world.say(name, run, event, **fields)
        if lands:
            self.world.land(self.world.flights[-1])

    @precondition(lambda self: self._working())
    @rule(index=INDEX, what=st.sampled_from(sorted(WAITS)), lands=st.booleans())
    def agent_suspends(self, index: int, what: str, lands: bool) -> None:  # noqa: FBT001  # drawn
        """The handler only waits: the slot is freed."""
        name = self._working()[index % len(self._working())]
        until = self.world.now + timedelta(seconds=30)
        waits = tuple(
            replace(one, until=until) if one.kind == "timer" or one.max_failures else one
            for one in WAITS[what]
        )
        if any(one.kind == "child" for one in waits):
            self.world.children["child"] = "open"
        first = min((one.until for one in waits if one.until is not None), default=None)
        run = self.world.runs[name]
        self.world.say(name, run, "waiting", reason=waits[0].kind, until=first, waits=waits)
        if lands:
            self.world.land(self.world.flights[-1])

    @precondition(lambda self: bool(self._working() and suspension.untaken(self.world.seen)))
    @rule(index=INDEX, fits=st.booleans())
    def agent_takes_a_signal(self, index: int, fits: bool) -> None:  # noqa: FBT001  # drawn
        name = self._working()[index % len(self._working())]
        oldest = suspension.untaken(self.world.seen)[0].sequence
        run = self.world.runs[name]
        error = None if fits else FAILURE
        taken = {"kind": "signal", "key": f"s{oldest}", "signal": oldest, "error": error}
        self.world.say(name, run, "checkpoint", ok=fits, **taken)

    @precondition(lambda self: self._working())
    @rule(index=INDEX)
    def agent_fails_for_good(self, index: int) -> None:
        name = self._working()[index % len(self._working())]
        self.world.fail(name, self.world.runs[name])

    def _working(self) -> list[str]:
        """Instances that run the handler and have nothing in flight."""
        return [name for name in self._idle() if not self._ends(self.world.runs[name])]

    def _ends(self, run: Run) -> bool:
        return bool(run.told or run.undoing)

    def _idle(self) -> list[str]:
        """Instances that run the task and have nothing in flight."""
        return sorted(name for name in self.world.runs if not self._sending(name))

    @precondition(lambda self: self._idle())
    @rule(index=INDEX, really=RARELY)
    def agent_ends(self, index: int, really: bool) -> None:  # noqa: FBT001  # drawn
        name = self._idle()[index % len(self._idle())]
        run = self.world.runs[name]
        if really or self._ends(run):
            # Undos may fail, but are not given up on while the task is cancelled.
            self.world.end(name, run, undo=not really or bool(run.told))

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
