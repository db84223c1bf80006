"""Pull requests on one consumer, renewed without a pause, on an inbox of their own.

Above it: lanes, intakes and confined readers. Below it the raw client. nats-py only has `fetch`, which sits out its
timeout after a restart and loses messages when it is cancelled. Here requests stay open while there is credit, are
topped up when half of it is used, are sent anew the moment the connection is back, and heartbeats tell of a request
that got lost. Each incarnation has a new inbox, so that no request of an older one can still deliver.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from switchgear.bus import frames
from switchgear.bus.asking import ApiError, Asking
from switchgear.bus.publisher import Publisher
from switchgear.bus.raw import RawClient
from switchgear.errors import SwitchgearError

log = logging.getLogger("switchgear.bus")

HEARTBEAT: Final = 2.0
"""Seconds between the server's signs of life on an idle request."""
MISSED: Final = 2.5
"""Heartbeats without any sign after which requests count as lost."""
EXPIRES: Final = 10.0
"""Seconds after which an unused request ends and is renewed; a third of a lease.

A frozen process cannot end its requests: while they stand they swallow what its leases give back (measured).
"""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between attempts while nobody serves the consumer: doubling from the first to the longest."""

MISSING: Final = frozenset({10014, 10059})
"""JetStream's errors that say: no such consumer, no such stream."""

_EXPIRY: Final = f'"expires":{int(EXPIRES * 1e9)},"idle_heartbeat":{int(HEARTBEAT * 1e9)}}}'

Take = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes a message: subject, reply subject (`$JS.ACK.…`), payload, raw headers."""


class Link(NamedTuple):
    """What every part of the bus works with."""

    client: RawClient
    inbox: str
    """The private prefix, ending in a dot."""
    asking: Asking
    publisher: Publisher


class Pulling:
    """Open pull requests on one consumer, from `start` to `stop`."""

    _inboxes = 0

    def __init__(
        self,
        link: Link,
        stream: str,
        consumer: str,
        take: Take,
        *,
        credit: int,
        revive: Callable[[], Awaitable[None]] | None = None,
        idle: Callable[[int], None] | None = None,
    ) -> None:
        """Ask for `credit` messages at most until `give_back`.

        `revive` makes a missing consumer again. `idle` hears, at each heartbeat, that the server has nothing more
        to deliver now, and the consumer sequence of what it delivered last.
        """
        self._link = link
        self._client = link.client
        self._loop = asyncio.get_running_loop()
        self.stream = stream
        self.consumer = consumer
        self._take = take
        self._revive = revive
        self._idle = idle
        self._credit = credit
        """May be asked for now."""
        self._asked = 0
        """Asked for, and neither delivered nor refused."""
        self._threshold = max(1, credit // 2)
        self._sid = 0
        self._inbox = ""
        self._running = False
        self._heard = 0.0
        self._pause = FIRST_PAUSE
        self._scheduled = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._reopening: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._running = True
        self._client.on_lost(self._on_lost)
        self._client.on_back(self._open)
        self._watchdog = self._loop.call_later(HEARTBEAT, self._watch)
        self._open()

    def halt(self) -> tuple[int, ...]:
        """Ask for nothing more. Returns the subscriptions that the caller ends (several in one round trip)."""
        self._running = False
        self._client.forget_listener(self._on_lost, self._open)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._reopening is not None:
            self._reopening.cancel()
        sids = (self._sid,) if self._sid else ()
        self._sid = 0
        return sids

    async def stop(self) -> None:
        """Ask for nothing more, and return when nothing more can arrive."""
        await self._client.unsubscribe_direct(*self.halt())

    def give_back(self) -> None:
        """One more message may be asked for."""
        self._credit += 1
        self._schedule()

    # --- asking

    def _open(self) -> None:
        if not self._running or not self._client.ready:
            return
        self._drop_inbox()
        Pulling._inboxes += 1
        self._inbox = f"{self._link.inbox}p.{Pulling._inboxes}"
        self._sid = self._client.subscribe_direct(self._inbox, self._received)
        self._heard = self._loop.time()
        self._ask()

    def _drop_inbox(self) -> None:
        """Requests of this incarnation are void: what they were owed may be asked for again."""
        self._credit += self._asked
        self._asked = 0
        if self._sid:
            # What was sent on the old inbox before the server hears of it is still taken.
            self._client.redirect(self._sid, self._late)
            retired = self._loop.create_task(self._client.unsubscribe_direct(self._sid))
            _background.add(retired)
            retired.add_done_callback(_background.discard)
            self._sid = 0

    def _schedule(self) -> None:
        # Once a turn of the loop: a hundred settled deliveries make one request, not a hundred.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._scheduled = False
        credit = self._credit
        if credit <= 0 or not self._sid or not self._client.ready:
            return
        if self._asked > 0 and credit < self._threshold:
            return
        body = f'{{"batch":{credit},{_EXPIRY}'
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        if self._client.publish_now(subject, body.encode(), self._inbox):
            if self._asked == 0:
                self._heard = self._loop.time()
            self._asked += credit
            self._credit = 0

    # --- hearing

    def _received(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._heard = self._loop.time()
        if reply:
            self._pause = FIRST_PAUSE
            self._asked -= 1
            self._take(subject, reply, data, headers)
            if self._asked == 0 and self._credit > 0:
                self._schedule()
            return
        self._told(headers)

    def _late(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """On an older inbox: its requests are written off, only messages count."""
        if reply:
            self._credit -= 1
            self._take(subject, reply, data, headers)

    def _told(self, headers: bytes) -> None:
        status = frames.status(headers)
        if status == frames.HEARTBEAT:
            last = frames.last_delivered(headers)
            if self._idle is not None and last is not None:
                self._idle(last)
            return
        owed = frames.pending_messages(headers)
        if status == frames.OVER and owed is not None:
            self._asked = max(0, self._asked - owed)
            self._credit += owed
            self._schedule()
            return
        reason = frames.description(headers)
        log.debug(
            "bus.pull_ended", extra={"consumer": self.consumer, "status": status, "reason": reason}
        )
        missing = status in {frames.NOTHING, frames.NOBODY} or "Deleted" in reason
        self._reopen(missing=missing)

    def _reopen(self, *, missing: bool) -> None:
        """Ask anew after a pause; a consumer that is missing is made again first, if we may."""
        self._drop_inbox()
        if not self._running or (self._reopening is not None and not self._reopening.done()):
            return
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
        self._reopening = self._loop.create_task(self._reopened(pause, missing=missing))

    async def _reopened(self, pause: float, *, missing: bool) -> None:
        await asyncio.sleep(pause)
        if missing and self._revive is not None:
            try:
                if not await self._exists():
                    # Once more: a server that starts may answer before it has read its consumers back.
                    await asyncio.sleep(pause)
                    if not await self._exists():
                        log.warning("bus.consumer_missing", extra={"consumer": self.consumer})
                        await self._revive()
            except SwitchgearError as error:
                log.debug(
                    "bus.consumer_not_revived",
                    extra={"consumer": self.consumer, "error": str(error)},
                )
        self._reopening = None
        self._open()

    async def _exists(self) -> bool:
        try:
            subject = f"CONSUMER.INFO.{self.stream}.{self.consumer}"
            await self._link.asking.api(subject, seconds=LONGEST_PAUSE)
        except ApiError as error:
            # Others, such as a cluster without a leader, say nothing about the consumer.
            if error.number in MISSING:
                return False
            raise
        return True

    def _on_lost(self) -> None:
        if self._sid:
            self._client.forget(self._sid)
            self._sid = 0
        self._drop_inbox()

    def _watch(self) -> None:
        """Notice a request that got lost without a word, such as at a change of leaders."""
        if self._client.is_closed:
            return
        self._watchdog = self._loop.call_later(HEARTBEAT, self._watch)
        silent = self._loop.time() - self._heard > HEARTBEAT * MISSED
        if self._asked > 0 and silent and self._client.ready:
            log.info("bus.pull_lost", extra={"consumer": self.consumer})
            self._reopen(missing=self._revive is not None)
        elif self._running and not self._sid and self._client.ready and self._reopening is None:
            self._open()


_background: set[asyncio.Task[None]] = set()
