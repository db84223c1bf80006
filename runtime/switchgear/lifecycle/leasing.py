"""Who of several replicas does a job that one alone shall do: pure, and no two clocks are ever compared.

The holder renews a document again and again. Whoever sees the same document for as long as it lasts, by its own clock,
may take it over: it saw it no earlier than the holder sent it, so the holder, which counts from the sending and stops
a sixth earlier, has stopped by then. All that is asked of clocks is that none runs a sixth faster than another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from msgspec import Struct

from switchgear.contract.values import Token

_CERTAIN = 5 / 6
"""Part of the time that a lease lasts in which its holder counts on it."""


class LeaseDocument(Struct, frozen=True, kw_only=True):
    """A lease as it is kept."""

    holder: Token
    """The connection that has it."""
    lasts: timedelta
    """How long it must have stood unchanged before another may take it."""
    v: Literal[1] = 1


@dataclass(slots=True)
class Leasing:
    """What one replica knows of a lease. Times are seconds of its own clock, which only runs forward."""

    me: str
    lasts: timedelta
    _sequence: int | None = None
    """Of the document as last seen; 0: nobody has it; None: not looked yet."""
    _holder: str = ""
    _until: float = 0.0
    """When it may be taken, if it still stands then."""
    _renewed: float | None = None
    """When our newest document was sent that was stored."""

    def seen(self, sequence: int, document: LeaseDocument | None, now: float) -> None:
        """The document was read at this time at the latest; None: there is none."""
        if document is None:
            self._sequence, self._holder, self._until = 0, "", now
        elif sequence != self._sequence:
            self._sequence, self._holder = sequence, document.holder
            self._until = now + document.lasts.total_seconds()

    def expectation(self, now: float) -> int | None:
        """The sequence that our next document replaces, to take or renew the lease; None: it is another's."""
        if self._holder == self.me or now >= self._until:
            return self._sequence
        return None

    def stored(self, sequence: int, sent: float) -> None:
        """Our document, sent at this time, is the newest."""
        self._sequence, self._holder = sequence, self.me
        self._renewed = sent

    def lost(self) -> None:
        """Another has it, or we gave it back."""
        self._sequence, self._holder = None, ""
        self._renewed = None

    def held(self, now: float) -> bool:
        """Whether we have it."""
        if self._renewed is None:
            return False
        return now < self._renewed + self.lasts.total_seconds() * _CERTAIN
