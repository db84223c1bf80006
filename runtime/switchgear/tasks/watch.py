"""Following tasks to their end: live entries first, the ledger whenever those leave a gap (rule 17).

Republished entries are stored nowhere, so every reconnect reads the ledger again for whoever still waits, and
nothing is believed before the history has been folded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from switchgear.bus.port import Bus, Message, Subscription
from switchgear.contract import subjects
from switchgear.contract.stored import Stored
from switchgear.errors import SwitchgearError
from switchgear.lifecycle.history import History, fold
from switchgear.tasks.live import stored_of

log = logging.getLogger(__name__)

READ_AGAIN = 30.0
"""Seconds after which the ledger is read for a task that nothing was heard of: a net below the live feed."""
READERS = 16
"""Histories read at a time after a reconnect."""


class Followed:
    """One task that somebody waits for."""

    __slots__ = ("doubt", "ended", "entries", "heard", "scope", "watchers")

    def __init__(self, scope: str, ended: asyncio.Future[History]) -> None:
        self.scope = scope
        self.ended = ended
        self.entries: list[Stored] = []
        self.doubt = False
        self.heard = 0.0
        self.watchers: list[Callable[[Stored | None], None]] = []

    def missing(self) -> bool:
        """Whether the live entries do not reach back to the beginning."""
        return self.doubt or not self.entries or not self.entries[0].subject.endswith("submitted")


class Watch:
    """Follows tasks of one owner, or single tasks, over the live feed."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._followed: dict[str, Followed] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._reading = asyncio.Semaphore(READERS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._net: asyncio.Task[None] | None = None
        bus.on_reconnect(self._read_all)

    async def open(self, subject: str) -> None:
        """Subscribe a live subject: `subjects.live(owner)` or `subjects.live_task(scope)`."""
        if subject not in self._subscriptions:
            self._subscriptions[subject] = await self._bus.core.subscribe(subject, self._heard)
        if self._net is None:
            self._net = asyncio.create_task(self._read_silent(), name="watch-net")

    async def shut(self, subject: str) -> None:
        """Undo `open`."""
        subscription = self._subscriptions.pop(subject, None)
        if subscription is not None:
            await subscription.unsubscribe()

    async def close(self) -> None:
        """Stop following everything; who still waits is left waiting."""
        tasks = [*self._tasks, *([self._net] if self._net else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for subject in list(self._subscriptions):
            with contextlib.suppress(SwitchgearError):
                await self.shut(subject)

    def follow(self, scope: str, *, fresh: bool) -> Followed:
        """Follow this task. `fresh`: it is about to be submitted; else its history is read at once."""
        task = scope.split(".")[4]
        followed = self._followed.get(task)
        if followed is None:
            ended: asyncio.Future[History] = asyncio.get_running_loop().create_future()
            followed = self._followed[task] = Followed(scope, ended)
            followed.heard = asyncio.get_running_loop().time()
            ended.add_done_callback(lambda _: self._followed.pop(task, None))
            if not fresh:
                self._read_soon(followed)
        return followed

    def read(self, followed: Followed) -> None:
        """Read the task's history, for whatever reason."""
        self._read_soon(followed)

    def forget(self, scope: str) -> None:
        """Follow this task no longer."""
        followed = self._followed.get(scope.split(".")[4])
        if followed is not None:
            followed.ended.cancel()

    def _heard(self, message: Message) -> None:
        task = message.subject.split(".", 5)[4]
        followed = self._followed.get(task)
        if followed is None:
            return
        stored = stored_of(message)
        if stored is None:
            followed.doubt = True
        else:
            followed.entries.append(stored)
        followed.heard = asyncio.get_running_loop().time()
        for watcher in followed.watchers:
            watcher(stored)
        if message.subject.rsplit(".", 1)[1] in subjects.TERMINAL:
            self._may_have_ended(followed)

    def _may_have_ended(self, followed: Followed) -> None:
        if followed.missing():
            self._read_soon(followed)
            return
        history = fold(followed.scope, followed.entries)
        if history.ended is not None:
            self._end(followed, history)
        else:
            self._read_soon(followed)

    def _end(self, followed: Followed, history: History) -> None:
        for void in history.voids:
            log.warning(
                "ledger.void-entry %s at %d: %s",
                void.stored.subject,
                void.stored.sequence,
                void.reason,
            )
        if not followed.ended.done():
            followed.ended.set_result(history)
        for watcher in followed.watchers:
            watcher(None)

    def _read_soon(self, followed: Followed) -> None:
        task = asyncio.create_task(self._read(followed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, followed: Followed) -> None:
        """Read the task's history; a failure is left to the next reconnect or the net below."""
        async with self._reading:
            if followed.ended.done():
                return
            try:
                tail = await self._bus.ledger.tail(followed.scope)
                if tail is None or self._is_known(followed, tail):
                    return
                stored = await self._bus.ledger.history(followed.scope)
            except SwitchgearError as error:
                log.warning("watch.read-failed %s: %s", followed.scope, error)
                return
        known = {one.sequence for one in stored}
        newer = [one for one in followed.entries if one.sequence not in known]
        followed.entries = sorted([*stored, *newer], key=lambda one: one.sequence)
        followed.doubt = False
        history = fold(followed.scope, followed.entries)
        if history.ended is not None:
            self._end(followed, history)
        for watcher in followed.watchers:
            watcher(None)

    @staticmethod
    def _is_known(followed: Followed, tail: Stored) -> bool:
        return not followed.missing() and followed.entries[-1].sequence >= tail.sequence

    def _read_all(self) -> None:
        for followed in list(self._followed.values()):
            self._read_soon(followed)

    async def _read_silent(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(READ_AGAIN / 4)
            for followed in list(self._followed.values()):
                if loop.time() - followed.heard > READ_AGAIN:
                    followed.heard = loop.time()
                    self._read_soon(followed)
