"""What arrives at a coordinator, and is acked last: entries, due timers, wakes, what is left in dead lanes.

A usual submission takes no task switch and no read: the consumed entry is the whole history. Everything else goes
the long way through `Settling`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from switchgear import crashpoint
from switchgear.bus.port import Appended, Bus, Consuming, Delivery, Refused
from switchgear.contract import codec, subjects
from switchgear.contract.stored import Stored
from switchgear.coordinator.effects import Due
from switchgear.coordinator.schedules import CRON
from switchgear.coordinator.settling import Settling
from switchgear.coordinator.viewing import ENTRY, Occasion, Viewing
from switchgear.errors import ProtocolError, SwitchgearError, Unavailable
from switchgear.lifecycle.coordination import Decision
from switchgear.lifecycle.history import History

log = logging.getLogger(__name__)

IN_FLIGHT = 1024
"""Submissions that one replica works on at a time."""
AGAIN = timedelta(seconds=1)
"""After how long a delivery comes again whose handling failed."""
REST = timedelta(milliseconds=20)
"""Pause between two looks at a task whose children end one after another: their wakes are settled together."""


class _Arrived(NamedTuple):
    """A delivery, and what it says."""

    delivery: Delivery
    occasion: Occasion = ENTRY


class Arriving:
    """Consumes the intakes, from `start` to `stop`."""

    def __init__(self, bus: Bus, viewing: Viewing, settling: Settling) -> None:
        self._bus = bus
        self._viewing = viewing
        self._settling = settling
        self.admits: Callable[[Delivery, History, bool], bool] = _everybody
        """Whether a fresh submission is placed now; else it comes again by itself."""
        self.failed: Callable[[BaseException], None] = _nothing
        """Hears of each append that failed."""
        self.scheduled: Callable[[subjects.TimerSubject, datetime], Coroutine[Any, Any, None]] = (
            _no_schedule
        )
        """Fires the schedule whose timer was stored as due at that time."""
        self._consuming: list[Consuming] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[tuple[str, str], list[_Arrived]] = {}
        """Scopes that are being settled, by kind of due message, with what came meanwhile."""

    async def start(self) -> None:
        """Begin to work; the intakes exist."""
        consume = self._bus.work.consume
        self._consuming = [
            consume("intake-submitted", self.submitted, in_flight=IN_FLIGHT),
            consume("intake-transitions", self._transition, in_flight=IN_FLIGHT),
            consume("intake-due", self._due, in_flight=IN_FLIGHT, source="timers"),
        ]

    async def stop(self) -> None:
        """Take nothing new, finish what is in hand for a moment, leave the rest to the other replicas."""
        await asyncio.gather(*(consuming.end() for consuming in self._consuming))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # what arrives

    def submitted(self, delivery: Delivery, *, own: bool = False) -> None:
        """A submission; `own`: from its owner's own intake."""
        subject = _subject(delivery)
        if subject is None:
            return
        history = History(subject.scope)
        history.add(delivery.stored, subject)
        if history.position != "queued" or self.admits(delivery, history, own):
            self.place(delivery, history)

    def place(self, delivery: Delivery, history: History) -> None:
        """Dispatch a submission, or whatever is to be done; the usual one, fresh and plain, without a read."""
        try:
            self._place(delivery, history)
        except Exception:
            log.exception("coordinator.failed %s", delivery.stored.subject)
            delivery.nak(AGAIN)

    async def emptied(self, delivery: Delivery) -> None:
        """A delivery from the lane of a pool that is gone: placed anew if it is live."""
        subject = _subject(delivery)
        if subject is not None:
            await self._guarded([delivery], self._place_anew(subject.scope, delivery.stored))

    async def _place_anew(self, scope: str, stored: Stored) -> None:
        """Dispatch it elsewhere. Raises Unavailable while it is live where it is, as one being cancelled stays."""
        await self._settling.settle(scope, Occasion(lost=stored.sequence), newest=stored)
        history = await self._viewing.histories.now(scope)
        if history.live_dispatch == stored.sequence:
            raise Unavailable(f"{scope} is still held where nobody can be")

    def spawn(self, work: Coroutine[Any, Any, None], *deliveries: Delivery) -> None:
        """Do this beside; the deliveries are acked when it is done, and come again when it fails."""
        task = asyncio.ensure_future(self._guarded(list(deliveries), work))
        # a stop may cancel the task before its first step, and so before it awaits the work
        task.add_done_callback(lambda _: work.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _transition(self, delivery: Delivery) -> None:
        subject = _subject(delivery)
        if subject is not None:
            self._soon(subject.scope, _Arrived(delivery))

    def _due(self, delivery: Delivery) -> None:
        try:
            subject = subjects.parse_timer(delivery.stored.subject)
            due = codec.decode(delivery.stored.data or b"{}", Due)
        except ProtocolError as error:
            log.warning("coordinator.due-refused %s: %s", delivery.stored.subject, error)
            delivery.ack()
            return
        if subject.kind == CRON:
            self.spawn(self.scheduled(subject, delivery.stored.time), delivery)
            return
        occasion = Occasion(subject.kind, due.n, delivery.stored.time)
        self._soon(subject.scope, _Arrived(delivery, occasion))

    # the usual path

    def _place(self, delivery: Delivery, history: History) -> None:
        scope = history.scope
        if not _is_plain(history):
            self._soon(scope, _Arrived(delivery))
            return
        decision = self._settling.decide(history, self._viewing.fresh(history))
        if decision.effects or decision.then or decision.entry is None:
            newest = delivery.stored
            self.spawn(self._settling.settle(scope, newest=newest, history=history), delivery)
            return
        answer = asyncio.ensure_future(self._settling.append(history, decision))
        answer.add_done_callback(lambda done: self._answered(history, decision, delivery, done))

    def _answered(
        self,
        history: History,
        decision: Decision,
        delivery: Delivery,
        done: asyncio.Future[Appended | Refused],
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            log.error("coordinator.append-failed %s: %s", history.scope, error)
            self.failed(error)
            delivery.nak(AGAIN)
        elif isinstance(done.result(), Appended):
            crashpoint.reach("coordinator.after-append")
            self._viewing.decided(history, decision)
            crashpoint.reach("coordinator.before-ack")
            delivery.ack()
        else:
            self._soon(history.scope, _Arrived(delivery))

    # the long way

    def _soon(self, scope: str, arrived: _Arrived) -> None:
        """Settle the task; what comes while that is under way is settled together afterwards.

        A flood of entries of one task, wakes by its children, or redeliveries to a slow replica would else cost
        a history each.
        """
        key = scope, arrived.occasion.due
        waiting = self._under_way.get(key)
        if waiting is not None:
            waiting.append(arrived)
            return
        self._under_way[key] = []
        self.spawn(self._settle_all(key, [arrived]))

    async def _settle_all(self, key: tuple[str, str], together: list[_Arrived]) -> None:
        scope, due = key
        try:
            while together:
                newest = max((one.delivery.stored for one in together), key=_sequence)
                rechecks = max(one.occasion.rechecks for one in together)
                occasion = Occasion(due, rechecks, newest.time)
                settling = self._settling.settle(scope, occasion, newest=None if due else newest)
                await self._guarded([one.delivery for one in together], settling)
                if due == "child":
                    await asyncio.sleep(REST.total_seconds())
                together, self._under_way[key] = self._under_way[key], []
        finally:
            del self._under_way[key]

    async def _guarded(self, deliveries: list[Delivery], work: Awaitable[None]) -> None:
        """One task's trouble is not the service's: what led to it goes back, and so does its place in the intake."""
        try:
            await work
        except SwitchgearError as error:
            log.error("coordinator.failed %s", error)
            self.failed(error)
        except Exception:
            log.exception("coordinator.failed")
        else:
            crashpoint.reach("coordinator.before-ack")
            for delivery in deliveries:
                delivery.ack()
            return
        for delivery in deliveries:
            delivery.nak(AGAIN)


def _is_plain(history: History) -> bool:
    """Whether nothing but the submission itself decides what becomes of it."""
    if history.position != "queued":
        return False
    submission = history.submitted
    if submission is None:
        return True
    if submission.input_blob is not None or submission.after is not None:
        return False
    return submission.parent is None or submission.detached


def _subject(delivery: Delivery) -> subjects.TaskSubject | None:
    try:
        return subjects.parse_task(delivery.stored.subject)
    except ProtocolError as error:
        log.warning("coordinator.subject-refused %s: %s", delivery.stored.subject, error)
        delivery.ack()
        return None


def _everybody(_delivery: Delivery, _history: History, _own: bool) -> bool:  # noqa: FBT001  # a callback's
    return True


def _nothing(_error: BaseException) -> None:
    """Nobody wants to hear of it."""


async def _no_schedule(_subject: subjects.TimerSubject, _at: datetime) -> None:
    """Nobody keeps schedules."""


def _sequence(stored: Any) -> int:
    return stored.sequence
