"""Streams what a handler emits to whoever watches: core messages, stored nowhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Chunk
from switchgear.errors import UsageError
from switchgear.tasks import payload

if TYPE_CHECKING:
    from switchgear.agent.attempt import Attempt

log = logging.getLogger(__name__)

STEP: ContextVar[str] = ContextVar("switchgear_step", default="")
"""Key of the step that runs."""
PER_SECOND = 1000
"""Chunks of one task; beyond it they are dropped, since the slowest watcher would be cut off."""


class Chunks:
    """The chunks of one run."""

    # Defaults of the class: each task has one of these, and most never stream.
    _numbers: dict[str, int] | None = None
    _second = 0.0
    _sent = 0
    _dropped = 0

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def emit(self, value: Any) -> None:
        """Send a value, from whatever thread. Raises UsageError for one over 16 KiB, or that is no JSON."""
        data = payload.encode_value(value, "a chunk")
        if len(data) > limits.MAX_CHUNK:
            raise UsageError(
                f"a chunk of {len(data)} bytes",
                why=f"{limits.MAX_CHUNK} bytes are the limit",
                fix="emit smaller values, or return large ones",
            )
        if threading.get_ident() == self._thread:
            self._send(STEP.get(), data)
        else:
            self._loop.call_soon_threadsafe(self._send, STEP.get(), data)

    def close(self) -> None:
        """Say how many were dropped."""
        if self._dropped:
            log.warning("chunks.dropped %s %d", self._attempt.subject.task, self._dropped)
            self._dropped = 0

    def _send(self, step: str, data: bytes) -> None:
        now = self._loop.time()
        if now - self._second >= 1:
            self._second, self._sent = now, 0
        self._sent += 1
        numbers = self._numbers = self._numbers or {}
        number = numbers[step] = numbers.get(step, -1) + 1
        if self._sent > PER_SECOND:
            self._dropped += 1
            return
        attempt = self._attempt
        chunk = Chunk(step=step, run=attempt.hold, number=number, value=msgspec.Raw(data))
        attempt.bus.core.publish(subjects.chunks(attempt.scope), codec.encode(chunk))
