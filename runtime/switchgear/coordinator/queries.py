"""Answers what clients and agents ask coordinators, any replica for all: `sg.api.<verb>.<principal>`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from switchgear.bus.port import Bus, Message, Subscription
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement, Offer
from switchgear.contract.queries import (
    Agents,
    Capabilities,
    CapabilityRow,
    Command,
    Drained,
    DrainQuery,
    ExplainQuery,
    Explanation,
    Holder,
    HolderQuery,
    LaneQuery,
    Lanes,
    Nothing,
    Problem,
)
from switchgear.coordinator import explain, reading
from switchgear.errors import NotFound, SwitchgearError
from switchgear.registry.watch import RegistryWatch
from switchgear.tasks.scopes import scope_of

log = logging.getLogger(__name__)

QUEUE = "coordinators"


class _Verb(NamedTuple):
    name: str
    query: type[Any]
    answer: Callable[[str, Any], Awaitable[Any]]


class Queries:
    """The queries' shell: decodes, answers, and turns every error into a Problem."""

    def __init__(self, bus: Bus, registry: RegistryWatch) -> None:
        self._bus = bus
        self._registry = registry
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: set[tuple[str, str]] = set()

    async def start(self) -> None:
        """Begin to answer."""
        verbs = [
            _Verb("capabilities", Nothing, self._capabilities),
            _Verb("agents", Nothing, self._agents),
            _Verb("explain", ExplainQuery, self._explain),
            _Verb("drain", DrainQuery, self._drain),
            _Verb("lanes", LaneQuery, self._ensure_lanes),
            _Verb("holder", HolderQuery, self._holder),
        ]
        for verb in verbs:
            self._subscriptions.append(
                await self._bus.core.subscribe(
                    subjects.api_filter(verb.name), self._receiver(verb), queue=QUEUE
                )
            )

    async def stop(self) -> None:
        """Answer nothing more."""
        for subscription in self._subscriptions:
            with contextlib.suppress(SwitchgearError):
                await subscription.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _receiver(self, verb: _Verb) -> Callable[[Message], None]:
        def receive(message: Message) -> None:
            task = asyncio.create_task(self._answer(verb, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return receive

    async def _answer(self, verb: _Verb, message: Message) -> None:
        if not message.reply:
            return
        try:
            _, principal = subjects.parse_api(message.subject)
            query = codec.decode(message.data or b"{}", verb.query)
            answer = await verb.answer(principal, query)
        except SwitchgearError as error:
            answer = Problem(code=error.code, what=error.what, why=error.why, fix=error.fix)
        except Exception as error:
            log.exception("query.failed %s", message.subject)
            answer = Problem(code=SwitchgearError.code, what=f"{type(error).__name__}: {error}")
        data = codec.encode(answer)
        if len(data) > limits.MAX_ENTRY:
            data = codec.encode(_too_large(message.subject, len(data)))
        self._bus.core.publish(message.reply, data)

    async def _capabilities(self, principal: str, query: Nothing) -> Capabilities:
        del principal, query
        rows = [
            CapabilityRow(
                offer=pool.offer, agents=(pool.agent,), instances=pool.instances, free=pool.free
            )
            for pools in self._registry.table.capabilities().values()
            for pool in pools
        ]
        answer = Capabilities(rows=tuple(rows))
        if len(codec.encode(answer)) <= limits.MAX_ENTRY:
            return answer
        bare = [replace(row, offer=_without_schemas(row.offer)) for row in rows]
        return Capabilities(rows=tuple(bare))

    async def _agents(self, principal: str, query: Nothing) -> Agents:
        del principal, query
        found = self._registry.table.instances
        return Agents(
            instances=tuple(_listed(found[subject].announcement) for subject in sorted(found))
        )

    async def _explain(self, principal: str, query: ExplainQuery) -> Explanation:
        tail = await self._bus.ledger.leader_tail(subjects.scope("*", principal, query.task))
        if tail is None:
            raise NotFound(
                f"no task {query.task} of {principal}", fix="`switchgear task ls` lists your tasks"
            )
        scope = scope_of(tail.subject)
        history = await reading.history_up_to(self._bus.ledger, scope, tail)
        return explain.explain(history, self._registry.table, self._registry.runner(query.task))

    async def _drain(self, principal: str, query: DrainQuery) -> Drained:
        del principal
        told = [
            one.announcement
            for one in self._registry.table.instances.values()
            if one.announcement.agent == query.agent
            and query.instance in (None, one.announcement.instance)
        ]
        if not told:
            raise NotFound(
                f"no live instance of agent {query.agent}", fix="`switchgear agent ls` lists them"
            )
        for one in told:
            self._bus.core.publish(
                subjects.control(one.agent, one.instance), codec.encode(Command(verb="drain"))
            )
        return Drained(instances=tuple(one.instance for one in told))

    async def ensure_lanes(
        self, lanes: Iterable[tuple[str, str]], *, missing: bool = False
    ) -> None:
        """Make the lanes of these capabilities and pools; `missing`: also those that were made before."""
        wanted = [lane for lane in lanes if missing or lane not in self._lanes]
        ensure = self._bus.work.ensure_lane
        await asyncio.gather(
            *(ensure(*lane, priority) for lane in wanted for priority in subjects.PRIORITIES)
        )
        self._lanes.update(wanted)

    async def _ensure_lanes(self, principal: str, query: LaneQuery) -> Lanes:
        del principal
        await self.ensure_lanes(query.lanes, missing=query.missing)
        names = [
            subjects.lane_consumer(capability, pool, priority)
            for capability, pool in query.lanes
            for priority in subjects.PRIORITIES
        ]
        return Lanes(consumers=tuple(names))

    async def _holder(self, principal: str, query: HolderQuery) -> Holder:
        del principal
        return Holder(instance=self._registry.runner(query.task))


def _listed(announcement: Announcement) -> Announcement:
    """An instance as lists show it: what its capabilities take and give is asked for by name."""
    return replace(announcement, offers=tuple(map(_without_schemas, announcement.offers)))


def _without_schemas(offer: Offer) -> Offer:
    return replace(offer, input_schema={}, output_schema={})


def _too_large(subject: str, size: int) -> Problem:
    return Problem(
        code="SG1103",
        what=f"the answer to {subject} has {size} bytes",
        why=f"{limits.MAX_ENTRY} are the limit",
        fix="ask for less at a time",
    )
