"""Serves an agent on a bus: announces it, feeds its slots, keeps its leases, and leaves in order."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from switchgear import crashpoint
from switchgear.agent.announcing import Announcer
from switchgear.agent.attempt import Attempt, Lost
from switchgear.agent.breaking import Breaking, Try
from switchgear.agent.classifying import Classifier
from switchgear.agent.declare import Agent, Declared
from switchgear.agent.executing import Executing
from switchgear.agent.feeder import Feeder
from switchgear.agent.handling import Handling, left
from switchgear.agent.leases import Leases
from switchgear.agent.lines import collected
from switchgear.agent.listening import Listening
from switchgear.agent.receiving import Receiving
from switchgear.agent.resource import Resource
from switchgear.agent.run import Instrument, RunCommand, Services, as_it_is
from switchgear.agent.settings import WorkerSettings
from switchgear.bus.port import Bus, Delivery, Message, Subscription
from switchgear.clock import SYSTEM, Clock
from switchgear.contract import codec, subjects
from switchgear.contract.queries import Cancel, Command, LaneQuery, Lanes
from switchgear.errors import BreakerOpen, ProtocolError, SwitchgearError, Unavailable
from switchgear.loop import supervised
from switchgear.steps.guard import MET
from switchgear.tasks.asking import ask
from switchgear.tasks.watch import Watch

log = logging.getLogger(__name__)

LAST_WORDS = 2.0
"""Seconds for each thing that a leaving instance still tells a broker, which may be gone."""
REMEMBER_CANCEL = 2.0
"""Seconds that a cancel is remembered for a task whose delivery may still be on its way (rule 14)."""


class Worker:
    """One instance of an agent. `start`, then `drain` or `stop`."""

    def __init__(
        self,
        agent: Agent,
        bus: Bus,
        *,
        clock: Clock = SYSTEM,
        settings: WorkerSettings = WorkerSettings(),  # noqa: B008  # frozen
        run_command: RunCommand | None = None,
        instrument: Instrument = as_it_is,
        replaced: dict[Resource[Any], Any] | None = None,
    ) -> None:
        """`run_command`, `instrument` and `replaced` (resources by value) are for tests."""
        self.agent = agent
        self.drained = asyncio.Event()
        """Set when the instance has left, by order or by `drain`."""
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._resources: dict[Any, Any] = dict(replaced or {})
        self._open = AsyncExitStack()
        judge = Classifier(agent.classifiers, clock)
        self._breaking = Breaking(agent.breakers, judge, self._breakers_changed, seed=bus.name)
        executing = Executing(None, self._breaking.guards, bus.documents, self._breaking.forget)
        self._open.push_async_callback(executing.close)
        self._watch = Watch(bus)
        self._handling = Handling(
            Services(
                self._watch,
                run_command or executing,
                self._resources,
                settings,
                agent.name,
                instrument,
                judge,
                self._breaking.guards,
            )
        )
        self._receiving = Receiving(bus, clock, agent.name)
        self._announcer = Announcer(
            agent, bus, clock, settings, self._busy, self._breaking.guards.snapshot
        )
        self._leases = Leases(agent, self._all_running, settings.extend_every)
        self._listening = Listening(agent, bus, clock)
        self._context = contextvars.copy_context()
        self._running: dict[str, Attempt] = {}
        self._cancels: dict[str, float] = {}
        self._feeders: dict[str, Feeder] = self._breaking.feeders
        self._attempts: set[asyncio.Task[None]] = set()
        self._services: list[asyncio.Task[Any]] = []
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Open resources, announce the instance, and begin to pull. Returns at once: lanes may follow."""
        self._context = contextvars.copy_context()
        self._open.enter_context(collected())
        for resource in self.agent.resources:
            if resource not in self._resources:
                self._resources[resource] = await self._open.enter_async_context(_opened(resource))
        subscribe = self._bus.core.subscribe
        own = subjects.control(self.agent.name, self._bus.name)
        self._subscriptions.append(await subscribe(own, self._commanded))
        for name in self.agent.capabilities:
            self._subscriptions.append(await subscribe(subjects.cancel(name), self._cancelled))
        await self._announcer.start()
        for declared in self.agent.capabilities.values():
            feeder = self._feeder(declared)
            self._feeders[declared.name] = feeder
        self._services = [
            asyncio.create_task(supervised("feeders", self._feed), name="feeders"),
            asyncio.create_task(supervised("leases", self._leases.extend), name="leases"),
            asyncio.create_task(supervised("stalls", self._leases.watch), name="stalls"),
        ]
        await self._listening.start()
        log.info("agent.ready %s %s", self.agent.name, self._bus.name)

    def replace(self, resource: Resource[Any], value: Any) -> None:
        """Let handlers that ask for this resource from now on get the value (for tests)."""
        self._resources[resource] = value

    async def drain(self) -> None:
        """Take nothing new, finish what runs within the drain time, hand the rest back, and leave."""
        self._announcer.draining = True
        with contextlib.suppress(SwitchgearError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._announcer.announce()
        await asyncio.gather(*(feeder.stop() for feeder in self._feeders.values()))
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=self._settings.drain.total_seconds())
        await self._hand_back()
        await self._leave()

    async def stop(self) -> None:
        """Leave at once: what runs is handed back."""
        if self.drained.is_set():
            return
        self._announcer.draining = True
        await asyncio.gather(*(feeder.stop() for feeder in self._feeders.values()))
        await self._hand_back()
        await self._leave()

    async def _hand_back(self) -> None:
        settling: set[asyncio.Task[None]] = set()
        for attempt in list(self._running.values()):
            attempt.handing_back = True
            if attempt.settling and attempt.running is not None:
                settling.add(attempt.running)
        if settling:
            await asyncio.wait(settling, timeout=self._settings.cleanup.total_seconds())
        cleanup = self._settings.cleanup.total_seconds()
        leaving = [left(task, cleanup) for task in list(self._attempts)]
        await asyncio.gather(*leaving)

    async def _leave(self) -> None:
        self._breaking.close()
        for service in self._services:
            service.cancel()
        await asyncio.gather(*self._services, return_exceptions=True)
        try:
            with contextlib.suppress(SwitchgearError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._announcer.stop()
            await self._listening.stop()
            for subscription in self._subscriptions:
                with contextlib.suppress(SwitchgearError):
                    await subscription.unsubscribe()
            await self._watch.close()
            await self._open.aclose()
        except Exception:
            log.exception(
                "agent.leaving %s", self.agent.name
            )  # a resource that cannot close must not keep us
        finally:
            self.drained.set()

    # lanes

    def _feeder(self, declared: Declared[Any, Any]) -> Feeder:
        pool = self._announcer.pool(declared.name)
        lanes = [
            subjects.lane_consumer(declared.name, pool, priority)
            for priority in subjects.PRIORITIES
        ]
        return Feeder(
            self._bus.work,
            lanes,
            declared.concurrency,
            self._settings,
            start=lambda delivery: self._begin(declared, delivery),
            give_back=self._receiving.give_back,
            ensure=lambda: self._ensure_lanes([(declared.name, pool)], missing=True),
            room=lambda: self._breaking.room(declared.name),
        )

    async def _feed(self) -> None:
        lanes = [(name, self._announcer.pool(name)) for name in self._feeders]
        await self._ensure_lanes(lanes)
        await asyncio.gather(*(feeder.serve() for feeder in self._feeders.values()))

    async def _ensure_lanes(self, lanes: list[tuple[str, str]], *, missing: bool = False) -> None:
        """Ask a coordinator for the lanes until one answers."""
        query = LaneQuery(
            agent=self.agent.name, instance=self._bus.name, lanes=tuple(lanes), missing=missing
        )
        pause = 0.05
        while lanes:
            try:
                found = await ask(self._bus.core, "lanes", self.agent.name, query, Lanes)
            except Unavailable as error:
                log.info("agent.no-coordinator %s", error.what)
            except SwitchgearError as error:
                log.warning("agent.lanes-refused %s", error)
            else:
                self._leases.agree(found.lease)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    # deliveries

    def _begin(self, declared: Declared[Any, Any], delivery: Delivery) -> None:
        # whoever frees a slot begins the next task: its context variables are not that one's
        own, tried = self._context.copy(), self._breaking.begin(declared.name)
        own.run(MET.set, tried.met)
        task = asyncio.create_task(self._attempt(declared, delivery, tried), context=own)
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def _attempt(self, declared: Declared[Any, Any], delivery: Delivery, tried: Try) -> None:
        attempt: Attempt | None = None
        try:
            async with self._receiving.turn(delivery):
                attempt = await self._receiving.receive(delivery, self._running, self._cancels)
                if attempt is None:
                    return
                self._runs(attempt)
            if attempt.subject.task in self._cancels:
                await self._cancel_before_run(attempt)
            await self._handling.handle(attempt, declared)
            crashpoint.reach("agent.before-ack")
            attempt.delivery.ack()
        except BreakerOpen as refused:
            assert attempt is not None
            with contextlib.suppress(Lost, SwitchgearError):
                feeder = self._feeders[declared.name]
                await self._breaking.hand_back(attempt, tried, feeder, refused)
        except Lost as lost:
            log.info("attempt.lost %s: %s", delivery.stored.subject, lost)
        except asyncio.CancelledError:
            await self._handed_back(delivery, attempt)
        except SwitchgearError as error:
            log.error("attempt.unsettled %s: %s", delivery.stored.subject, error)
        except Exception:
            log.exception("attempt.unsettled %s", delivery.stored.subject)
        finally:
            self._breaking.end(tried)
            if attempt is not None:
                attempt.running = None  # a cycle would keep both until the collector comes
                if self._running.get(attempt.subject.task) is attempt:
                    del self._running[attempt.subject.task]
                    self._announcer.stir()
            self._feeders[declared.name].freed()

    def _runs(self, attempt: Attempt) -> None:
        attempt.running = asyncio.current_task()
        self._running[attempt.subject.task] = attempt
        self._announcer.stir()

    async def _handed_back(self, delivery: Delivery, attempt: Attempt | None) -> None:
        """The worker stops: the task goes back to its lane, unless it was lost or is ending."""
        if attempt is None:
            await self._receiving.give_back(delivery)
        elif not attempt.lost:
            with contextlib.suppress(Lost, SwitchgearError):
                await attempt.released("drain")
                attempt.delivery.nak()

    # orders

    def _commanded(self, message: Message) -> None:
        try:
            command = codec.decode(message.data, Command)
        except ProtocolError as error:
            log.warning("agent.command-refused %s", error)
            return
        if command.verb == "breaker":
            self._breaking.commanded(command)
        elif not self._announcer.draining:
            self._announcer.draining = True
            self._services.append(asyncio.create_task(self._drain_by_order(), name="drain"))

    async def _drain_by_order(self) -> None:
        self._services = [one for one in self._services if one is not asyncio.current_task()]
        await self.drain()

    def _cancelled(self, message: Message) -> None:
        try:
            order = codec.decode(message.data, Cancel)
        except ProtocolError as error:
            log.warning("agent.cancel-refused %s", error)
            return
        attempt = self._running.get(order.task)
        if attempt is None:
            loop = asyncio.get_running_loop()
            self._cancels[order.task] = loop.time() + REMEMBER_CANCEL
            loop.call_later(REMEMBER_CANCEL, self._forget_cancel, order.task)
        elif attempt.cancel_reason is None:
            task = asyncio.create_task(self._cancel(attempt))
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)

    def _forget_cancel(self, task: str) -> None:
        if self._cancels.get(task, float("inf")) <= asyncio.get_running_loop().time():
            del self._cancels[task]

    async def _cancel(self, attempt: Attempt) -> None:
        """Stop a handler, once the ledger says so too: anybody may send a core message."""
        with contextlib.suppress(SwitchgearError):
            history = await attempt.refresh()
            asked = history.cancelling
            if asked is None or history.hold != attempt.hold or history.ended:
                return
            if attempt.cancel_reason is not None:
                return  # an append of its own found the cancel, or another order was faster
            if attempt.undo_time is not None:
                loop = asyncio.get_running_loop()
                cleanup = attempt.dispatched.cleanup.total_seconds()
                attempt.undo_time.reschedule(loop.time() + cleanup)
                attempt.cancel_reason = asked.reason
            elif not attempt.settling:
                attempt.stop(asked.reason)
            else:
                return  # its next append is refused, and tells
            attempt.last, attempt.valid = history.last, history.last_valid

    async def _cancel_before_run(self, attempt: Attempt) -> None:
        """A cancel was heard while the delivery was on its way: the ledger tells whether it stands."""
        history = await attempt.refresh()
        if history.cancelling is not None and history.hold == attempt.hold:
            attempt.history = history
            attempt.cancel_reason = history.cancelling.reason
            if history.ended is None:
                attempt.last, attempt.valid = history.last, history.last_valid

    def _breakers_changed(self) -> None:
        self._announcer.renew()

    def _all_running(self) -> list[Attempt]:
        return list(self._running.values())

    def _busy(self) -> tuple[dict[str, int], list[Attempt]]:
        busy = {name: feeder.running for name, feeder in self._feeders.items() if feeder.running}
        return busy, [one for one in self._running.values() if not one.stalled]


@contextlib.asynccontextmanager
async def _opened(resource: Resource[Any]) -> AsyncGenerator[Any]:
    generator = resource.opened()
    yield await anext(generator)
    with contextlib.suppress(StopAsyncIteration):
        await anext(generator)
