"""One attempt: from a delivery to its last entry. Appends under its hold, and stops when it has lost it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypedDict

from switchgear import ids
from switchgear.bus.port import Appended, Bus, Delivery, Refused
from switchgear.clock import Clock
from switchgear.contract import codec, entries, subjects
from switchgear.contract.values import Failure, State, Status
from switchgear.errors import Unavailable
from switchgear.lifecycle import holding
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.voids import log_voids

log = logging.getLogger(__name__)

How = Literal["released", "alive", "crash"]
"""How a task came to its next holder (rule 9)."""

TRIES = 100
"""Refusals of one entry in a row before the attempt gives the task up to its lease."""


class Lost(Exception):
    """The task is another's now, or has ended: stop, and touch the delivery no more."""


class CancelledMeanwhile(Exception):
    """The task is being cancelled: end it so instead."""


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

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        delivery: Delivery,
        subject: subjects.TaskSubject,
        dispatched: entries.Dispatched,
    ) -> None:
        self.bus = bus
        self.clock = clock
        self.delivery = delivery
        self.subject = subject
        self.scope = subject.scope
        self.dispatched = dispatched
        self.hold = delivery.stored.sequence
        self.last = delivery.stored.sequence
        self.valid = delivery.stored.sequence
        self.failures = dispatched.status.failures
        self.started = clock.now()
        self.moved = asyncio.get_running_loop().time()
        """Event loop time of the last sign of progress."""
        self.running: asyncio.Task[None] | None = None
        self.cancel_reason: str | None = None
        self.handing_back = False
        self.settling = False
        """The handler has left; what came of it is being appended, and not to be interrupted."""
        self.lost = False

    def move(self) -> None:
        """The handler shows that it is alive."""
        self.moved = asyncio.get_running_loop().time()

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

    async def append(self, event: subjects.Event, make: Callable[[], entries.Entry]) -> None:
        """Append under the hold, reading and deciding anew after each refusal. Raises Lost, CancelledMeanwhile.

        `make` is called again for each try, since `prev` and the hold may have moved.
        """
        for _ in range(TRIES):
            entry = make()
            answer = await self._send(event, entry)
            if isinstance(answer, Appended):
                self.last = self.valid = answer.sequence
                return
            history = await self.read()
            after = holding.after_refusal(history, entry.id, self.hold, self.bus.name)
            if after.act == "landed":
                self.last, self.valid = history.last, history.last_valid
                return
            if after.act == "lost":
                self.lost = True
                log.info("attempt.lost %s: %s", self.subject.task, after.reason)
                raise Lost(after.reason)
            self.last, self.valid = history.last, history.last_valid
            if after.act == "cancelled" and event not in ("cancelled", "expired", "released"):
                self.cancel_reason = after.reason
                raise CancelledMeanwhile(after.reason)
        self.lost = True
        raise Lost(f"{TRIES} appends in a row were refused")

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
                return history
            now = await self.read()
            landed = now.landed(entry.id)
            if landed and now.hold == landed:
                self.last, self.valid, self.hold = now.last, now.last_valid, landed
                return now
            if now.hold != history.hold or now.live_dispatch != self.delivery.stored.sequence:
                break
            history = now  # only void entries, a signal or a cancel came between (rule 2)
        self.lost = True
        raise Lost("another instance took it over meanwhile")

    async def completed(self, output: bytes) -> None:
        """Append the result."""
        from switchgear.tasks import payload

        stored = await payload.store(self.bus.blobs, output)
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

    async def failed(self, failure: Failure) -> None:
        """Append the failure of this attempt; a coordinator decides what follows."""
        self.failures += 1
        await self.append(
            "attempt-failed",
            lambda: entries.AttemptFailed(
                v=entries.VERSION,
                **self.common("failed", failure.message),
                error=failure,
                started=self.started,
            ),
        )

    async def released(self, why: str) -> None:
        """Hand the task back, unfinished, on purpose: no crash (rule 9)."""
        await self.append(
            "released",
            lambda: entries.Released(
                v=entries.VERSION,
                **self.common("loose", why),
                why=why,  # type: ignore[arg-type]  # callers pass literals
                started=self.started,
            ),
        )

    async def cancelled(self, reason: str) -> None:
        """End the task as cancelled; as expired where its deadline is the reason."""
        if reason == "deadline":
            await self.append(
                "expired",
                lambda: entries.Expired(
                    v=entries.VERSION,
                    **self.common("expired", "its deadline passed"),
                    deadline=self.dispatched.deadline,
                ),
            )
            return
        await self.append(
            "cancelled",
            lambda: entries.Cancelled(
                v=entries.VERSION, **self.common("cancelled", reason), reason=reason
            ),
        )
