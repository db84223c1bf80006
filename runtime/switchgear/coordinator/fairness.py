"""Fair dispatch: what a pool's lanes have no room for is held back, and its owners are served in turn (rule 19).

While there is room a submission costs a lookup here. Without room it stays unacked, its lease extended, until a look
at the lanes shows room again; an owner with many of them gets an intake of its own (`intake`). A replica that dies
leaves nothing behind: what it held comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from switchgear.bus.port import Bus, Delivery
from switchgear.contract import limits, subjects
from switchgear.contract.entries import Submitted
from switchgear.coordinator.intake import OwnIntakes
from switchgear.errors import SwitchgearError
from switchgear.lifecycle import fairness, routing
from switchgear.lifecycle.fairness import Backlogged, Fill, Turns
from switchgear.lifecycle.history import History
from switchgear.loop import supervised
from switchgear.registry.table import Table

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(milliseconds=25)
"""Between two looks at lanes without room."""
PASSING = 64
"""Urgent submissions of a crowded owner that stay with the shared intake."""
EXTEND_EVERY = limits.INTAKE_ACK_WAIT * 0.3
"""Between two extensions of what is held back."""

Place = Callable[[Delivery, History], None]
"""Decides a fresh submission and appends; must not block."""


class _Held(NamedTuple):
    """A submission that is held back."""

    delivery: Delivery
    history: History
    own: bool
    """It came from its owner's own intake."""


@dataclass(slots=True)
class _Lanes:
    """The lanes of one pool, and what is held back for them."""

    fill: Fill = field(default_factory=Fill)
    turns: list[Turns[_Held]] = field(
        default_factory=lambda: [Turns[_Held]() for _ in range(fairness.LEVELS)]
    )
    """By priority, highest first."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    """Those who want to send one more task that way."""

    @property
    def is_holding(self) -> bool:
        """Whether anything is held back."""
        return any(self.turns)


class FairDispatch:
    """What one replica holds back. `start`, then `stop`."""

    def __init__(self, bus: Bus, table: Table, own: OwnIntakes, place: Place) -> None:
        self._bus = bus
        self._table = table
        self._own = own
        self._place = place
        self._lanes: dict[tuple[str, str], _Lanes] = {}
        """By capability and pool."""
        self._shared: Counter[Backlogged] = Counter()
        """Held back from the shared intake."""
        self._opening: set[Backlogged] = set()
        self._wanted = asyncio.Event()
        """Some lanes are to be looked at."""
        self._holding = asyncio.Event()
        """Something is held back."""
        self._looks = 0
        """Rounds of looks that have begun."""
        self._looked = asyncio.Condition()
        """Told at the end of each round."""
        self._stopped = False
        self._loops: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to serve. Raises Unavailable."""
        self._loops = [
            asyncio.create_task(supervised("fairness", self._look_on), name="fairness"),
            asyncio.create_task(supervised("fairness", self._extend_on), name="fairness-leases"),
        ]
        await self._own.start()

    async def stop(self) -> None:
        """Hand back what is held and what still comes, to whoever consumes next."""
        if self._stopped:
            return
        self._stopped = True
        running = [*self._loops, *self._tasks]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._own.stop()
        for turns in (turns for lanes in self._lanes.values() for turns in lanes.turns):
            for held in turns.everything():
                held.delivery.nak()
        self._shared.clear()

    def held(self, whose: Backlogged) -> int:
        """How many submissions of this owner for this capability wait for room, as far as this replica knows."""
        return self._shared.get(whose, 0) + self._own.waiting(whose)

    def admits(self, delivery: Delivery, history: History, *, own: bool = False) -> bool:
        """Whether this fresh submission is dispatched now; else it has been taken care of.

        `own`: its owner's own intake delivered it.
        """
        if self._stopped:
            delivery.nak(LOOK_EVERY)
            return False
        submission = history.submitted
        if submission is None or submission.start is not None or submission.after is not None:
            return True  # it is not dispatched now anyway
        whose = Backlogged(history.capability, history.owner)
        pool = self._pool(whose.capability, submission)
        if not own and self._own.covers(whose, delivery.stored.sequence):
            urgent = (
                fairness.is_urgent(submission)
                and self._shared[whose] < fairness.CROWDED
                and self._shared.total() < fairness.CROWDED_IN_ALL
            )
            if pool is None or not urgent:
                self._leave(whose, delivery, history, submission)
                return False
        if pool is None or (own and self._own.is_refused(whose, delivery.stored.sequence)):
            return True  # it waits for capacity, or for nothing
        key = whose.capability, pool.offer.pool
        lanes = self._lanes.get(key)
        if lanes is None:
            lanes = self._lanes[key] = _Lanes()
            self._wanted.set()
        level = fairness.level(submission)
        if not lanes.turns[level] and lanes.fill.take(pool.slots, level):
            if lanes.fill.is_low(pool.slots):
                self._wanted.set()
            return True
        self._hold(lanes, whose, _Held(delivery, history, own), submission)
        return False

    async def room(self, capability: str) -> None:
        """Wait until one of the capability's pools has room for one more task, which counts as sent there.

        Returns at once where nobody offers it: then there is nothing to keep shallow.
        """
        while pools := [pool for pool in self._table.pools(capability) if pool.slots]:
            for pool in pools:
                lanes = self._lanes.setdefault((capability, pool.offer.pool), _Lanes())
                if lanes.fill.room(pool.slots) > 0:
                    lanes.fill.since[-1] += 1
                    return
            changed = asyncio.get_running_loop().create_future()
            lanes = self._lanes[capability, pools[0].offer.pool]
            lanes.waiters.append(changed)
            self._wanted.set()
            await changed

    # holding back

    def _hold(self, lanes: _Lanes, whose: Backlogged, held: _Held, submission: Submitted) -> None:
        sequence = held.delivery.stored.sequence
        turns = lanes.turns[fairness.level(submission)]
        turns.add(whose.owner, fairness.rank(submission), sequence, held)
        self._wanted.set()
        self._holding.set()
        if held.own:
            return
        self._shared[whose] += 1
        if submission.deadline is not None:
            self._spawn(self._arm_deadline(held.history, submission))
        crowded = fairness.crowded(self._shared, whose)
        if crowded is not None and crowded not in self._opening:
            self._opening.add(crowded)
            self._spawn(self._open(crowded))

    def _leave(
        self, whose: Backlogged, delivery: Delivery, history: History, submission: Submitted
    ) -> None:
        """Leave the submission to its owner's own intake, which brings it again in its turn."""
        self._own.arrived(whose, delivery.stored.sequence)
        if submission.deadline is None:
            delivery.ack()
        else:
            self._spawn(self._leave_with_deadline(delivery, history, submission))

    async def _leave_with_deadline(
        self, delivery: Delivery, history: History, submission: Submitted
    ) -> None:
        if await self._arm_deadline(history, submission):
            delivery.ack()
        else:
            delivery.nak(LOOK_EVERY)

    async def _arm_deadline(self, history: History, submission: Submitted) -> bool:
        """What waits here ends at its deadline like any other task: the due timer finds it queued."""
        if submission.deadline is None:
            return True
        scope = history.scope
        timer, due = subjects.timer(scope, "deadline"), subjects.due(scope, "deadline")
        try:
            await self._bus.timers.arm(timer, due, submission.deadline)
        except SwitchgearError as error:
            log.warning("coordinator.deadline-unarmed %s: %s", scope, error)
            return False
        return True

    async def _open(self, whose: Backlogged) -> None:
        """Give the owner an intake of its own, and leave to it what is held back."""
        if not await self._stays_crowded(whose):
            self._opening.discard(whose)
            return
        lanes = [one for key, one in self._lanes.items() if key[0] == whose.capability]
        mine = [turns for one in lanes for turns in one.turns]
        held = [one for turns in mine for one in turns.of(whose.owner) if not one.own]
        start = min((one.delivery.stored.sequence for one in held), default=0)
        try:
            if not start:
                return
            await self._own.open(whose, start)
        except SwitchgearError as error:
            log.warning("coordinator.intake-not-opened %s of %s: %s", *whose, error)
            return
        finally:
            self._opening.discard(whose)
        urgent = sorted(one.delivery.stored.sequence for one in held if _is_urgent(one))
        passing = set(urgent[:PASSING])
        for turns in mine:
            for one in turns.take(whose.owner, lambda one: self._is_left(whose, one, passing)):
                self._served(whose)
                submission = one.history.submitted
                assert submission is not None
                self._leave(whose, one.delivery, one.history, submission)

    async def _stays_crowded(self, whose: Backlogged) -> bool:
        """Whether there is no room for them either where the lanes are seen as they are now: a burst is no backlog."""
        before = self._looks
        async with self._looked:
            await self._looked.wait_for(lambda: self._looks > before)
        return fairness.crowded(self._shared, whose) == whose

    def _is_left(self, whose: Backlogged, held: _Held, passing: set[int]) -> bool:
        """Whether its own intake brings it again; `passing`: the urgent ones that need not wait for that."""
        sequence = held.delivery.stored.sequence
        return self._own.covers(whose, sequence) and not held.own and sequence not in passing

    def _served(self, whose: Backlogged) -> None:
        """One fewer is held back from the shared intake."""
        self._shared[whose] -= 1
        if self._shared[whose] <= 0:
            del self._shared[whose]

    # serving

    async def _look_on(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._looks += 1
            wanted = [key for key in self._lanes if self._is_wanted(key)]
            looks = await asyncio.gather(*map(self._look, wanted), return_exceptions=True)
            for error in looks:
                if isinstance(error, SwitchgearError):
                    log.warning("coordinator.lanes-unread %s", error)
                elif isinstance(error, BaseException):
                    raise error
            for whose in self._own.newly_refused():
                self._let_go(whose)
            for key in wanted:
                self._serve(key)
            for key in [key for key in self._lanes if not self._slots(key)]:
                if not self._is_wanted(key):
                    del self._lanes[key]
            async with self._looked:
                self._looked.notify_all()
            if any(map(self._is_wanted, self._lanes)):
                self._wanted.set()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    def _let_go(self, whose: Backlogged) -> None:
        """What was rejected after the owner's own intake had brought it waits for nothing more."""

        def gone(held: _Held) -> bool:
            return held.own and self._own.is_refused(whose, held.delivery.stored.sequence)

        for key in [key for key in self._lanes if key[0] == whose.capability]:
            for turns in self._lanes[key].turns:
                for held in turns.take(whose.owner, gone):
                    self._place(held.delivery, held.history)

    def _is_wanted(self, key: tuple[str, str]) -> bool:
        lanes = self._lanes[key]
        slots = self._slots(key)
        fill = lanes.fill
        # what others dispatch shows when something is to be placed here
        low = fill.seen_at is None or (any(fill.since) and fill.is_low(slots))
        return lanes.is_holding or bool(lanes.waiters) or (slots > 0 and low)

    async def _look(self, key: tuple[str, str]) -> None:
        """Learn how much there is in the pool's lanes."""
        fill = self._lanes[key].fill
        before = tuple(fill.since)
        names = [subjects.lane_consumer(*key, priority) for priority in subjects.PRIORITIES]
        found = await asyncio.gather(*map(self._bus.work.backlog, names))
        depths = tuple(0 if one is None else one.pending + one.unsettled for one in found)
        fill.looked(depths, before, asyncio.get_running_loop().time())

    def _serve(self, key: tuple[str, str]) -> None:
        """Dispatch what there is room for; of a pool that is gone everything, since it is placed elsewhere."""
        lanes = self._lanes[key]
        slots = self._slots(key)
        for level, turns in enumerate(lanes.turns):
            while turns and (not slots or lanes.fill.room(slots, level) > 0):
                held = turns.next()
                assert held is not None
                lanes.fill.since[level] += 1
                if not held.own:
                    self._served(Backlogged(key[0], held.history.owner))
                self._place(held.delivery, held.history)
        if not slots or lanes.fill.room(slots) > 0:
            waiters, lanes.waiters = lanes.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _extend_on(self) -> None:
        while True:
            await self._holding.wait()
            await asyncio.sleep(EXTEND_EVERY.total_seconds())
            holding = [lanes.turns for lanes in self._lanes.values() if lanes.is_holding]
            for held in (one for turns in holding for each in turns for one in each.everything()):
                held.delivery.in_progress()
            if not holding:
                self._holding.clear()

    def _pool(self, capability: str, submission: Submitted) -> routing.Pool | None:
        """Whose lanes the submission would go to now; None: it cannot be placed, or will be rejected."""
        pools = self._table.pools(capability)
        if len(pools) == 1:  # the usual case; should it not fit, nothing but its turn is lost
            return pools[0] if pools[0].slots else None
        try:
            wanted = routing.Wanted(submission.task, submission.version, dict(submission.labels))
            found = routing.choose(pools, wanted)
        except ValueError:
            return None
        return found.pool if isinstance(found, routing.Chosen) else None

    def _slots(self, key: tuple[str, str]) -> int:
        capability, name = key
        for pool in self._table.pools(capability):
            if pool.offer.pool == name:
                return pool.slots
        return 0

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_urgent(held: _Held) -> bool:
    submission = held.history.submitted
    return submission is not None and fairness.is_urgent(submission)
