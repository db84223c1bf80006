"""The coordinator's shell: consumes what was appended, decides, appends, acks last.

A usual submission takes no task switch and no read: the consumed entry is the whole history. Everything else
goes the long way through `_settle`, which reads, decides and appends until the ledger agrees.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Coroutine
from datetime import timedelta
from typing import Any

import msgspec

from switchgear import ids
from switchgear.bus.port import Appended, Bus, Consuming, Delivery, Refused
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import codec, subjects
from switchgear.contract.queries import Cancel
from switchgear.coordinator import reading, schemas
from switchgear.coordinator.lanes import LaneWatch
from switchgear.coordinator.queries import Queries
from switchgear.errors import NotFound, ProtocolError, SwitchgearError
from switchgear.lifecycle import coordination
from switchgear.lifecycle.history import History
from switchgear.registry.watch import RegistryWatch
from switchgear.tasks import payload
from switchgear.tasks.voids import log_voids

log = logging.getLogger(__name__)

IN_FLIGHT = 1024
"""Submissions that one replica works on at a time."""
AGAIN = timedelta(seconds=1)
"""After how long a delivery comes again whose handling failed."""
TRIES = 100
"""Refusals of one decision in a row; beyond it the delivery is left to its redelivery."""


class _Due(msgspec.Struct):
    """What a timer carries."""

    n: int = 0
    """Re-checks so far."""


class _Together:
    """Deliveries about one task, settled as one: by the newest of them."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self._deliveries = deliveries
        self.stored = max((one.stored for one in deliveries), key=lambda stored: stored.sequence)

    def ack(self) -> None:
        """All of them are done."""
        for delivery in self._deliveries:
            delivery.ack()

    def nak(self, delay: timedelta | None = None) -> None:
        """All of them shall come again."""
        for delivery in self._deliveries:
            delivery.nak(delay)


class Coordinator:
    """One replica. `start`, then `stop`."""

    def __init__(self, bus: Bus, clock: Clock = SYSTEM) -> None:
        self._bus = bus
        self._clock = clock
        self.registry = RegistryWatch(bus, clock, self._offered)
        self._queries = Queries(bus, self.registry)
        self._lanes = LaneWatch(bus.work, self.registry, clock, self._emptied)
        self._consuming: list[Consuming] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: dict[str, list[Delivery]] = {}
        """Scopes that are being settled, with the deliveries that came meanwhile."""

    async def start(self) -> None:
        """Create what is missing, learn who is there, and begin to work. Raises ServerUnfit, Unavailable."""
        work = self._bus.work
        await self._bus.ensure_streams()
        await asyncio.gather(
            work.ensure_intake("intake-submitted", [subjects.SUBMITTED_FILTER]),
            work.ensure_intake("intake-transitions", subjects.TRANSITION_FILTERS),
            work.ensure_intake("intake-due", [subjects.DUE_SUBJECTS], timers=True),
            self.registry.start(),
        )
        await self._queries.start()
        self._consuming = [
            work.consume("intake-submitted", self._submitted, in_flight=IN_FLIGHT),
            work.consume("intake-transitions", self._transition, in_flight=IN_FLIGHT),
            work.consume("intake-due", self._due, in_flight=IN_FLIGHT, timers=True),
        ]
        self._lanes.start()
        log.info("coordinator.ready %s", self._bus.name)

    async def stop(self) -> None:
        """Take nothing new, finish what is in hand for a moment, leave the rest to the other replicas."""
        await self._lanes.stop()
        await asyncio.gather(*(consuming.end() for consuming in self._consuming))
        await self._queries.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.registry.stop()

    # what arrives

    def _submitted(self, delivery: Delivery) -> None:
        """The usual path: a fresh submission, placed without a read."""
        try:
            self._place_fresh(delivery)
        except Exception:
            log.exception("coordinator.failed %s", delivery.stored.subject)
            delivery.nak(AGAIN)

    def _place_fresh(self, delivery: Delivery) -> None:
        subject = self._subject(delivery)
        if subject is None:
            return
        scope = subject.scope
        history = History(scope)
        history.add(delivery.stored, subject)
        submission = history.submitted
        if history.position != "queued" or (submission is not None and submission.input_blob):
            self._soon(scope, delivery)
            return
        decision = self._decide(history, bytes(submission.input) if submission else b"null")
        if decision.effects or decision.entry is None:
            self._later(delivery, self._settle(scope, delivery, history))
            return
        answer = asyncio.ensure_future(self._append(history, decision))
        answer.add_done_callback(lambda done: self._answered(scope, delivery, done))

    def _answered(
        self, scope: str, delivery: Delivery, done: asyncio.Future[Appended | Refused]
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            log.error("coordinator.append-failed %s: %s", scope, error)
            delivery.nak(AGAIN)
        elif isinstance(done.result(), Appended):
            delivery.ack()
        else:
            self._soon(scope, delivery)

    def _transition(self, delivery: Delivery) -> None:
        subject = self._subject(delivery)
        if subject is not None:
            self._soon(subject.scope, delivery)

    def _due(self, delivery: Delivery) -> None:
        try:
            subject = subjects.parse_timer(delivery.stored.subject)
            due = codec.decode(delivery.stored.data or b"{}", _Due)
        except ProtocolError as error:
            log.warning("coordinator.due-refused %s: %s", delivery.stored.subject, error)
            delivery.ack()
            return
        settling = self._settle(subject.scope, delivery, due=subject.kind, rechecks=due.n)
        self._later(delivery, settling)

    def _subject(self, delivery: Delivery) -> subjects.TaskSubject | None:
        try:
            return subjects.parse_task(delivery.stored.subject)
        except ProtocolError as error:
            log.warning("coordinator.subject-refused %s: %s", delivery.stored.subject, error)
            delivery.ack()
            return None

    async def _emptied(self, delivery: Delivery) -> None:
        """A delivery from the lane of a pool that is gone."""
        subject = self._subject(delivery)
        if subject is not None:
            await self._guarded(delivery, self._settle(subject.scope, delivery, lane_gone=True))

    def _offered(self, capabilities: set[str]) -> None:
        """Somebody new offers these: wake who waits for them."""
        for capability in capabilities:
            self._later(None, self._wake(capability))

    # what is done about it

    def _soon(self, scope: str, delivery: Delivery) -> None:
        """Settle the task; what comes while that is under way is settled together afterwards.

        A flood of entries of one task, or redeliveries to a slow replica, would else cost a history each.
        """
        waiting = self._settling.get(scope)
        if waiting is not None:
            waiting.append(delivery)
            return
        self._settling[scope] = []
        self._later(None, self._settle_all(scope, delivery))

    async def _settle_all(self, scope: str, first: Delivery) -> None:
        try:
            await self._guarded(first, self._settle(scope, first))
            while waiting := self._settling[scope]:
                self._settling[scope] = []
                together = _Together(waiting)
                await self._guarded(together, self._settle(scope, together))
        finally:
            del self._settling[scope]

    async def _settle(
        self,
        scope: str,
        delivery: Delivery | _Together,
        history: History | None = None,
        *,
        due: str = "",
        rechecks: int = 0,
        lane_gone: bool = False,
    ) -> None:
        """Bring this task as far as a coordinator can, then ack the delivery that asked for it.

        `lane_gone`: the delivery was pulled from a lane whose pool is gone, to be placed anew.
        """
        ledger = self._bus.ledger
        if history is None and delivery.stored.subject.startswith("sg.task."):
            history = await reading.history_up_to(ledger, scope, delivery.stored)
        for _ in range(TRIES):
            if history is None:
                history = await reading.history_now(ledger, scope)
            if lane_gone and history.live_dispatch != delivery.stored.sequence:
                delivery.ack()
                return
            seen = self.registry.table.version
            decision = self._decide(
                history, await self._input(history), due, rechecks, lane_gone=lane_gone
            )
            await self._arm(scope, decision)
            if decision.entry is None:
                self._tell(history, decision)
                if decision.effects and self.registry.table.version != seen:
                    continue  # somebody was announced while the timer was being armed
                delivery.ack()
                return
            if isinstance(await self._append(history, decision), Appended):
                log.debug("coordinator.appended %s: %s", decision.subject, decision.note)
                if decision.entry.status.state != "waiting":
                    delivery.ack()
                    return
            history = None
        log.error("coordinator.unsettled %s after %d tries", scope, TRIES)
        delivery.nak(AGAIN)

    def _decide(
        self,
        history: History,
        data: bytes | None,
        due: str = "",
        rechecks: int = 0,
        *,
        lane_gone: bool = False,
    ) -> coordination.Decision:
        now = self._clock.now()
        table = self.registry.table
        capability = history.capability
        view = coordination.View(
            pools=table.pools(capability),
            check=schemas.check,
            input=data,
            due=due,
            rechecks=rechecks,
            last_offered=table.last_offered(capability),
            lane_gone=lane_gone,
            settling_until=table.is_settling(now),
        )
        stamp = coordination.Stamp(ids.entry_id(), self._bus.name, now)
        log_voids(history)
        return coordination.decide(history, view, stamp)

    def _append(
        self, history: History, decision: coordination.Decision
    ) -> Awaitable[Appended | Refused]:
        return self._bus.ledger.append(
            decision.subject,
            codec.encode(decision.entry),
            scope=history.scope,
            expect=history.last,
        )

    async def _input(self, history: History) -> bytes | None:
        """The submission's input, fetched only where it will be checked; None where its blob is not there."""
        submission = history.submitted
        if submission is None or history.attempt or history.ended:
            return b"null"
        try:
            return await payload.load(self._bus.blobs, submission.input, submission.input_blob)
        except (NotFound, ProtocolError) as error:
            log.warning("coordinator.input-missing %s: %s", history.scope, error)
            return None

    async def _arm(self, scope: str, decision: coordination.Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, coordination.Arm):
                await self._bus.timers.arm(
                    subjects.timer(scope, effect.kind),
                    subjects.due(scope, effect.kind),
                    effect.at,
                    codec.encode(_Due(effect.rechecks)),
                )

    def _tell(self, history: History, decision: coordination.Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, coordination.TellHolder):
                command = Cancel(task=history.task, reason=effect.reason)
                self._bus.core.publish(subjects.cancel(history.capability), codec.encode(command))

    async def _wake(self, capability: str) -> None:
        # its instance asks for them as well, but may die before: a task must not be in a lane that nobody looks at
        pools = self.registry.table.pools(capability)
        await self._queries.ensure_lanes((capability, pool.offer.pool) for pool in pools)
        for timer in await self._bus.timers.armed(subjects.capacity_timers(capability)):
            scope = subjects.parse_timer(timer).scope
            await self._bus.timers.wake(subjects.due(scope, "capacity"), b"{}")

    def _later(
        self, delivery: Delivery | _Together | None, work: Coroutine[Any, Any, None]
    ) -> None:
        task = asyncio.ensure_future(self._guarded(delivery, work))
        # a stop may cancel the task before its first step, and so before it awaits the work
        task.add_done_callback(lambda _: work.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, delivery: Delivery | _Together | None, work: Awaitable[None]) -> None:
        """One task's trouble is not the service's: its delivery goes back, and so does its place in the intake."""
        try:
            await work
        except SwitchgearError as error:
            log.error("coordinator.failed %s", error)
        except Exception:
            log.exception("coordinator.failed")
        else:
            return
        if delivery is not None:
            delivery.nak(AGAIN)
