"""What all conformance tests use: names of their own, and bounded waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

from switchgear.bus.port import Appended, Bus, Refused
from switchgear.contract import limits, subjects
from tests.patience import PATIENCE

T = TypeVar("T")


class RawError(Exception):
    """A raw append that the broker refused otherwise than by a wrong sequence."""


class Received(Generic[T]):
    """What a callback got so far."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._grown = asyncio.Event()

    def __call__(self, item: T) -> None:
        self.items.append(item)
        self._grown.set()

    async def until(self, enough: Callable[[list[T]], bool]) -> list[T]:
        """Wait until what has been received is enough."""
        async with asyncio.timeout(PATIENCE):
            while not enough(self.items):
                self._grown.clear()
                await self._grown.wait()
        return self.items

    async def reach(self, count: int) -> list[T]:
        """Wait until so many have been received."""
        return await self.until(lambda items: len(items) >= count)


class Names(NamedTuple):
    """Names that no other test uses."""

    capability: str
    owner: str

    def scope(self, task: str = "t1", capability: str = "") -> str:
        """The scope of a task of this test."""
        return subjects.scope(capability or self.capability, self.owner, task)

    def lane(self, pool: str = "p", priority: str = "normal") -> str:
        """The consumer of a lane of this test's capability."""
        return subjects.lane_consumer(self.capability, pool, priority)


class Backend(Protocol):
    """One implementation of the bus."""

    async def bus(self, name: str, *, lane_ack_wait: timedelta, intake_ack_wait: timedelta) -> Bus:
        """A new connection with all streams in place."""
        ...

    async def raw(self, subject: str, headers: bytes, data: bytes) -> Appended | Refused:
        """Store as a raw client does, with any header block. Raises RawError."""
        ...


class MakeBus(Protocol):
    """Opens connections, which end with the test."""

    async def __call__(
        self,
        name: str = "bus-a",
        *,
        lane_ack_wait: timedelta = limits.LANE_ACK_WAIT,
        intake_ack_wait: timedelta = limits.INTAKE_ACK_WAIT,
    ) -> Bus: ...
