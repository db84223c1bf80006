"""How many retries a capability may have: a share of its first dispatches, and never less than ten a minute. Pure.

Retries of a dependency that fails for everybody would else multiply its load (Finagle's retry budget).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

FLOOR = 10.0
"""Retries a minute that are always allowed; as many at once after a rest."""
_RATE = FLOOR / 60
_NOTHING = 1e-6
"""What sums of fractions may lack."""
SAVED = 1000.0
"""Retries that first dispatches may save up."""
LONGEST = timedelta(minutes=10)
"""A retry looks again after this, however many wait before it."""


@dataclass(slots=True)
class _Account:
    """One capability's."""

    saved: float = 0.0
    """From first dispatches; below 0 where retries passed together that one would have been too many of."""
    floor: float = FLOOR
    seen: float = 0.0
    promised: float = 0.0
    """When the last of those may look again that had to wait."""

    def advance(self, now: float) -> None:
        """Time earns retries: first those that were taken beyond what there was."""
        earned = max(0.0, now - self.seen) * _RATE
        self.seen = max(self.seen, now)
        paid = min(max(-self.saved, 0.0), earned + self.floor)
        self.saved += paid
        self.floor = min(FLOOR, self.floor + earned - paid)


@dataclass(slots=True)
class RetryBudget:
    """All capabilities' budgets, on one replica. Times are seconds of a clock that only runs forward."""

    _accounts: dict[str, _Account] = field(default_factory=dict[str, _Account])

    def deposit(self, capability: str, share: float) -> None:
        """A task was dispatched for the first time; `share`: retries that this allows."""
        account = self._accounts.get(capability)
        if account is None:
            account = self._accounts[capability] = _Account()
        account.saved = min(SAVED, account.saved + share)

    def take(self, capability: str, now: float) -> None:
        """A retry was dispatched."""
        account = self._of(capability, now)
        saved = min(max(account.saved, 0.0), 1.0)
        floor = min(account.floor, 1.0 - saved)
        account.saved -= saved
        account.floor -= floor
        account.saved -= 1.0 - saved - floor

    def wait(self, capability: str, now: float) -> timedelta | None:
        """How long a retry has to wait before it asks again; None: not at all.

        Those that have to wait are given times one after another, as fast as the floor allows.
        """
        account = self._of(capability, now)
        missing = 1.0 - account.saved - account.floor
        if missing <= _NOTHING:
            return None
        at = now + missing / _RATE
        if account.promised > now:
            at = max(at, account.promised + 1 / _RATE)
        account.promised = min(at, now + LONGEST.total_seconds())
        return timedelta(seconds=account.promised - now)

    def _of(self, capability: str, now: float) -> _Account:
        account = self._accounts.get(capability)
        if account is None:
            account = self._accounts[capability] = _Account(seen=now)
        account.advance(now)
        return account
