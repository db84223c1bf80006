"""Feeds one capability's slots from its lanes (rule 6).

While slots are free, waiting pulls stand on every lane. When all are taken the pulls are ended, and freed slots
pull without waiting, from the highest lane down. What arrives beyond the slots waits briefly, then goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from switchgear.agent.settings import WorkerSettings
from switchgear.bus.port import Delivery, Pulls, Work
from switchgear.errors import NotFound, SwitchgearError

log = logging.getLogger(__name__)


def _any_number() -> int | None:
    return None


LOOK_AGAIN = 47.0
"""Seconds after which an idle feeder makes sure that its lanes still exist; out of step with the lease."""
LONGEST_PAUSE = 2.0
"""Seconds between pulls while the broker does not answer."""


class _Credit:
    """What one waiting pull may still deliver."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Feeder:
    """Keeps up to `slots` deliveries of the lanes (highest first) running."""

    def __init__(
        self,
        work: Work,
        lanes: Sequence[str],
        slots: int,
        settings: WorkerSettings,
        *,
        start: Callable[[Delivery], None],
        give_back: Callable[[Delivery, str], Coroutine[Any, Any, None]],
        ensure: Callable[[], Coroutine[Any, Any, None]],
        room: Callable[[], int | None] = _any_number,
    ) -> None:
        """`start` begins a delivery, which takes a slot until `freed`; `ensure` makes missing lanes exist.

        `room`: how many may begin beside what runs, whatever slots there are; whoever sets a limit calls `look` when
        it has changed.
        """
        self.running = 0
        self._work = work
        self._lanes = lanes
        self._slots = slots
        self._settings = settings
        self._start = start
        self._give_back = give_back
        self._ensure = ensure
        self._room = room
        self._ending = asyncio.Lock()
        self._beyond: deque[Delivery] = deque()
        self._pulls: dict[str, Pulls] = {}
        self._credit: dict[str, _Credit] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._serving: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """Slots that nothing occupies or waits for, and that may be filled."""
        slots, room = self._slots - self.running, self._room()
        return (slots if room is None else min(slots, room)) - len(self._beyond)

    async def serve(self) -> None:
        """Feed until `stop`."""
        self._serving = asyncio.current_task()
        pause = 0.1
        while not self._stopping:
            try:
                if self.free <= 0:
                    await self._until_freed()
                elif not await self._take_what_is_there():
                    await self._wait_for_more()
                pause = 0.1
            except NotFound:
                await self._ensure()
            except SwitchgearError as error:
                log.warning("feeder.pull-failed %s: %s", self._lanes[0], error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def stop(self) -> None:
        """Ask for nothing more, and hand back what has not begun."""
        self._stopping = True
        self._changed.set()
        await self.end_pulls()
        if self._serving is not None:
            # a fetch under way may still bring deliveries
            await asyncio.wait({self._serving}, timeout=1)
        while self._beyond:
            await self._give_back(self._beyond.popleft(), "no-slot")
        if self._returning:
            await asyncio.gather(*self._returning, return_exceptions=True)

    def freed(self) -> None:
        """A running delivery has left its slot."""
        self.running -= 1
        if self._beyond and not self._stopping and self._may_begin():
            self._begin(self._beyond.popleft())
        if (
            not self._pulls
        ):  # standing pulls are topped up as they are used: one more slot changes nothing
            self._changed.set()

    def look(self) -> None:
        """Look again at how many may begin."""
        while self._beyond and not self._stopping and self._may_begin():
            self._begin(self._beyond.popleft())
        self._changed.set()

    def _may_begin(self) -> bool:
        room = self._room()
        return self.running < self._slots and (room is None or room > 0)

    def _begin(self, delivery: Delivery) -> None:
        self.running += 1
        self._start(delivery)

    def _arrived(self, delivery: Delivery) -> None:
        if self._may_begin() and not self._stopping:
            self._begin(delivery)
        else:
            self._beyond.append(delivery)
            wait = self._settings.held_briefly.total_seconds()
            asyncio.get_running_loop().call_later(wait, self._return, delivery)

    def _return(self, delivery: Delivery) -> None:
        """Hand a delivery back that no slot was free for; waiting pulls have ended by now."""
        if delivery in self._beyond and not self._stopping:
            self._beyond.remove(delivery)
            why = "breaker" if self._room() == 0 else "no-slot"
            task = asyncio.create_task(self._give_back(delivery, why))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
            self._changed.set()

    async def _until_freed(self) -> None:
        await self.end_pulls()
        while self.free <= 0 and not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        # a pull for each freed slot would cost more than it brings: gather a few, but never for long
        enough = max(1, self._slots // 8)
        if self.free < enough and not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.gather_slots.total_seconds()):
                    while self.free < enough and not self._stopping:
                        self._changed.clear()
                        await self._changed.wait()

    async def _take_what_is_there(self) -> bool:
        """Pull without waiting, the highest lane first. Returns whether anything came."""
        came = False
        for lane in self._lanes:
            asked = got = 0
            # slots may be freed meanwhile: they are this lane's as long as it gives all that is asked for
            while asked == got and self.free > 0 and not self._stopping:
                asked = self.free
                fetched = await self._work.fetch(lane, asked)
                got = len(fetched)
                came = came or got > 0
                for delivery in fetched:
                    self._arrived(delivery)
        return came

    async def _wait_for_more(self) -> None:
        """Waiting pulls on every lane, topped up as they are used, until the slots are full."""
        try:
            async with asyncio.timeout(LOOK_AGAIN):
                while self.free > 0 and not self._stopping:
                    self._top_up()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            await self.end_pulls()

    def _top_up(self) -> None:
        share = -(-self.free // len(self._lanes))
        for lane in self._lanes:
            credit = self._credit.get(lane)
            if credit is None or credit.left <= 0:
                credit = self._credit[lane] = _Credit(share)
                self._pulls[lane] = self._work.wait(
                    [lane], share, lambda delivery, own=credit: self._arrived_for(own, delivery)
                )

    def _arrived_for(self, credit: _Credit, delivery: Delivery) -> None:
        """A delivery of a waiting pull, perhaps of one that is being ended."""
        credit.left -= 1
        self._arrived(delivery)
        if credit.left <= 0 or self.free <= 0:
            self._changed.set()

    async def end_pulls(self) -> None:
        """End the waiting pulls. Returns when nothing more can arrive from them, whoever else is ending them."""
        async with self._ending:
            pulls, self._pulls = list(self._pulls.values()), {}
            self._credit.clear()
            for one in pulls:
                await one.end()
