"""One task among clients, coordinators, agents, faults and forgers, in any order: what must hold always holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis.stateful import invariant

from switchgear.lifecycle import suspension
from switchgear.lifecycle.history import fold
from tests.properties.task_actors import PARENT, Actors
from tests.properties.task_model import ENDS
from tests.unit.lifecycle.script import SCOPE


class TaskLife(Actors):
    """What holds after every step, and once the last fault has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.first_end: str = ""

    # what holds after every step

    @invariant()
    def the_fold_says_what_the_model_says(self) -> None:
        model, seen = self.world.model, self.world.seen
        assert (model.state, model.hold, model.holder) == (seen.state, seen.hold, seen.holder)
        assert model.cancelling == (seen.cancelling.reason if seen.cancelling else "")
        assert (model.attempt, model.failures, model.live) == (
            seen.attempt,
            seen.failures,
            seen.live_dispatch,
        )
        undos = list(seen.open_undos)
        assert (model.undos, model.undone) == (undos, seen.undoing is not None)
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
        undo_runs = self.world.judge.undo_runs > 0
        assert self.world.model.failures <= self.most_failures + undo_runs

    @invariant()
    def every_open_task_has_somebody_who_moves_it(self) -> None:
        world, model = self.world, self.world.model
        if model.where == "none" or model.ended or world.intake:
            return
        if model.live:
            assert not world.lanes[model.live].acked
            assert not model.cancelling or "cleanup" in world.timers
            assert not world.deadline or model.cancelling or "deadline" in world.timers
        elif model.cancelling:
            assert model.undos
            assert world.timers.keys() >= {"capacity", "cleanup"}
        else:
            assert model.where == "waiting"
            assert world.timers.keys() & {"capacity", "wait", "retry"}
            assert not world.deadline or "deadline" in world.timers

    # after the last fault

    def teardown(self) -> None:
        world = self.world
        world.staffed, world.before_open, world.over_budget = True, False, None
        world.children = dict.fromkeys(world.children, "done")  # and no wake comes of it
        for _ in range(200):
            if world.model.ended and self._is_quiet():
                break
            self._settle_once()
        model = world.model
        if model.where == "none":
            return
        assert self._is_quiet()
        assert model.ended in ENDS, (model, world.timers, world.intake)
        if model.ended in ("cancelled", "expired") and model.cancelling:
            assert (model.ended == "expired") == (model.cancelling == "deadline")
        assert model.cancelling == "" or model.ended in ("cancelled", "expired")
        assert model.ended != "rejected" or not model.attempts
        assert model.ended != "dead" or model.failures
        assert model.ended != "expired" or (world.deadline and world.now >= world.deadline)
        assert model.ended == "rejected" or model.runnable or model.cancelling
        submission = world.seen.submitted
        if submission is not None and submission.parent == PARENT:
            assert world.wakes == {"child", "turn"}

    def _is_quiet(self) -> bool:
        world = self.world
        lanes = all(lane.acked for lane in world.lanes.values())
        return lanes and not (world.flights or world.intake or world.runs)

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
            # A lease that nobody extends runs out.
            if lane.at not in world.runs or world.runs[lane.at].sequence != sequence:
                lane.at = ""
            if not lane.acked and not lane.at and "a1" not in world.runs:
                world.deliver(sequence, "a1")
        if not (world.flights or world.intake or world.runs):
            self._pass_time()

    def _pass_time(self) -> None:
        """Up to the next timer, unless only somebody's signal is waited for."""
        world, history = self.world, self.world.seen
        waits = history.waiting.waits if history.is_open and history.waiting is not None else ()
        awaited = [wait.signal for wait in waits if wait.kind == "signal"]
        there = [one.entry.name for one in suspension.untaken(history)]
        missing = [name for name in awaited if there.count(name) < awaited.count(name)]
        for name in missing:
            self._client("signalled", name=name)
        if missing:
            return
        moments = [arm.at - world.now for arm in world.timers.values()]
        world.tick(max(min(moments, default=timedelta(0)), timedelta(0)))


TestTaskLife = TaskLife.TestCase
