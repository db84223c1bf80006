"""What new submissions are refused for: the ledger's room, an owner's rate, an owner's backlog (rule 19)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from switchgear.bus.port import Delivery
from switchgear.coordinator.settings import CoordinatorSettings
from switchgear.lifecycle import admission
from switchgear.lifecycle.fairness import Backlogged
from switchgear.lifecycle.history import History
from switchgear.resilience.rates import TokenBucket

BACKLOG_RETRY = 5.0
"""Seconds after which somebody whose backlog is full may try again."""
_MANY = 10_000
"""Owners whose rates are remembered before those at rest are forgotten."""


class Quotas:
    """One replica's. `held` tells how many submissions of an owner wait for room."""

    def __init__(self, settings: CoordinatorSettings, held: Callable[[Backlogged], int]) -> None:
        self._settings = settings
        self._held = held
        self._buckets: dict[str, TokenBucket] = {}

    def overload(self, history: History, delivery: Delivery) -> admission.Refusal | None:
        """Why this fresh submission is refused for now; children of running tasks never are."""
        submission = history.submitted
        if submission is None or submission.parent is not None:
            return None
        limit = self._settings.backlog_limit
        waiting = self._held(Backlogged(history.capability, history.owner))
        if waiting >= limit:
            detail = f"{waiting} of {limit} wait"
            return admission.refusal("SG1210", detail, retry_after=BACKLOG_RETRY)
        rate = self._settings.owner_rate
        if rate is None or delivery.deliveries > 1:
            return None
        wait = self._bucket(history.owner, rate).take(asyncio.get_running_loop().time())
        if not wait:
            return None
        return admission.refusal("SG1211", f"{rate:g} a second", retry_after=round(wait, 3))

    def _bucket(self, owner: str, rate: float) -> TokenBucket:
        bucket = self._buckets.get(owner)
        if bucket is None:
            if len(self._buckets) >= _MANY:
                now = asyncio.get_running_loop().time()
                resting = [name for name, one in self._buckets.items() if one.is_full(now)]
                for name in resting:
                    del self._buckets[name]
            bucket = self._buckets[owner] = TokenBucket(rate, max(1.0, rate))
        return bucket
