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
from switchgear.errors import SwitchgearError, Unavailable
from switchgear.lifecycle.history import History, Valid
from switchgear.tasks.live import stored_of
from switchgear.tasks.voids import log_voids

log = logging.getLogger(__name__)

READ_AGAIN = 30.0
"""Seconds after which the ledger is read for a task that nothing was heard of: a net below the live feed."""
READERS = 16
"""Histories read at a time after a reconnect."""


class Followed:
    """One task that somebody waits for."""

    __slots__ = (
        "doubt",
        "end_seen",
        "ended",
        "entries",
        "followers",
        "heard",
        "opening",
        "scope",
        "submitting",
        "watchers",
    )

    def __init__(self, scope: str, ended: asyncio.Future[History]) -> None:
        self.scope = scope
        self.ended = ended
        self.opening: Valid | None = None
        """The submission, where this process made it: acknowledged, so nobody needs to read it."""
        self.submitting = False
        """The submission is under way: its answer may come after entries that build on it."""
        self.end_seen = False
        self.entries: list[Stored] = []
        self.doubt = False
        self.followers = 0
        """How often it was asked to be followed, and not forgotten."""
        self.heard = 0.0
        self.watchers: list[Callable[[Stored | None], None]] = []

    def missing(self) -> bool:
        """Whether what is known does not reach back to the beginning."""
        if self.doubt:
            return True
        if self.opening is not None:
            return False
        return not self.entries or not self.entries[0].subject.endswith(".submitted")

    def last(self) -> int:
        """Sequence of the newest entry that is known; 0 for none."""
        if self.entries:
            return self.entries[-1].sequence
        return self.opening.stored.sequence if self.opening is not None else 0

    def history(self) -> History:
        """What the known entries tell."""
        history = History(self.scope)
        if self.opening is not None:
            history.begin(self.opening)
        for stored in self.entries:
            history.add(stored)
        self.doubt = self.doubt or history.gap
        return history


class Feed:
    """One subscription, shared by all who opened it."""

    __slots__ = ("opening", "users")

    def __init__(self, opening: asyncio.Future[Subscription]) -> None:
        self.opening = opening
        self.users = 0

    async def end(self) -> None:
        """Hear no more."""
        await asyncio.wait({self.opening})
        if not self.opening.cancelled() and self.opening.exception() is None:
            await self.opening.result().unsubscribe()


class Watch:
    """Follows tasks of one owner, or single tasks, over the live feed."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._followed: dict[str, Followed] = {}
        self._feeds: dict[str, Feed] = {}
        self._reading = asyncio.Semaphore(READERS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._net: asyncio.Task[None] | None = None
        bus.on_reconnect(self._read_all)

    async def open(self, subject: str) -> None:
        """Subscribe a live subject: `subjects.live(owner)` or `subjects.live_task(scope)`; as often as it is asked."""
        feed = self._feeds.get(subject)
        if feed is None:
            opening = asyncio.ensure_future(self._bus.core.subscribe(subject, self._heard))
            feed = self._feeds[subject] = Feed(opening)
        feed.users += 1
        if self._net is None:
            self._net = asyncio.create_task(self._read_silent(), name="watch-net")
        try:
            await asyncio.shield(feed.opening)
        except BaseException:
            await self.shut(subject)
            raise

    async def shut(self, subject: str) -> None:
        """Undo one `open`."""
        feed = self._feeds.get(subject)
        if feed is not None:
            feed.users -= 1
            if not feed.users:
                del self._feeds[subject]
                await feed.end()

    async def close(self) -> None:
        """Stop following everything; who still waits meets Unavailable."""
        tasks = [*self._tasks, *([self._net] if self._net else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for followed in list(self._followed.values()):
            if not followed.ended.done():
                followed.ended.set_exception(Unavailable("the connection was closed meanwhile"))
                followed.ended.exception()  # seen: often nobody waits
            for watcher in followed.watchers:
                watcher(None)
        feeds, self._feeds = list(self._feeds.values()), {}
        for feed in feeds:
            with contextlib.suppress(SwitchgearError):
                await feed.end()

    def follow(self, scope: str, *, fresh: bool) -> Followed:
        """Follow this task. `fresh`: it is about to be submitted; else its history is read at once."""
        task = scope.split(".")[4]
        followed = self._followed.get(task)
        if followed is None:
            ended: asyncio.Future[History] = asyncio.get_running_loop().create_future()
            followed = self._followed[task] = Followed(scope, ended)
            followed.heard = asyncio.get_running_loop().time()
            followed.submitting = fresh
            ended.add_done_callback(lambda _: self._followed.pop(task, None))
            if not fresh:
                self._read_soon(followed)
        followed.followers += 1
        return followed

    def begun(self, followed: Followed, opening: Valid) -> None:
        """The submission stands: what arrived before its answer can be told now."""
        followed.opening = opening
        followed.submitting = False
        if followed.end_seen:
            self._may_have_ended(followed)
        for watcher in followed.watchers:
            watcher(None)

    def read(self, followed: Followed) -> None:
        """Read the task's history, for whatever reason."""
        followed.submitting = False
        self._read_soon(followed)

    def known(self, followed: Followed, stored: list[Stored]) -> None:
        """Take in the task's entries, read by whoever follows it."""
        followed.submitting = False
        if followed.ended.done():
            return
        self._merge(followed, stored)
        history = followed.history()
        if history.ended is not None:
            self._end(followed, history)

    def forget(self, scope: str) -> None:
        """Undo one `follow`: with the last one the task is followed no longer."""
        followed = self._followed.get(scope.split(".")[4])
        if followed is not None:
            followed.followers -= 1
            if not followed.followers:
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
        followed.end_seen = True
        if followed.submitting:
            return
        history = None if followed.missing() else followed.history()
        if history is not None and history.ended is not None and not followed.doubt:
            self._end(followed, history)
        else:
            self._read_soon(followed)

    def _end(self, followed: Followed, history: History) -> None:
        log_voids(history)
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
                if tail is None:
                    return
                if followed.missing() or followed.last() < tail.sequence:
                    self._merge(followed, await self._bus.ledger.history(followed.scope))
            except SwitchgearError as error:
                log.warning("watch.read-failed %s: %s", followed.scope, error)
                return
        history = followed.history()
        if history.ended is not None:
            self._end(followed, history)
        for watcher in followed.watchers:
            watcher(None)

    @staticmethod
    def _merge(followed: Followed, stored: list[Stored]) -> None:
        known = {one.sequence for one in stored}
        newer = [one for one in followed.entries if one.sequence not in known]
        followed.entries = sorted([*stored, *newer], key=lambda one: one.sequence)
        followed.opening, followed.doubt = None, False

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
