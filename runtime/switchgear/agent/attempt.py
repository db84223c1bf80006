"""One attempt: from a delivery to its last entry. Appends under its hold, and stops when it has lost it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypedDict

from switchgear import crashpoint, ids
from switchgear.bus.port import Appended, Bus, Delivery, Refused
from switchgear.clock import Clock, NotBefore
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.values import Awaited, Failure, State, Status
from switchgear.errors import Unavailable
from switchgear.lifecycle import holding
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.payload import Payload
from switchgear.tasks.voids import log_voids

log = logging.getLogger(__name__)

How = Literal["released", "alive", "crash"]
"""How a task came to its next holder (rule 9)."""

_LAST: tuple[subjects.Event, ...] = (
    "completed",
    "attempt-failed",
    "released",
    "cancelled",
    "expired",
)
_LEGAL_CANCELLING = ("cancelled", "expired", "released")
TRIES = 100
"""Refusals of one entry in a row before the attempt gives the task up to its lease."""


class Lost(Exception):
    """The task is another's now, or has ended: stop, and touch the delivery no more."""


class CancelledMeanwhile(Exception):
    """The task is being cancelled: end it so instead."""


class Suspended(Exception):
    """The task waits in the ledger: its handler is to leave, and nothing more is appended."""


class Waiting(Protocol):
    """What the calls of a handler wait for."""

    @property
    def any(self) -> bool:
        """Whether one of them waits."""
        ...


class Common(TypedDict):
    """The fields that every entry of an agent carries."""

    id: str
    task: str
    time: datetime
    writer: str
    prev: int
    trace: str | None
    hold: int
    attempt: int
    status: Status


class Attempt:
    """The hold of one task by this instance, and what is appended under it."""

    refused = False
    """A breaker refused one of its steps: it may be about to be handed back."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        delivery: Delivery,
        subject: subjects.TaskSubject,
        dispatched: entries.Dispatched,
    ) -> None:
        self.bus = bus
        self.clock = NotBefore(clock, delivery.stored.time)
        self.delivery = delivery
        self.subject = subject
        self.scope = subject.scope
        self.dispatched = dispatched
        self.hold = delivery.stored.sequence
        self.last = delivery.stored.sequence
        self.valid = delivery.stored.sequence
        self.failures = dispatched.status.failures
        self.started = clock.now()
        self._loop = asyncio.get_running_loop()
        self.moved = self._loop.time()
        """Event loop time of the last sign of progress."""
        self.running: asyncio.Task[None] | None = None
        self.cancel_reason: str | None = None
        self.handing_back = False
        self.settling = False
        """The handler has left; what came of it is being appended, and not to be interrupted."""
        self.lost = False
        self.over = False
        """Its last entry stands: what the handler left running may append nothing behind it."""
        self.suspended = False
        """`waiting` is stored: the handler is to leave, and whatever it still does counts for nothing."""
        self.stalled = False
        """It showed no progress for too long: it is being stopped, and no longer counts as running here."""
        self.undo_time: asyncio.Timeout | None = None
        """Set while recorded undos are run: a cancel does not interrupt them, it bounds them."""
        self.cancelled_at: float | None = None
        """Event loop time at which the cancel was seen."""
        self.waits: Waiting | None = None
        """What its handler waits for, while one runs."""
        self.history: History | None = None
        """What was stored when the attempt began; None for a first delivery, which has nothing recorded."""
        self._appending = asyncio.Lock()

    def stop(self, reason: str) -> None:
        """The ledger says that the task is being cancelled: its handler is to leave."""
        self.cancel_reason = reason
        self.cancelled_at = self._loop.time()
        self.interrupt()

    def interrupt(self) -> None:
        """Let the handler be left by CancelledError; recorded undos run on, whatever there is to tell them."""
        running = self.running
        if running is None or self.undo_time is not None or self.settling:
            return
        if running is not asyncio.current_task():  # who calls from within it leaves by itself
            running.cancel()

    def move(self) -> None:
        """The handler shows that it is alive, from whatever thread."""
        self.moved = self._loop.time()

    def common(self, state: State, reason: str = "") -> Common:
        """The fields of an entry that is about to be appended."""
        now = self.clock.now()
        return {
            "id": ids.entry_id(),
            "task": self.subject.task,
            "time": now,
            "writer": self.bus.name,
            "prev": self.valid,
            "trace": self.dispatched.trace,
            "hold": self.hold,
            "attempt": self.dispatched.attempt,
            "status": Status(
                state=state,
                submitted_at=self.dispatched.status.submitted_at,
                attempt=self.dispatched.attempt,
                failures=self.failures,
                reason=reason[:200],
            ),
        }

    async def append(
        self,
        event: subjects.Event,
        make: Callable[[], entries.Entry],
        *,
        still: Callable[[History], bool] | None = None,
    ) -> bool:
        """Append under the hold, reading and deciding anew after each refusal.

        One append at a time: each expects the one before. `make` is called again for each try, since `prev` and
        the hold may have moved. `still`: whether what is stored by now leaves the entry as right as it was; where
        it does not, nothing is appended, and False returned. Raises Lost, CancelledMeanwhile, Suspended.
        """
        async with self._appending:
            if self.suspended:
                raise Suspended
            if self.over:
                raise Lost("its last entry stands")
            for _ in range(TRIES):
                # `last` may be the cancel by now: the broker would take what counts for nothing
                if self.cancel_reason is not None and not self._may_follow_cancel(event):
                    raise CancelledMeanwhile(self.cancel_reason)
                entry = make()
                answer = await self._send(event, entry)
                if isinstance(answer, Appended):
                    self.last = self.valid = answer.sequence
                    self.suspended, self.over = event == "waiting", event in _LAST
                    return True
                history = await self.read()
                if self._after_refusal(history, entry.id, event):
                    self.suspended, self.over = event == "waiting", event in _LAST
                    return True
                if still is not None and not still(history):
                    return False
            self.lost = True
            raise Lost(f"{TRIES} appends in a row were refused")

    def _after_refusal(self, history: History, entry_id: str, event: subjects.Event) -> bool:
        """Whether the refused entry had landed; False for another try. Raises Lost, CancelledMeanwhile."""
        after = holding.after_refusal(history, entry_id, self.hold, self.bus.name)
        if after.act == "lost":
            self.lost = True
            log.info("attempt.lost %s: %s", self.subject.task, after.reason)
            raise Lost(after.reason)
        self.last, self.valid = after.expect, history.last_valid
        if after.act == "cancelled":
            if self.cancel_reason is None:
                self.cancel_reason = after.reason
                self.cancelled_at = self._loop.time()
            if not self._may_follow_cancel(event):
                raise CancelledMeanwhile(after.reason)
        return after.act == "landed"

    def _may_follow_cancel(self, event: subjects.Event) -> bool:
        undoing = self.undo_time is not None and event == "checkpoint"
        return undoing or event in _LEGAL_CANCELLING

    async def refresh(self) -> History:
        """The history as stored now, which the next append builds on."""
        async with self._appending:
            history = await self.read()
            # an end, or a cancel that nobody has acted on, is to refuse the next append
            unseen = history.cancelling is not None and self.cancel_reason is None
            ours = history.hold == self.hold and history.ended is None and not unseen
            if ours and history.last >= self.last:
                self.last, self.valid = history.last, history.last_valid
            return history

    async def _send(self, event: subjects.Event, entry: entries.Entry) -> Appended | Refused:
        """Append once; a ledger without room is asked again until it has some (rule 19)."""
        while True:
            try:
                return await self.bus.ledger.append(
                    subjects.task_event(self.scope, event),
                    codec.encode(entry),
                    scope=self.scope,
                    expect=self.last,
                )
            except Unavailable as error:
                if error.retry_after is None:
                    raise
                await asyncio.sleep(error.retry_after)

    async def read(self) -> History:
        """The task's history as stored now; what is void in it is logged."""
        history = fold(self.scope, await self.bus.ledger.history(self.scope))
        log_voids(history)
        return history

    async def take_over(self, history: History, former: str, how: How) -> History:
        """Begin as the next holder: from here on every append of the former one is refused (rule 8).

        Returns the history that it ended. Raises Lost where another took over, or nothing is left to take.
        """
        for _ in range(TRIES):
            self.hold, self.last, self.valid = history.hold, history.last, history.last_valid
            entry = entries.TakenOver(
                v=entries.VERSION,
                **self.common("held"),
                deliveries=self.delivery.deliveries,
                how=how,
                former=former,
                started=self.started,
            )
            answer = await self._send("taken-over", entry)
            if isinstance(answer, Appended):
                self.last = self.valid = self.hold = answer.sequence
                crashpoint.reach("agent.after-take-over")
                return history
            now = await self.read()
            landed = now.landed(entry.id)
            if landed and now.hold == landed and now.ended is None:
                self.last, self.valid, self.hold = now.last, now.last_valid, landed
                return now
            if now.hold != history.hold or now.live_dispatch != self.delivery.stored.sequence:
                break
            history = now  # only void entries, a signal or a cancel came between (rule 2)
        self.lost = True
        raise Lost("another instance took it over meanwhile")

    async def checkpoint(
        self,
        make: Callable[[Common], entries.Checkpoint],
        *,
        still: Callable[[History], bool] | None = None,
    ) -> bool:
        """Append a recorded end; `still` as for `append`."""
        crashpoint.reach("agent.before-checkpoint")
        stands = await self.append("checkpoint", lambda: make(self.common("held")), still=still)
        crashpoint.reach("agent.after-checkpoint")
        return stands

    async def waiting(
        self,
        reason: entries.Reason,
        detail: str,
        waits: Sequence[Awaited],
        payload: Payload | None,
        still: Callable[[History], bool],
    ) -> bool:
        """Give up the slot for as long as the handler only waits; `payload`: the waits, where they are many."""
        until = min((one.until for one in waits if one.until is not None), default=None)
        crashpoint.reach("agent.before-waiting")
        stands = await self.append(
            "waiting",
            lambda: entries.Waiting(
                v=entries.VERSION,
                **self.common("waiting", detail),
                reason=reason,
                detail=detail,
                until=until,
                waits=() if payload is not None else tuple(waits),
                waits_blob=None if payload is None else payload.blob,
            ),
            still=still,
        )
        crashpoint.reach("agent.after-waiting")
        return stands

    async def completed(self, stored: Payload) -> None:
        """Append the result."""
        crashpoint.reach("agent.before-completed")
        await self.append(
            "completed",
            lambda: entries.Completed(
                v=entries.VERSION,
                **self.common("completed"),
                output=stored.inline,
                output_blob=stored.blob,
                started=self.started,
            ),
        )
        crashpoint.reach("agent.after-completed")

    async def failed(self, failure: Failure) -> None:
        """Append the failure of this attempt; a coordinator decides what follows."""
        self.failures += 1
        try:
            await self.append(
                "attempt-failed",
                lambda: entries.AttemptFailed(
                    v=entries.VERSION,
                    **self.common("failed", failure.message),
                    error=failure,
                    started=self.started,
                ),
            )
        except CancelledMeanwhile:
            self.failures -= 1
            raise
        crashpoint.reach("agent.after-attempt-failed")

    async def released(self, why: str, dependency: str = "") -> None:
        """Hand the task back, unfinished, on purpose: no crash (rule 9). `dependency`: whose breaker refused it."""
        await self.append(
            "released",
            lambda: entries.Released(
                v=entries.VERSION,
                **self.common("loose", f"{why} {dependency}".strip()),
                why=why,  # type: ignore[arg-type]  # callers pass literals
                dependency=dependency,
                started=self.started,
            ),
        )

    async def cancelled(self, reason: str, note: str = "") -> None:
        """End the task as cancelled; as expired where its deadline is the reason. `note`: what was left undone."""
        if reason == "deadline":
            why = "; ".join(filter(None, ("its deadline passed", note)))
            await self.append(
                "expired",
                lambda: entries.Expired(
                    v=entries.VERSION,
                    **self.common("expired", why),
                    deadline=self.dispatched.deadline,
                ),
            )
            return
        why = "; ".join(filter(None, (reason, note)))[: limits.MAX_TEXT]
        await self.append(
            "cancelled",
            lambda: entries.Cancelled(
                v=entries.VERSION, **self.common("cancelled", why), reason=why
            ),
        )
