"""Intakes of their own for owners whose submissions pile up (rule 19).

The shared intake is first in, first out, and holds a bounded number of unsettled deliveries: one owner's backlog
would stop it for all. So a backlog moves to a durable consumer of its own. A document says from which sequence on:
whatever the shared intake brings of it may then be acked at once, since the own intake brings it again, to whichever
replica is alive. Neither is ever deleted, so that promise stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import msgspec

from switchgear.bus.port import (
    Bus,
    Consuming,
    Delivery,
    Kept,
    Message,
    Refused,
    Subscription,
)
from switchgear.contract import codec, entries, subjects
from switchgear.contract.stored import Stored
from switchgear.errors import ProtocolError, SwitchgearError, Unavailable
from switchgear.lifecycle.fairness import Backlogged
from switchgear.lifecycle.own_backlog import OwnBacklog

log = logging.getLogger(__name__)

IN_FLIGHT = 64
"""Submissions of one own intake that one replica holds at a time."""
COUNT_EVERY = 1.0
"""Seconds for which the count of what waits in an own intake is believed."""
_AGAIN = 0.5


class Opened(msgspec.Struct, frozen=True):
    """The document: this owner has an intake of its own."""

    start: Annotated[int, msgspec.Meta(ge=1)]
    """The ledger sequence that it begins with."""


@dataclass(slots=True)
class _Own:
    """One owner's intake, as this replica knows it."""

    start: int
    consuming: Consuming | None = None
    backlog: OwnBacklog = field(default_factory=OwnBacklog)
    counting: bool = False
    hearing: Subscription | None = None


class OwnIntakes:
    """All of them, on one replica: `receive` gets what they deliver. `start`, then `stop`."""

    def __init__(self, bus: Bus, receive: Callable[[Delivery], None]) -> None:
        self._bus = bus
        self._receive = receive
        self._known: dict[Backlogged, _Own] = {}
        self._refused: set[Backlogged] = set()
        """Whose rejections have been heard of since they were last asked for."""
        self._watch: Consuming | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Consume those that there are, and each one that is opened from now on. Raises Unavailable."""
        self._watch = await self._bus.documents.watch(subjects.OWN_INTAKES, self._heard)

    async def stop(self) -> None:
        """Receive nothing more."""
        if self._watch is not None:
            await self._watch.end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for own in self._known.values():
            if own.consuming is not None:
                await own.consuming.end()
            if own.hearing is not None:
                await own.hearing.unsubscribe()

    def covers(self, whose: Backlogged, sequence: int) -> bool:
        """Whether an own intake brings this submission, whatever becomes of the shared intake's delivery."""
        own = self._known.get(whose)
        return own is not None and sequence >= own.start

    async def open(self, whose: Backlogged, start: int) -> None:
        """Give the owner an intake of its own, from this sequence on at the latest. Raises Unavailable."""
        subject = subjects.own_intake(whose.capability, whose.owner)
        data = codec.encode(Opened(start))
        if isinstance(await self._bus.documents.put(subject, data, expect=0), Refused):
            kept = await self._bus.documents.get(subject)
            if kept is None or kept.data is None:
                raise Unavailable(f"{subject} is there, and cannot be read")
            data = kept.data
        else:
            log.info("coordinator.intake-opened %s of %s from %d", *whose, start)
        self._know(whose, codec.decode(data, Opened))

    def waiting(self, whose: Backlogged) -> int:
        """How many submissions wait in the owner's own intake, as counted within a second and since; 0 without one.

        The count includes those that the shared intake has not brought yet: in a burst it is ahead of them.
        """
        own = self._known.get(whose)
        return 0 if own is None else own.backlog.waiting

    def arrived(self, whose: Backlogged, sequence: int) -> None:
        """This submission was left to the owner's own intake."""
        own = self._known[whose]
        own.backlog.left(sequence)
        self._keep_counting(whose, own)

    def is_refused(self, whose: Backlogged, sequence: int) -> bool:
        """Whether this submission was rejected before the own intake brought it."""
        own = self._known.get(whose)
        return own is not None and own.backlog.is_refused(sequence)

    def newly_refused(self) -> set[Backlogged]:
        """Owners of whose submissions some were rejected since this was last asked."""
        refused, self._refused = self._refused, set()
        return refused

    def _keep_counting(self, whose: Backlogged, own: _Own) -> None:
        if not own.counting:
            own.counting = True
            self._spawn(self._count_on(whose, own))

    async def _count_on(self, whose: Backlogged, own: _Own) -> None:
        """Count again and again until it is empty, so that no old count refuses anybody."""
        name = subjects.intake_consumer(*whose)
        while not own.backlog.is_empty:
            try:
                upto = await self._bus.ledger.last_sequence()
                found = await self._bus.work.backlog(name)
            except SwitchgearError as error:
                log.warning("coordinator.intake-uncounted %s: %s", name, error)
            else:
                # None: it is being made, and what was left to it waits all the same
                if found is not None:
                    count = found.pending + found.unsettled
                    own.backlog.counted(count, upto=upto, reached=found.reached, floor=found.floor)
            await asyncio.sleep(COUNT_EVERY)
        own.counting = False

    def _heard(self, kept: Kept) -> None:
        if kept.data is None:
            return
        try:
            whose = Backlogged(*subjects.parse_own_intake(kept.subject))
            opened = codec.decode(kept.data, Opened)
        except ProtocolError as error:
            log.warning("coordinator.intake-refused %s: %s", kept.subject, error)
            return
        self._know(whose, opened)

    def _know(self, whose: Backlogged, opened: Opened) -> None:
        if whose not in self._known:
            own = self._known[whose] = _Own(opened.start)
            self._spawn(self._consume(whose, own))

    async def _consume(self, whose: Backlogged, own: _Own) -> None:
        name = subjects.intake_consumer(*whose)
        while True:
            try:
                await self._bus.work.ensure_intake(
                    name, [subjects.intake_filter(*whose)], start=own.start
                )
                if own.consuming is None:
                    consume = self._bus.work.consume
                    own.consuming = consume(name, self._receive, in_flight=IN_FLIGHT)
                await self._hear_refusals(whose, own)
            except SwitchgearError as error:
                log.warning("coordinator.intake-not-opened %s: %s", name, error)
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def _hear_refusals(self, whose: Backlogged, own: _Own) -> None:
        """Know which submissions in the intake were rejected, by whatever replica: now, and from now on."""

        def refuse(data: bytes) -> None:
            own.backlog.refuse(_refused(data))
            self._refused.add(whose)
            self._keep_counting(whose, own)

        def heard(message: Message) -> None:
            refuse(message.data)

        ledger, rejected = self._bus.ledger, subjects.rejected_filter(*whose)
        if own.hearing is None:
            live = subjects.live_task(rejected)
            own.hearing = await self._bus.core.subscribe(live, heard)
        found = await self._bus.work.backlog(subjects.intake_consumer(*whose))
        following = ledger.follow(0 if found is None else found.floor, filters=[rejected])
        async with aclosing(cast("AsyncGenerator[list[Stored]]", following)) as batches:
            async for batch in batches:
                if not batch:
                    return
                for one in batch:
                    refuse(one.data)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refused(data: bytes) -> list[int]:
    """The sequence of the submission that this entry rejects; none where it cannot be read."""
    try:
        return [codec.decode(data, entries.Rejected).prev]
    except ProtocolError:
        return []
