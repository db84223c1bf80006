"""A session for one block of code that speaks to the SDK itself: watched while it lasts, ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from switchgear.resilience.dagger_failures import dagger_finding, not_begun
from switchgear.steps.executors.dagger.errors import facts, failed
from switchgear.steps.executors.dagger.link import Link
from switchgear.steps.executors.dagger.session import to_its_end

if TYPE_CHECKING:
    from switchgear.steps.executors.dagger.link import Client
    from switchgear.steps.executors.dagger.settings import DaggerSettings

KEY = "dagger"


@asynccontextmanager
async def lone(settings: DaggerSettings) -> AsyncGenerator[Client]:
    """A client of its own; its session ends with the block, and all that still runs in it.

    Raises StepFailed where no session can be had. An engine that gives no sign of life any more ends the session: what
    the block awaits fails then, instead of waiting for ever.
    """
    try:
        link = await Link.open(settings)
    except Exception as error:
        known = facts(error)
        raise failed(KEY, known, not_begun(dagger_finding(known))) from error
    watching = asyncio.ensure_future(_watch(link, settings))

    async def end() -> None:
        watching.cancel()
        await asyncio.wait({watching})
        await link.close(kill=True)

    try:
        yield link.client
    finally:
        await to_its_end(end())


async def _watch(link: Link, settings: DaggerSettings) -> None:
    while True:
        await asyncio.sleep(settings.probe_every.total_seconds())
        if not await link.probe(settings.probe_timeout.total_seconds()):
            await link.close(kill=True)
            return
