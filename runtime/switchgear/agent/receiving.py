"""From a delivery to an attempt: reads what must be read, takes over what was another's (rules 6, 8 and 9)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from weakref import WeakValueDictionary

from switchgear.agent import children, ending
from switchgear.agent.attempt import Attempt, CancelledMeanwhile, How, Lost
from switchgear.bus.port import Bus, Delivery
from switchgear.clock import Clock
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.queries import Holder, HolderQuery
from switchgear.contract.stored import expectation
from switchgear.errors import ProtocolError, SwitchgearError
from switchgear.lifecycle import holding
from switchgear.lifecycle.history import History
from switchgear.resilience.classify import crash_loop, too_late
from switchgear.tasks.asking import ask
from switchgear.tasks.scopes import scope_of

log = logging.getLogger(__name__)

ASK = timedelta(seconds=1)
LOOKS = 5
LOOK_AGAIN = 0.3
"""Seconds between looks for the crash report of a process that has just died."""


class Receiving:
    """Decides about deliveries of one instance."""

    def __init__(self, bus: Bus, clock: Clock, principal: str) -> None:
        self._bus = bus
        self._clock = clock
        self._principal = principal
        self._connected = clock.now()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        bus.on_reconnect(self._reconnected)

    def _reconnected(self) -> None:
        self._connected = self._clock.now()

    def turn(self, delivery: Delivery) -> asyncio.Lock:
        """The task's: held until its attempt stands among the running ones, so that a second delivery sees it there."""
        return self._turns.setdefault(scope_of(delivery.stored.subject), asyncio.Lock())

    async def receive(
        self, delivery: Delivery, running: dict[str, Attempt], cancels: dict[str, float]
    ) -> Attempt | None:
        """The attempt to run; None where there is nothing to run (then the delivery is settled).

        An attempt with `cancel_reason` set is not to be run but to be ended. Raises Lost.
        """
        attempt = self._attempt(delivery)
        if attempt is None:
            return None
        task = attempt.subject.task
        fresh = holding.receive(
            delivery.stored, attempt.scope, delivery.deliveries, self._clock.now()
        )
        usual = (
            fresh is holding.Fresh.RUN
            and attempt.dispatched.attempt == 1  # later ones may have something recorded
            and self._is_of_this_connection(delivery)
            and task not in running
            and task not in cancels
        )
        if not usual and (task in running or not await self._is_newest(attempt)):
            history = await attempt.read()
            if not await self._begin(attempt, history, running.get(task)):
                return None
        deadline = attempt.dispatched.deadline
        late = deadline is not None and deadline <= self._clock.now()
        if late and attempt.cancel_reason is None and not attempt.dispatched.undoing:
            return await self._given_up(attempt)
        return attempt

    async def _given_up(self, attempt: Attempt) -> Attempt | None:
        """End an attempt whose deadline has passed; the attempt itself where it is cancelled meanwhile."""
        try:
            await attempt.failed(too_late())
        except CancelledMeanwhile:
            return attempt  # its undos come first
        attempt.delivery.ack()
        return None

    async def give_back(self, delivery: Delivery, why: str = "no-slot") -> None:
        """Hand back a delivery that has not begun: `released` first, so that it counts as no crash (rule 9)."""
        attempt = self._attempt(delivery)
        if attempt is None:
            return
        with contextlib.suppress(Lost, SwitchgearError):
            history = await attempt.read()
            if history.live_dispatch != delivery.stored.sequence:
                if history.ended is not None:
                    await ending.found_ended(self._bus, self._clock, history, attempt.dispatched)
                delivery.ack()
                return
            if history.position == "held" and history.holder in (None, self._bus.name):
                attempt.hold = history.hold
                attempt.last, attempt.valid = history.last, history.last_valid
                await attempt.released(why)
            delivery.nak()

    def _attempt(self, delivery: Delivery) -> Attempt | None:
        """The delivery as an attempt; what cannot be read is void, so not live, so acked (rule 4)."""
        stored = delivery.stored
        try:
            subject = subjects.parse_task(stored.subject)
            entry = codec.decode_entry(subject, stored.data)
        except ProtocolError as error:
            log.warning("ledger.void-entry %s at %d: %s", stored.subject, stored.sequence, error)
            delivery.ack()
            return None
        if not isinstance(entry, entries.Dispatched):
            delivery.ack()
            return None
        return Attempt(self._bus, self._clock, delivery, subject, entry)

    def _is_of_this_connection(self, delivery: Delivery) -> bool:
        """Whether it was stored since we connected: a killed broker forgets acks, and is back within that second."""
        return delivery.stored.time > self._connected + limits.CLOCK_TOLERANCE

    async def _is_newest(self, attempt: Attempt) -> bool:
        """Whether this is a first delivery that only waited in its lane: one cheap read tells."""
        delivery = attempt.delivery
        if delivery.deliveries != 1 or attempt.dispatched.attempt != 1:
            return False
        if expectation(delivery.stored.headers, attempt.scope) is None:
            return False
        tail = await self._bus.ledger.tail(attempt.scope)
        return tail is not None and tail.sequence == delivery.stored.sequence

    async def _begin(self, attempt: Attempt, history: History, mine: Attempt | None) -> bool:
        """Whether the attempt is to go on after all that its history says."""
        delivery = attempt.delivery
        begin = holding.begin(
            history,
            delivery.stored.sequence,
            self._bus.name,
            delivery.deliveries,
            running=(
                mine is not None
                and not mine.lost
                and not mine.stalled
                and mine.delivery.stored.sequence == delivery.stored.sequence
            ),
        )
        if begin.act == "ack":
            if history.ended is not None:
                await ending.found_ended(self._bus, self._clock, history, attempt.dispatched)
            delivery.ack()
            return False
        if begin.act == "go-on":
            assert mine is not None
            mine.delivery = delivery
            return False
        attempt.last, attempt.valid = history.last, history.last_valid
        attempt.failures, attempt.history = history.failures, history
        if begin.act == "take-over":
            how = await self._how(attempt, begin, history)
            history = await attempt.take_over(history, begin.former, how)
            attempt.failures, attempt.history = history.failures, history
            # where its answer was lost, the history holds the take-over already
            told = history.hold == attempt.hold
            crashes = history.crashes + (how == "crash" and not told)
            if crashes > limits.MAX_CRASHES:
                await self._end_poisoned(attempt, history, crashes, begin.former)
                return False
        if history.cancelling is not None:
            attempt.cancel_reason = history.cancelling.reason
        return True

    async def _how(self, attempt: Attempt, begin: holding.Begin, history: History) -> How:
        """How the task came here: a broker outage longer than the lease is no crash of the handler.

        Nor is the death of who took it over only to end it: what is poison is so after exactly the limit.
        """
        if begin.loose or history.crashes > limits.MAX_CRASHES:
            return "released"
        query = HolderQuery(task=attempt.subject.task)
        try:
            told = await ask(self._bus.core, "holder", self._principal, query, Holder, timeout=ASK)
            runner = told.instance
        except SwitchgearError:
            return "crash"
        return "alive" if runner not in ("", self._bus.name) else "crash"

    async def _end_poisoned(
        self, attempt: Attempt, history: History, crashes: int, former: str
    ) -> None:
        left = f"{history.undos} undos were not run" if history.undos else ""
        if history.cancelling is not None:
            await self._end_cancelled(attempt, history.cancelling.reason, left)
        else:
            told = await self._last_words(attempt, _last_victim(history) or former)
            try:
                await attempt.failed(crash_loop(crashes, told.ended, told.last_words))
            except CancelledMeanwhile as meanwhile:
                await self._end_cancelled(attempt, str(meanwhile), left)
        attempt.delivery.ack()

    async def _last_words(self, attempt: Attempt, former: str) -> Holder:
        """How the former holder died; whoever watched it may still be telling the broker."""
        nothing = Holder(instance="")
        if not subjects.is_token(former):
            return nothing
        query = HolderQuery(task=attempt.subject.task, former=former)
        for _ in range(LOOKS):
            attempt.delivery.in_progress()
            with contextlib.suppress(SwitchgearError):
                told = await ask(
                    self._bus.core, "holder", self._principal, query, Holder, timeout=ASK
                )
                if told.ended:
                    return told
            await asyncio.sleep(LOOK_AGAIN)
        return nothing

    async def _end_cancelled(self, attempt: Attempt, reason: str, note: str = "") -> None:
        """End a task that is not run (any more); its children end with it."""
        await attempt.cancelled(reason, note)
        left = () if attempt.history is None else children.named(attempt.history)
        await ending.ended(attempt, left)


def _last_victim(history: History) -> str:
    """Whom the handler took down once too often, where another has taken over since to end the attempt."""
    if history.crashes <= limits.MAX_CRASHES:
        return ""
    crashes = (
        one.entry
        for one in reversed(history.valid)
        if isinstance(one.entry, entries.TakenOver) and one.entry.how == "crash"
    )
    return next(crashes).former
