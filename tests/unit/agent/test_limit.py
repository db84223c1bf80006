"""The time that an attempt may take: it stands still as long as anybody wants it to."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.agent.limit import TimeLimit
from tests.patience import PATIENCE

SHORT = timedelta(milliseconds=50)


async def test_no_time_counts_until_the_last_who_paused_it_goes_on() -> None:
    limit = TimeLimit(SHORT)
    one, other = object(), object()

    async def work() -> None:
        limit.pause(one)
        limit.pause(other)
        limit.pause(other)  # it waits still
        limit.resume(other)
        limit.resume(other)
        await asyncio.sleep(2 * SHORT.total_seconds())
        limit.resume(one)

    await limit.within(work())
    assert not limit.expired


async def test_time_counts_again_afterwards() -> None:
    limit = TimeLimit(SHORT)

    async def work() -> None:
        limit.pause(work)
        limit.resume(work)
        await asyncio.sleep(PATIENCE)

    with pytest.raises(TimeoutError):
        await limit.within(work())
    assert limit.expired
