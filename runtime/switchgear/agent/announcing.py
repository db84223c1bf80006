"""Announces an instance: what it offers, what it runs, whether it drains (rule 15); and answers NATS micro."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from switchgear.agent import crash_reporter
from switchgear.agent.schemas import offer
from switchgear.bus import micro
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement, BreakerState, Running
from switchgear.errors import SwitchgearError, UsageError
from switchgear.loop import supervised

if TYPE_CHECKING:
    from datetime import datetime

    from switchgear.agent.attempt import Attempt
    from switchgear.agent.declare import Agent
    from switchgear.agent.settings import WorkerSettings
    from switchgear.bus.port import Bus
    from switchgear.clock import Clock

log = logging.getLogger(__name__)

SDK = "switchgear-python 0.1.0"
LOOK = 0.25
"""Seconds between looks at what runs, while some of it is not announced yet."""


class Announcer:
    """One instance's announcement, kept fresh."""

    def __init__(
        self,
        agent: Agent,
        bus: Bus,
        clock: Clock,
        settings: WorkerSettings,
        busy: Callable[[], tuple[dict[str, int], list[Attempt]]],
        breakers: Callable[[datetime], tuple[BreakerState, ...]],
    ) -> None:
        self.draining = False
        self._agent = agent
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._busy = busy
        self._breakers = breakers
        self._offers = tuple(offer(agent, one) for one in agent.capabilities.values())
        self._started = clock.now()
        self._subject = subjects.announce(agent.name, bus.name)
        self._shown: frozenset[str] = frozenset()
        self._due = False
        self._stirred = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._micro: micro.MicroService | None = None

    def pool(self, capability: str) -> str:
        """The pool that this instance belongs to for a capability."""
        return next(one.pool for one in self._offers if one.name == capability)

    async def start(self) -> None:
        """Announce now, then on change and every 10 s. Raises UsageError for an announcement over the limit."""
        size = len(codec.encode(self._announcement()))
        if size > limits.MAX_ANNOUNCEMENT:
            raise UsageError(
                f"the announcement of {self._agent.name} has {size} bytes",
                why=f"{limits.MAX_ANNOUNCEMENT} are the limit",
                fix="offer fewer capabilities, or types with smaller schemas",
            )
        await self.announce()
        self._micro = await micro.serve_micro(self._bus.core, self._micro_info)
        self._bus.on_reconnect(self.renew)
        self._loop = asyncio.create_task(
            supervised("announcements", self._keep), name="announcements"
        )

    async def announce(self) -> None:
        """Publish the announcement as things stand."""
        data = codec.encode(self._announcement())
        await self._bus.announcements.put(self._subject, data, ttl=limits.ANNOUNCE_TTL)

    async def stop(self) -> None:
        """Leave the registry."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        if self._micro is not None:
            await self._micro.unsubscribe()
        await self._bus.announcements.remove(self._subject)

    def stir(self) -> None:
        """Look soon: what runs has changed."""
        self._stirred.set()

    def renew(self) -> None:
        """Announce soon, whatever has changed."""
        self._due = True
        self._stirred.set()

    async def _keep(self) -> None:
        while True:
            await self._change()
            self._due = False
            try:
                await self.announce()
            except SwitchgearError as error:
                log.warning("agent.announce-failed %s", error)

    async def _change(self) -> None:
        """Wait until the announcement is to be renewed; an idle instance looks at nothing meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limits.ANNOUNCE_EVERY.total_seconds()
        while not self._due and (left := until - loop.time()) > 0:
            if frozenset(one.subject.task for one in self._busy()[1]) == self._shown:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._stirred.wait()
            self._stirred.clear()
            if not self._due:
                # many changes make one announcement
                await asyncio.sleep(max(0, min(LOOK, until - loop.time())))
            if self._long_running() != self._shown:
                return

    def _long_running(self) -> frozenset[str]:
        now = self._clock.now()
        return frozenset(
            attempt.subject.task
            for attempt in self._busy()[1]
            if now - attempt.started > self._settings.shown_after
        )

    def _announcement(self) -> Announcement:
        busy, attempts = self._busy()
        shown = self._shown = self._long_running()
        return Announcement(
            v=1,
            agent=self._agent.name,
            instance=self._bus.name,
            version=self._agent.version,
            started=self._started,
            time=self._clock.now(),
            offers=self._offers,
            labels=self._agent.labels,
            running=tuple(
                Running(
                    task=one.subject.task,
                    owner=one.subject.owner,
                    capability=one.subject.capability,
                    since=one.started,
                    ack=one.delivery.ack_subject,
                )
                for one in attempts
                if one.subject.task in shown
            ),
            busy=busy,
            draining=self.draining,
            host=platform.node(),
            breakers=self._breakers(self._clock.now()),
            process=crash_reporter.process_id(),
            sdk=SDK,
        )

    def _micro_info(self) -> dict[str, Any]:
        """What the `nats` CLI shows of this instance."""
        return {
            "name": self._agent.name,
            "id": self._bus.name,
            "version": self._agent.version,
            "description": f"Switchgear agent {self._agent.name}",
            "metadata": self._agent.labels,
            "endpoints": [
                {
                    "name": one.name,
                    "subject": subjects.lane_filter(one.name, one.pool, "*"),
                    "queue_group": one.pool,
                    "metadata": {"version": one.version},
                }
                for one in self._offers
            ],
        }
