"""Caches of process steps: directories below the user's cache, locked where their spec says so."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switchgear.steps.sources import Cache
    from switchgear.steps.workspace import Workspace

_LOOK_AGAIN = 0.05
"""Seconds between two tries for a lock that another step has."""


@asynccontextmanager
async def opened(
    caches: tuple[Cache, ...], root: Path, workspace: Workspace
) -> AsyncGenerator[dict[str, str]]:
    """The host's directory of each cache by its path inside, as long as this is entered.

    Locks are taken in the order of names, so that two steps never wait for each other.
    """
    homes: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for cache in sorted(caches, key=lambda one: one.name):
            if cache.name not in homes:
                homes[cache.name] = await _open(cache, root, workspace, stack)
        yield {cache.path: homes[cache.name] for cache in caches}


async def _open(cache: Cache, root: Path, workspace: Workspace, stack: AsyncExitStack) -> str:
    home = root / cache.name
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if cache.sharing == "shared":
        return str(home)
    locks = root / ".locks"  # no cache can have this name
    locks.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(locks / cache.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, lock)  # a lock ends with its file
    while not _taken(lock):
        if cache.sharing == "private":
            own = workspace.directory / f"cache-{cache.name}"
            own.mkdir(exist_ok=True)
            return str(own)
        await asyncio.sleep(_LOOK_AGAIN)
    return str(home)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
