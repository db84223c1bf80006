"""One connection to the memory broker: what it still waits for, and how it ends.

Everything that a connection gets arrives with a later turn of the event loop, in the order in which
the broker sent it. A connection that has died gets nothing more: what was under way to it is lost,
as on a cut socket.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from switchgear.clock import SYSTEM
from switchgear.errors import SwitchgearError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Args = TypeVarTuple("Args")

_TIDY_AT = 64
"""Open answers at which those that are over are forgotten."""


class Link:
    """A connection: alive until it is dropped, by `close` or by a crash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stalled = False
        """Its process hangs: it is handed nothing, and settles nothing."""
        self._open: dict[asyncio.Future[Any], Callable[[str], SwitchgearError]] = {}
        self._tidy_at = _TIDY_AT

    def call(self, callback: Callable[[*Args], None], *args: *Args) -> None:
        """Call back with the next turn of the loop, unless the connection has died by then."""
        asyncio.get_running_loop().call_soon(self._call, callback, *args)

    def promise(self, lost: Callable[[str], SwitchgearError] = Unavailable) -> asyncio.Future[Any]:
        """A future that somebody else completes; raises `lost` where the connection dies first."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.alive:
            self.fail(future, self._gone(lost))
            return future
        if len(self._open) >= self._tidy_at:
            self._tidy()
        self._open[future] = lost
        return future

    def answer(
        self, outcome: T, lost: Callable[[str], SwitchgearError] = Unavailable
    ) -> asyncio.Future[T]:
        """The broker's answer, on its way for one turn of the loop; `lost` as in `promise`."""
        future = self.promise(lost)
        self.call(self.complete, future, outcome)
        return future

    def refuse(self, error: SwitchgearError) -> asyncio.Future[Any]:
        """The broker's answer is this error."""
        future = self.promise()
        self.call(self.fail, future, error)
        return future

    def complete(self, future: asyncio.Future[Any], outcome: object) -> None:
        """The answer has arrived; one that nobody waits for any more is dropped."""
        self._open.pop(future, None)
        if not future.done():
            future.set_result(outcome)

    def fail(self, future: asyncio.Future[Any], error: SwitchgearError) -> None:
        """The error has arrived."""
        self._open.pop(future, None)
        if not future.done():
            future.set_exception(error)
            # Marks it as seen: an append that nobody awaits is no fault of the test.
            future.exception()

    async def turn(self) -> None:
        """Wait until all that was sent to this connection has arrived. Raises Unavailable."""
        future = self.promise(Unavailable)
        self.call(self.complete, future, None)
        await future

    async def settle(self) -> None:
        """As `turn`, but a dead connection is no error: nothing more arrives there."""
        if self.alive:
            await self.turn()

    def drop(self) -> None:
        """End the connection: whoever waits for an answer learns that none will come."""
        self.alive = False
        for future, lost in list(self._open.items()):
            self.fail(future, self._gone(lost))
        self._open.clear()

    def _call(self, callback: Callable[[*Args], None], *args: *Args) -> None:
        if self.alive:
            callback(*args)

    def _tidy(self) -> None:
        """Forget what somebody else completed or gave up, now and then: a callback of each would cost more."""
        self._open = {future: lost for future, lost in self._open.items() if not future.done()}
        self._tidy_at = _TIDY_AT + 2 * len(self._open)

    def _gone(self, lost: Callable[[str], SwitchgearError]) -> SwitchgearError:
        return lost(f"the connection of {self.name} to the memory broker is closed")


class LoopClock:
    """The time of day that runs with the event loop's clock: virtual where that one is."""

    def __init__(self, start: datetime | None = None) -> None:
        """Begin at `start`; without it at the machine's time when the clock is first read."""
        self._start = start
        self._origin: float | None = None

    def now(self) -> datetime:
        """The time of day, in UTC. Raises RuntimeError outside a running event loop."""
        time = asyncio.get_running_loop().time()
        if self._origin is None or self._start is None:
            self._origin = time
            self._start = self._start or SYSTEM.now()
        return self._start + timedelta(seconds=time - self._origin)
