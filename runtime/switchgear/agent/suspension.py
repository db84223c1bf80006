"""Gives up the slot of a handler that only waits (rule 13)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from switchgear.agent.attempt import Attempt, CancelledMeanwhile, Lost, Suspended
from switchgear.agent.limit import TimeLimit
from switchgear.agent.settings import WorkerSettings
from switchgear.contract import codec, entries, limits
from switchgear.contract.values import Awaited, Blob
from switchgear.errors import SwitchgearError
from switchgear.lifecycle import suspension
from switchgear.lifecycle.history import History
from switchgear.tasks.payload import NULL, Payload

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_WAITS = 200 * limits.KIB
"""Bytes of the waits inside an entry; above it they travel as a blob."""
SETTLE = timedelta(milliseconds=50)
"""A handler's code may still be at work on what ended last: it is not cut off at that very moment."""
_MAX_DETAIL = 300


def suspends_at(
    waits: Iterable[Awaited], since: datetime, now: datetime, hold: timedelta
) -> datetime | None:
    """When a handler that has only waited since then gives up its slot; None: not before a wait has ended.

    After the hold time, or almost at once if all that it waits for are times beyond it. Never shortly before one of its
    waits is over: the slot would come back at once.
    """
    waits = list(waits)
    known = all(one.kind == "timer" for one in waits)
    at = max(now, since + (min(SETTLE, hold) if known else hold))
    first = min((one.until for one in waits if one.until is not None), default=None)
    return None if first is not None and first - at <= hold else at


def reason_of(waits: Collection[Awaited]) -> tuple[entries.Reason, str]:
    """What the task waits for, as its entry names it, and for people."""
    questions = [one for one in waits if one.kind == "signal"]
    children = [one for one in waits if one.kind in ("child", "children")]
    if questions:
        first = questions[0]
        asked = f": {first.question}" if first.question else ""
        return "signal", _text(f"signal {first.signal}{asked}", len(waits))
    if children:
        first = children[0]
        many = f"{first.count} tasks of " if first.kind == "children" else ""
        return "child", _text(f"{first.key}: {many}{first.capability}", len(waits))
    first = min(waits, key=lambda one: one.until or one.begun)
    until = "" if first.until is None else f" until {first.until:%Y-%m-%d %H:%M:%S} UTC"
    return "timer", _text(f"{first.key}{until}", len(waits))


def _text(first: str, count: int) -> str:
    more = f" and {count - 1} more" if count > 1 else ""
    return first[:_MAX_DETAIL] + more


class Working:
    """A part of a call that does something: a context manager, as cheap as each step needs it."""

    __slots__ = ("_waits",)

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def __enter__(self) -> None:
        """Begin."""
        self._waits.work(1)

    def __exit__(self, *exc: object) -> None:
        """End."""
        self._waits.work(-1)


class Waits:
    """What the calls of one handler wait for, and whether anything of it is at work meanwhile."""

    def __init__(self, attempt: Attempt, settings: WorkerSettings, limit: TimeLimit) -> None:
        self.enabled = True
        """Undos never suspend."""
        self._attempt = attempt
        self._settings = settings
        self._limit = limit
        self._working = 0
        self._waiting: dict[object, Awaited] = {}
        self._since: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._suspending: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether the handler waits, and nothing of it is at work."""
        return not self._working and bool(self._waiting)

    @property
    def any(self) -> bool:
        """Whether one of its calls waits."""
        return bool(self._waiting)

    def working(self) -> Working:
        """For as long as a call does something."""
        return Working(self)

    def work(self, change: int) -> None:
        """So many more, or fewer, calls do something."""
        self._working += change
        self._changed()

    async def enter(self) -> None:
        """Pass the gate: nothing new begins while the slot is being given up, nor afterwards."""
        if self._suspending is not None and not self._suspending.done():
            await asyncio.wait({self._suspending})
        if self._attempt.suspended:
            raise asyncio.CancelledError

    async def wait(self, awaited: Awaited, done: asyncio.Future[T]) -> T:
        """The future's result; to be called within `working`, which it interrupts."""
        token = object()
        self._waiting[token] = awaited
        self._working -= 1
        self._changed()
        try:
            return await done
        finally:
            del self._waiting[token]
            self._working += 1
            self._attempt.move()
            self._changed()

    async def decided(self) -> bool:
        """Whether the handler was suspended; waits for a suspension that is under way."""
        if self._suspending is not None and not self._suspending.done():
            await asyncio.wait({self._suspending})
        return self._attempt.suspended

    def close(self) -> None:
        """The handler has left."""
        if self._timer is not None:
            self._timer.cancel()
        self.enabled = False

    def _changed(self) -> None:
        if not self.idle:
            self._since = None
            self._limit.resume(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        self._limit.pause(self)
        if self._since is None or self._timer is None:
            self._since = self._since or self._attempt.clock.now()
            self._plan()

    def _plan(self) -> None:
        """Look again when the slot is to be given up, or when that may have changed."""
        if not self.enabled or self._since is None:
            return
        now = self._attempt.clock.now()
        hold = self._settings.hold_time
        at = suspends_at(self._waiting.values(), self._since, now, hold)
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max((at - now).total_seconds(), 0), self._suspend)

    def _suspend(self) -> None:
        self._timer = None
        attempt = self._attempt
        stopping = attempt.handing_back or attempt.cancel_reason is not None or attempt.stalled
        if self.idle and self.enabled and not stopping and self._suspending is None:
            self._suspending = asyncio.create_task(self._append(), name="suspend")

    async def _append(self) -> None:
        """Store what is waited for, then let the handler go."""
        attempt = self._attempt
        waits = list({one.key: one for one in self._waiting.values()}.values())
        reason, detail = reason_of(waits)

        def still(history: History) -> bool:
            return not suspension.met(history, waits, {}, attempt.clock.now())

        try:
            payload = await self._payload(waits)
            if not await attempt.waiting(reason, detail, waits, payload, still):
                self._suspending = None
                self._since = attempt.clock.now()
                self._plan()
                return
        except (Lost, CancelledMeanwhile, Suspended):
            attempt.interrupt()
            return
        except SwitchgearError as error:
            log.warning("attempt.not-suspended %s: %s", attempt.subject.task, error)
            self._suspending, self._since = None, attempt.clock.now()
            self._plan()
            return
        log.info("attempt.suspended %s: %s", attempt.subject.task, detail)
        attempt.interrupt()
        asyncio.get_running_loop().call_later(
            self._settings.cleanup.total_seconds(), self._let_go, attempt.running
        )

    def _let_go(self, running: asyncio.Task[None] | None) -> None:
        """A handler that does not leave keeps its slot here, but nobody waits for it."""
        if running is not None and not running.done():
            log.warning("attempt.lingers %s after it was suspended", self._attempt.subject.task)
            self._attempt.delivery.ack()

    async def _payload(self, waits: list[Awaited]) -> Payload | None:
        data = codec.encode(waits)
        if len(data) <= MAX_WAITS:
            return None
        digest = await self._attempt.bus.blobs.put(data)
        return Payload(NULL, Blob(digest=digest, size=len(data)))
