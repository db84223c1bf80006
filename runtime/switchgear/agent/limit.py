"""The time that an attempt may take: it stands still while the handler only waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")


class TimeLimit:
    """A time limit that can be paused."""

    __slots__ = ("_left", "_paused", "_scope", "seconds")

    def __init__(self, limit: timedelta | None) -> None:
        self.seconds = 0.0 if limit is None else limit.total_seconds()
        self._scope = None if limit is None else asyncio.timeout(self.seconds)
        self._left: float | None = None
        self._paused: set[object] = set()

    @property
    def expired(self) -> bool:
        """Whether the time was up before the work was done."""
        return self._scope is not None and self._scope.expired()

    def within(self, work: Awaitable[T]) -> Awaitable[T]:
        """The work, once; ended by TimeoutError when the time is up."""
        return work if self._scope is None else self._bounded(work, self._scope)

    async def _bounded(self, work: Awaitable[T], scope: asyncio.Timeout) -> T:
        async with scope:
            return await work

    def pause(self, who: object) -> None:
        """Let no time count until all who paused it resume it."""
        self._paused.add(who)
        at = None if self._scope is None else self._scope.when()
        if at is not None:
            self._left = at - asyncio.get_running_loop().time()
            self._reschedule(None)

    def resume(self, who: object) -> None:
        """Let time count again, as far as this one goes."""
        self._paused.discard(who)
        if self._left is not None and not self._paused:
            self._reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None

    def _reschedule(self, at: float | None) -> None:
        # what a handler left running may outlive the scope
        with contextlib.suppress(RuntimeError):
            if self._scope is not None:
                self._scope.reschedule(at)
