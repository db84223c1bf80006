"""What can be asked about one task: why it is where it is, a signal for it, its next attempt now."""

from __future__ import annotations

import asyncio
import contextlib

from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import subjects
from switchgear.contract.queries import (
    ExplainQuery,
    Explanation,
    Retried,
    RetryQuery,
    Signalled,
    SignalQuery,
)
from switchgear.coordinator.explain import Known, explain
from switchgear.coordinator.queries import Verb
from switchgear.coordinator.settling import Settling
from switchgear.coordinator.viewing import Occasion, Viewing
from switchgear.errors import NotFound
from switchgear.lifecycle.history import History
from switchgear.lifecycle.signalling import Groups, may_signal
from switchgear.registry.watch import RegistryWatch
from switchgear.tasks.requests import send_signal
from switchgear.tasks.scopes import scope_of

_PATIENCE = 2.0
"""Seconds for which an explanation looks at children."""


class TaskQueries:
    """The verbs about one task."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        registry: RegistryWatch,
        viewing: Viewing,
        settling: Settling,
        groups: Groups,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._registry = registry
        self._viewing = viewing
        self._settling = settling
        self._groups = groups

    def verbs(self) -> tuple[Verb, ...]:
        """What it answers."""
        return (
            Verb("explain", ExplainQuery, self._explain),
            Verb("signal", SignalQuery, self._signal),
            Verb("retry", RetryQuery, self._retry),
        )

    async def _explain(self, principal: str, query: ExplainQuery) -> Explanation:
        history = await self._history(principal, query.task)
        waits = await self._viewing.waits.of(history.waiting)
        if history.position == "waiting" and not history.ended:
            # many children take a while to look at; what is known by then is told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._viewing.children.conditions(history, waits)
        known = Known(
            runner=self._registry.runner(query.task),
            waits=waits,
            ended={
                wait.key: self._viewing.children.ended(history, wait)
                for wait in waits
                if wait.kind == "children"
            },
            groups=self._groups,
            now=self._clock.now(),
        )
        return explain(history, self._registry.table, known)

    async def _signal(self, principal: str, query: SignalQuery) -> Signalled:
        history = await self._history("*", query.task)
        waits = await self._viewing.waits.of(history.waiting)
        group = may_signal(history, waits, principal, query.name, self._groups)
        sequence = await send_signal(
            self._bus,
            self._clock,
            history.scope,
            query.name,
            bytes(query.payload),
            sender=principal,
            group=group,
        )
        return Signalled(sequence=sequence)

    async def _retry(self, principal: str, query: RetryQuery) -> Retried:
        history = await self._history(principal, query.task)
        waiting = history.waiting
        if history.position != "waiting" or waiting is None or history.ended:
            return Retried(state=history.state, reason="it waits for nothing")
        if waiting.reason not in ("retry", "start"):
            return Retried(state=history.state, reason=f"it waits for: {waiting.reason}")
        await self._settling.settle(history.scope, Occasion(due="now"), history=history)
        after = await self._viewing.histories.now(history.scope)
        reason = after.waiting.detail if after.waiting is not None else ""
        return Retried(state=after.state, reason=reason)

    async def _history(self, owner: str, task: str) -> History:
        """The task of this owner, `*` for any. Raises NotFound, Unavailable."""
        newest = await self._bus.ledger.leader_tail(subjects.scope("*", owner, task))
        if newest is None:
            of = "" if owner == "*" else f" of {owner}"
            raise NotFound(f"no task {task}{of}", fix="`switchgear task ls` lists your tasks")
        return await self._viewing.histories.up_to(scope_of(newest.subject), newest)
