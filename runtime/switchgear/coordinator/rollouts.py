"""Rollouts: which executor a capability's steps run on, changed by principals and kept as documents.

Agents watch the documents themselves: a change holds for every step that begins after it.
"""

from __future__ import annotations

import logging

from switchgear.bus.port import Appended, Bus
from switchgear.clock import Clock
from switchgear.contract import codec, subjects
from switchgear.contract.rollout import Rollout, RolloutCommand, Rollouts, RolloutsQuery
from switchgear.coordinator.queries import Verb
from switchgear.errors import RolloutRefused, Unavailable
from switchgear.resilience import rollout as rules
from switchgear.steps.rollouts import read

log = logging.getLogger(__name__)

TRIES = 100
"""Refusals of one change in a row; beyond it the change is left to who asked for it."""


class RolloutService:
    """One replica's part: it only answers."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock

    def verbs(self) -> tuple[Verb, ...]:
        """What this service answers."""
        return (
            Verb("rollouts", RolloutsQuery, self.rollouts),
            Verb("rollout", RolloutCommand, self.command),
        )

    async def rollouts(self, principal: str, query: RolloutsQuery) -> Rollouts:
        """The rules in force, by capability. Raises Unavailable."""
        del principal  # they are everybody's to see
        where = subjects.rollout(query.capability or "*")
        found = [read(kept) for kept in await self._bus.documents.list(where)]
        there = [one for one in found if one is not None]
        return Rollouts(rollouts=tuple(sorted(there, key=lambda one: one.capability)))

    async def command(self, principal: str, command: RolloutCommand) -> Rollout:
        """Do it; returns the rules as they stand then. Raises RolloutRefused, Unavailable."""
        where = subjects.rollout(command.capability)
        for _ in range(TRIES):
            kept = await self._bus.documents.get(where)
            made = rules.changed(read(kept), command, principal, self._clock.now())
            if isinstance(made, str):
                raise RolloutRefused(
                    f"the rollout of {command.capability} stays as it is", why=made
                )
            expect = 0 if kept is None else kept.sequence
            answer = await self._bus.documents.put(where, codec.encode(made), expect=expect)
            if isinstance(answer, Appended):
                log.info(
                    "coordinator.rollout %s %s of %s by %s",
                    command.verb, command.pattern, command.capability, principal,
                )  # fmt: skip
                return made
        raise Unavailable(f"{TRIES} changes of {where} in a row were refused")
