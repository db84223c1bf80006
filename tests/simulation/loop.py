"""A lean event loop of virtual time: no sockets, no threads; when nothing is to be done, the next timer is due."""

# A loop is what asyncio's own base calls it.
# pyright: reportIncompatibleMethodOverride=false, reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

Call = Callable[..., Any]


class Soon(list[Any]):
    """A call that is to be made: its context, what is called and with what."""

    __slots__ = ()

    def cancel(self) -> None:
        """Do not make it."""
        self[1] = None


class Later(Soon):
    """A call that is to be made at a time, which comes last."""

    __slots__ = ()

    def when(self) -> float:
        """The loop's time at which it is made."""
        return self[3]


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready in order; time passes only when nothing is."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[dict[str, Any]] = []
        """What callbacks and forgotten tasks raised."""
        self._now = 0.0
        self._ended = False
        self._soon: deque[Soon] = deque()
        self._later: list[tuple[float, int, Later]] = []
        self._numbers = count()
        self.set_exception_handler(lambda _, what: self.broken.append(what))
        self.create_future = partial(asyncio.Future, loop=self)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(self, callback: Call, *args: Any, context: Context | None = None) -> Any:
        """Call it when all that is ready by now has run."""
        handle = Soon((context or copy_context(), callback, args))
        self._soon.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Call, *args: Any, context: Context | None = None
    ) -> Any:
        """Call it after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Call, *args: Any, context: Context | None = None
    ) -> Any:
        """Call it at this virtual time."""
        handle = Later((context or copy_context(), callback, args, when))
        heappush(self._later, (max(when, self._now), next(self._numbers), handle))
        return handle

    def create_task(self, coro: Any, **given: Any) -> asyncio.Task[Any]:
        """A task of this loop."""
        return asyncio.Task(coro, loop=self, **given)

    def stop(self) -> None:
        """Return from what runs the loop, behind the present call."""
        super().stop()
        self._ended = True

    def run_in_executor(self, executor: Any, func: Call, *args: Any) -> Any:
        """Refuse: a thread's end comes at a time that nothing decides."""
        del executor, args
        raise RuntimeError(f"{func!r} would run in a thread")

    def _run_once(self) -> None:
        """All there is until somebody stops the loop, not one round: each would cost as much as what it runs."""
        soon, later = self._soon, self._later
        self._ended = False
        while not self._ended:
            while soon:
                handle = soon.popleft()
                context, callback, args = handle[0], handle[1], handle[2]
                if callback is None:
                    continue
                try:
                    context.run(callback, *args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001  # as asyncio's own: the others go on
                    self.broken.append({"message": f"{callback!r}", "exception": error})
                if self._ended:
                    return
            if not later:
                raise RuntimeError("nothing is left that could ever happen")
            self._now = now = later[0][0]
            while later and later[0][0] <= now:
                soon.append(heappop(later)[2])
