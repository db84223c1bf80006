"""What the registry answers: who offers what, who runs a task, who shall drain, which lanes there are."""

from __future__ import annotations

import logging
from datetime import timedelta

from msgspec.structs import replace

from switchgear.bus.port import Bus
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement, Offer
from switchgear.contract.crash_report import CrashReport
from switchgear.contract.queries import (
    Agents,
    Capabilities,
    CapabilityRow,
    Command,
    Drained,
    DrainQuery,
    Holder,
    HolderQuery,
    LaneQuery,
    Lanes,
    Nothing,
)
from switchgear.coordinator.opening import LaneOpening
from switchgear.coordinator.queries import Verb
from switchgear.errors import NotFound, SwitchgearError
from switchgear.registry.watch import RegistryWatch

log = logging.getLogger(__name__)


class RegistryQueries:
    """The verbs that need no task's history, except for lost lanes."""

    def __init__(
        self, bus: Bus, registry: RegistryWatch, opening: LaneOpening, *, lease: timedelta
    ) -> None:
        """`lease`: of the lanes that this replica's bus makes."""
        self._bus = bus
        self._lease = lease
        self._registry = registry
        self._opening = opening

    def verbs(self) -> tuple[Verb, ...]:
        """What it answers."""
        return (
            Verb("capabilities", Nothing, self._capabilities),
            Verb("agents", Nothing, self._agents),
            Verb("drain", DrainQuery, self._drain),
            Verb("lanes", LaneQuery, self._lanes),
            Verb("holder", HolderQuery, self._holder),
        )

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

    async def _lanes(self, principal: str, query: LaneQuery) -> Lanes:
        del principal
        await self._opening.ensure(query.lanes, missing=query.missing)
        names = [
            subjects.lane_consumer(capability, pool, priority)
            for capability, pool in query.lanes
            for priority in subjects.PRIORITIES
        ]
        return Lanes(consumers=tuple(names), lease=self._lease)

    async def _holder(self, principal: str, query: HolderQuery) -> Holder:
        runner = self._registry.runner(query.task)
        report = await self._crash_report(principal, query.former)
        if report is None:
            return Holder(instance=runner)
        return Holder(instance=runner, ended=report.ended, last_words=report.last_words)

    async def _crash_report(self, agent: str, instance: str | None) -> CrashReport | None:
        """How this instance died; error output can hold secrets, so an agent hears of its own instances only."""
        if instance is None:
            return None
        try:
            found = await self._bus.core.newest(subjects.crash(agent, instance))
            return None if found is None else codec.decode(found, CrashReport)
        except SwitchgearError as error:
            log.warning("coordinator.no-crash-report %s: %s", instance, error)
            return None


def _listed(announcement: Announcement) -> Announcement:
    """An instance as lists show it: what its capabilities take and give is asked for by name."""
    return replace(announcement, offers=tuple(map(_without_schemas, announcement.offers)))


def _without_schemas(offer: Offer) -> Offer:
    return replace(offer, input_schema={}, output_schema={})
