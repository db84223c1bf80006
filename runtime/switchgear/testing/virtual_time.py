"""Virtual time on the running event loop: when nothing can happen, the clock jumps to the next timer.

Own code, since time must stand in for waiting only: while a thread (`asyncio.to_thread`, an
executor) or a child process of the loop runs, the clock runs with real time, so their time limits
hold and their results arrive in order. looptime knows threads, but not processes, and needs a loop
that was made for it.

Limits: sockets do not hold the clock, so a handler that waits for a real server may see its
timeouts pass at once; replace such clients. uvloop cannot be patched. A test that waits for what
never comes spins through virtual time until its runner stops it. `time.time()` and `time.sleep()`
stay real.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from switchgear.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

_ATTRIBUTE = "_switchgear_virtual_time"
_STEP = 0.05
"""Seconds of one look at what is real, so that its end is noticed soon whoever ends it."""


class VirtualTime:
    """The clock of one event loop: virtual between `enter` and `leave`, from there on real."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop's clock over; its time never runs backwards. Raises UsageError."""
        selector = getattr(loop, "_selector", None)
        if selector is None:
            raise UsageError(
                f"virtual time does not work on {type(loop).__name__}",
                why="only asyncio's own event loops can be patched",
                fix="run this test on asyncio's default event loop",
            )
        self._users = 0
        self._ahead = 0.0
        """Seconds that the loop's clock is before the machine's."""
        self._now = 0.0
        self._real: set[object] = set()
        """Threads and processes that run; the loop waits for them in real time."""
        self._machine_time = loop.time
        self._select: Callable[[float | None], list[Any]] = selector.select
        self._run_in_executor = loop.run_in_executor
        self._subprocess_exec = loop.subprocess_exec
        self._subprocess_shell = loop.subprocess_shell
        selector.select = self._wait
        for name, method in {
            "time": self.time,
            "run_in_executor": self._in_executor,
            "subprocess_exec": self._exec,
            "subprocess_shell": self._shell,
        }.items():
            setattr(loop, name, method)

    def enter(self) -> None:
        """Let time be virtual, until as many have left as entered."""
        if not self._users:
            self._now = self.time()
        self._users += 1

    def leave(self) -> None:
        """The last one to leave lets time run with the machine's again, on from where it is."""
        self._users -= 1
        if not self._users:
            self._ahead = self._now - self._machine_time()

    def time(self) -> float:
        """What `loop.time()` returns."""
        return self._now if self._users else self._machine_time() + self._ahead

    def _wait(self, timeout: float | None) -> list[Any]:
        """The selector's wait. The loop asks with a timeout only when it has nothing to run."""
        if not self._users or timeout is None:
            return self._select(timeout)
        ready = self._select(0)
        if ready or timeout <= 0:
            return ready
        if not self._real:
            self._now += timeout
            return ready
        started = time.monotonic()
        ready = self._select(min(timeout, _STEP))
        self._now += min(timeout, time.monotonic() - started)
        return ready

    def _in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self._run_in_executor(executor, func, *args)
        self._real.add(future)
        future.add_done_callback(self._real.discard)
        return future

    def _exec(self, protocol: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        tracked, token = self._tracked(protocol)
        return self._started(self._subprocess_exec(tracked, *args, **kwargs), token)

    def _shell(self, protocol: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        tracked, token = self._tracked(protocol)
        return self._started(self._subprocess_shell(tracked, *args, **kwargs), token)

    def _tracked(
        self, protocol: Callable[[], asyncio.SubprocessProtocol]
    ) -> tuple[Callable[[], asyncio.SubprocessProtocol], object]:
        """A factory whose protocol also tells us when the process and its pipes have ended."""
        token = object()

        def make() -> asyncio.SubprocessProtocol:
            made = protocol()
            lost = made.connection_lost

            def ended(error: Exception | None) -> None:
                self._real.discard(token)
                lost(error)

            cast("Any", made).connection_lost = ended
            return made

        return make, token

    async def _started(self, starting: Coroutine[Any, Any, Any], token: object) -> Any:
        self._real.add(token)
        try:
            return await starting
        except BaseException:
            self._real.discard(token)
            raise


def of_running_loop() -> VirtualTime:
    """The clock of the running event loop, taken over on first use. Raises UsageError."""
    loop = asyncio.get_running_loop()
    clock: VirtualTime | None = getattr(loop, _ATTRIBUTE, None)
    if clock is None:
        clock = VirtualTime(loop)
        setattr(loop, _ATTRIBUTE, clock)
    return clock
