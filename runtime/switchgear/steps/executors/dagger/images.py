"""The images of an engine's steps: pulled under the breaker of their registry, and only where a pull is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from switchgear.resilience.dagger_failures import dagger_verdict
from switchgear.steps.executors.dagger import pipeline
from switchgear.steps.executors.dagger.errors import facts

if TYPE_CHECKING:
    from datetime import timedelta

    from switchgear.steps.executors.dagger.link import Container, Link
    from switchgear.steps.executors.dagger.links import Links
    from switchgear.steps.guard import Guards
    from switchgear.steps.images import Image

_MOST = 1000
"""Images that are remembered beyond their session."""


class PullTimeout(Exception):
    """An image that did not come in time: a registry may accept and never answer."""


class Images:
    """What one executor pulls and reads."""

    def __init__(self, links: Links, limit: timedelta, guards: Guards | None) -> None:
        """`limit`: for one image to be there; `guards`: what breakers of registries are among; None: there are none."""
        self._links = links
        self._limit = limit.total_seconds()
        self._guards = guards
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def get(self, link: Link, image: Image) -> Container:
        """The image, there. Raises BreakerOpen where a pull is needed and refused, PullTimeout, what the SDK raises."""
        key = pipeline.image_key(image)
        if key is None:
            return await self._there(link, image)
        if key not in link.images:
            async with self._turn(key, image):
                if key not in link.images:
                    link.images[key] = await self._pulled(link, image)
        return link.images[key]

    @asynccontextmanager
    async def _turn(self, key: tuple[str, ...], image: Image) -> AsyncGenerator[None]:
        """One step after the other: who waits finds the image there, or tries itself."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with self._limited(image):
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()

    async def _pulled(self, link: Link, image: Image) -> Container:
        kept = self._links.kept
        try:
            if self._guards is None or not image.host or image.text in kept:
                container = await self._there(link, image)
            else:
                container = await self._guarded(self._guards, link, image)
        except Exception:
            kept.discard(image.text)  # the engine may have it no more
            raise
        if image.digest:
            if len(kept) >= _MOST:
                kept.clear()
            kept.add(image.text)
        return container

    async def _guarded(self, guards: Guards, link: Link, image: Image) -> Container:
        """The image, by a pull that its registry's breaker counts unless something else failed."""
        name = f"registry:{image.host}"
        async with guards.guard(name) as permit:
            try:
                return await self._there(link, image)
            except Exception as error:
                found = dagger_verdict(facts(error), registry=image.host)
                if found.dependency == name:
                    permit.failure(found.error_class, type(error).__name__)
                else:
                    permit.release()
                raise

    async def _there(self, link: Link, image: Image) -> Container:
        async with self._limited(image):
            return await pipeline.base(link.client, image).sync()

    @asynccontextmanager
    async def _limited(self, image: Image) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._limit):
                yield
        except TimeoutError:
            raise PullTimeout(f"{image.text} did not come within {self._limit:g} s") from None
