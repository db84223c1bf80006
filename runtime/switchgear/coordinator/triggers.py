"""Triggers: what agents declare with `on=` is kept, becomes schedules, and turns topics' messages into tasks.

Every replica does all of it. Declarations are stored by compare-and-set, ids of tasks follow from the messages,
and a message is acked once all that it starts stands, so doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from switchgear.bus.port import Bus, Consuming, Delivery, Kept, Message, Subscription
from switchgear.clock import Clock
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import TopicMessage
from switchgear.contract.trigger import Trigger
from switchgear.coordinator.schedules import ScheduleService
from switchgear.coordinator.starting import Asked, start
from switchgear.errors import Conflict, NotFound, ProtocolError, SwitchgearError
from switchgear.lifecycle import trigger as rules
from switchgear.loop import supervised
from switchgear.registry.table import Table

log = logging.getLogger(__name__)

INTAKE = "intake-topics"
QUEUE = "coordinators"
IN_FLIGHT = 256
"""Messages that one replica works on at a time."""
AGAIN = timedelta(seconds=1)
"""After how long a message comes again whose handling failed."""
LOOK_EVERY = timedelta(seconds=5)
"""How often each replica compares what is announced with what is kept."""
PATIENCE = limits.ANNOUNCE_TTL
"""For how long an older version must have been the newest announced one before its declaration holds."""


class TriggerService:
    """One replica's part. `start`, then `stop`; `offered` when somebody new offers something."""

    def __init__(self, bus: Bus, clock: Clock, table: Table, schedules: ScheduleService) -> None:
        self._bus = bus
        self._clock = clock
        self._table = table
        self._schedules = schedules
        self._kept: dict[str, tuple[Trigger | None, int]] = {}
        """By capability: what is stored, and its sequence."""
        self._changes = 0
        self._held: dict[str, Trigger] = {}
        self._held_at = (-1, -1)
        self._older_since: dict[str, datetime] = {}
        self._scheduled: dict[str, Trigger] | None = None
        """The declarations whose schedules this replica has made."""
        self._wanted = asyncio.Event()
        self._running: list[Consuming] = []
        self._subscription: Subscription | None = None
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Learn what is kept, then take messages. Raises ServerUnfit, Unavailable."""
        work = self._bus.work
        await work.ensure_intake(INTAKE, [subjects.TOPIC_SUBJECTS], source="topics")
        filtered = subjects.trigger("*")
        self._running = [await self._bus.documents.watch(filtered, self._stored)]
        await self._look_safely()
        self._looking = asyncio.create_task(supervised("triggers", self._look_on), name="triggers")
        self._running.append(work.consume(INTAKE, self._told, in_flight=IN_FLIGHT, source="topics"))
        self._subscription = await self._bus.core.subscribe(
            subjects.CAST_SUBJECTS, self._cast, queue=QUEUE
        )

    async def stop(self) -> None:
        """Take no more messages, finish what is in hand for a moment, leave the rest to the other replicas."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._subscription is not None:
            with contextlib.suppress(SwitchgearError):
                await self._subscription.unsubscribe()
        for one in reversed(self._running):
            await one.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def offered(self) -> None:
        """Somebody new offers something: look soon whether it declares triggers."""
        self._wanted.set()

    # what is declared

    async def look(self) -> None:
        """Store what holds now where it differs, and make its schedules. Raises Unavailable."""
        held = self._holding()
        for capability, trigger in held.items():
            kept, sequence = self._kept.get(capability, (None, 0))
            if rules.to_keep(kept, trigger):
                # Refused: another replica was faster, and the watch brings what it stored.
                await self._bus.documents.put(
                    subjects.trigger(capability), codec.encode(trigger), expect=sequence
                )
                log.info("coordinator.triggers %s of %s", capability, trigger.agent)
        if self._scheduled != held:
            await self._make_schedules(held)
            self._scheduled = held

    async def _look_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY.total_seconds()):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._look_safely()

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except SwitchgearError as error:
            log.warning("coordinator.triggers-unread %s", error)

    def _holding(self) -> dict[str, Trigger]:
        """By capability, the declaration that holds now."""
        state = (self._table.version, self._changes)
        if state == self._held_at and not self._older_since:
            return self._held
        now = self._clock.now()
        live = rules.announced(one.announcement for one in self._table.instances.values())
        kept = {name: found for name, (found, _) in self._kept.items() if found is not None}
        older = {name for name in kept if rules.is_older(kept[name], live.get(name))}
        self._older_since = {name: self._older_since.get(name, now) for name in older}
        settling = self._table.is_settling(now) is not None
        held: dict[str, Trigger] = {}
        for name in live.keys() | kept.keys():
            patient = settling or now - self._older_since.get(name, now) < PATIENCE
            found = rules.holds(kept.get(name), live.get(name), patient=patient)
            if found is not None and (name in kept or not found.is_empty):
                held[name] = found
        self._held, self._held_at = held, state
        return held

    async def _make_schedules(self, held: dict[str, Trigger]) -> None:
        now = self._clock.now()
        wanted = {
            (one.owner, one.name): one
            for trigger in held.values()
            for one in rules.schedules(trigger, now)
        }
        present = {(one.owner, one.name): one for one in await self._schedules.declared()}
        if not wanted and not present:
            return
        for one in wanted.values():
            try:
                await self._schedules.put(one)
            except Conflict as error:
                log.error("coordinator.schedule-taken %s", error)
        for key, one in present.items():
            if key not in wanted and one.capability in held:
                with contextlib.suppress(NotFound, Conflict):
                    await self._schedules.remove(*key, agent=one.agent)

    def _stored(self, kept: Kept) -> None:
        capability = kept.subject.rpartition(".")[2]
        try:
            found = codec.decode(kept.data, Trigger, limit=limits.MAX_ENTRY) if kept.data else None
        except ProtocolError as error:
            log.error("coordinator.trigger-unreadable %s: %s", kept.subject, error)
            found = None
        if found is not None and found.capability != capability:
            log.error("coordinator.trigger-misplaced %s", kept.subject)
            found = None
        self._kept[capability] = (found, kept.sequence)
        self._changes += 1
        self._wanted.set()

    # what is told

    def _told(self, delivery: Delivery) -> None:
        self._soon(self._settle(delivery))

    def _cast(self, message: Message) -> None:
        self._soon(self._start_safely(message))

    async def _settle(self, delivery: Delivery) -> None:
        """A durable message: acked once all tasks stand."""
        try:
            await self._start_tasks(delivery.stored.subject, delivery.stored.data)
        except ProtocolError as error:
            log.warning("coordinator.message-refused %s: %s", delivery.stored.subject, error)
        except SwitchgearError as error:
            log.error("coordinator.message-failed %s: %s", delivery.stored.subject, error)
            delivery.nak(AGAIN)
            return
        except Exception:
            log.exception("coordinator.message-failed %s", delivery.stored.subject)
            delivery.nak(AGAIN)
            return
        if delivery.deliveries == 1:
            delivery.nak(
                AGAIN
            )  # a trigger that was announced just before may not be known here yet
        else:
            delivery.ack()

    async def _start_safely(self, message: Message) -> None:
        """A message that is stored nowhere: what fails is lost, as it promises no more."""
        try:
            await self._start_tasks(message.subject, message.data)
        except SwitchgearError as error:
            log.warning("coordinator.message-lost %s: %s", message.subject, error)
        except Exception:
            log.exception("coordinator.message-lost %s", message.subject)

    async def _start_tasks(self, subject: str, data: bytes) -> None:
        """One task for each capability that the message triggers. Raises ProtocolError, Unavailable."""
        topic, to = subjects.parse_topic(subject)
        triggers = self._holding().values()
        if not any(each.topic == topic for one in triggers for each in one.topics):
            return
        message = codec.decode(data, TopicMessage, limit=limits.MAX_ENTRY)
        begun = rules.started(topic, to, message, triggers, self._clock.now())
        await asyncio.gather(
            *(
                start(
                    self._bus,
                    self._clock,
                    Asked(
                        capability=one.capability,
                        owner=one.owner,
                        task=one.task,
                        input=message.value,
                        priority=message.priority,
                        depth=message.depth,
                        trace=message.trace,
                    ),
                )
                for one in begun
            )
        )

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        # a stop may cancel the task before its first step, and so before it awaits the work
        task.add_done_callback(lambda _: work.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
