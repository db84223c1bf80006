"""Runs a coroutine on the fastest event loop there is."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

_GC = (50_000, 20, 50)
"""A service makes thousands of short-lived objects a second: Python's defaults cost it a tenth of its time."""


async def supervised(name: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service loop for ever: what it raises is logged, and after a second it begins anew."""
    while True:
        try:
            await serve()
        except Exception:
            log.exception("service.failed %s", name)
            await asyncio.sleep(1)
        else:
            return


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, on uvloop where it is installed (extra `fast`); for processes that are ours alone."""
    gc.set_threshold(*_GC)
    try:
        import uvloop  # optional
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
