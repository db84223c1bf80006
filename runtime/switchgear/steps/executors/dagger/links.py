"""The session that steps share: opened by the first, watched while any uses it, replaced when it is lost.

Released when nobody uses it: an open session keeps its engine from stopping.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from switchgear.steps.executors.dagger.link import Link

if TYPE_CHECKING:
    from switchgear.steps.executors.dagger.settings import DaggerSettings

log = logging.getLogger(__name__)

_MISSED = 2
"""Signs of life in a row that an engine may owe before it counts as frozen."""


class Links:
    """At most one session at a time."""

    def __init__(self, settings: DaggerSettings) -> None:
        self.kept: set[str] = set()
        """References of images that the engine has beyond a session, as far as is known."""
        self._settings = settings
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._monitor: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> Link | None:
        """The open session, if there is one of use."""
        return self._link if self._link is not None and self._link.usable else None

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Link]:
        """A session that works, as far as is known. Raises as `Link.open`."""
        link = await self._opened()
        try:
            yield link
        finally:
            link.users -= 1
            if link.users == 0:
                self._rest(link)

    async def retire(self, link: Link, why: str) -> None:
        """This session is of no use any more: end it now, so that the next step gets another."""
        link.lose(why)
        self.kept.clear()  # an engine that was killed has forgotten them
        if link is self._link:
            self._link = None
            self._stop_watching()
            log.warning("dagger.session-retired %s", why)
        await link.close(kill=True)

    async def close(self) -> None:
        """Release the session, and wait for those that are being released."""
        self._stop_watching()
        if self._idle is not None:
            self._idle.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _opened(self) -> Link:
        async with self._opening:
            link = await self._trusted()
            if link is None:
                if self._link is not None:
                    await self.retire(self._link, str(self._link.lost.result()))
                link = self._link = await Link.open(self._settings)
                log.info("dagger.session-opened pid=%s", link.pid)
            link.users += 1
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            if self._monitor is None or self._monitor.done():
                self._monitor = asyncio.ensure_future(self._watch(link))
            return link

    async def _trusted(self) -> Link | None:
        """The open session; after a rest only if its engine still answers: it may have been started anew."""
        link = self.current
        if link is None or link.users:
            return link
        if not await link.probe(self._settings.probe_timeout.total_seconds()):
            link.lose("the engine gives no sign of life after a rest")
        return self.current

    async def _watch(self, link: Link) -> None:
        """Ask for a sign of life while somebody uses the session: a frozen engine closes nothing."""
        settings, missed = self._settings, 0
        while not link.lost.done():
            await asyncio.sleep(settings.probe_every.total_seconds())
            if not link.users or await link.probe(settings.probe_timeout.total_seconds()):
                missed = 0
                continue
            missed += 1
            if missed >= _MISSED:  # a loaded engine may be late once
                link.lose("the engine gives no sign of life", frozen=True)

    def _rest(self, link: Link) -> None:
        """Nobody uses it: not watched any more, and released after a while."""
        if link is not self._link:
            return
        self._stop_watching()

        def release() -> None:
            if link is self._link and link.users == 0:
                self._link = None
                closing = asyncio.ensure_future(link.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._settings.idle_after.total_seconds(), release)

    def _stop_watching(self) -> None:
        if self._monitor is not None:
            self._monitor.cancel()
            self._monitor = None
