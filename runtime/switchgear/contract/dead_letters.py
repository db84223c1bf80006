"""Core requests about dead letters: what clients ask the read model."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from switchgear.contract.values import Failure, Time, Token


class DeadQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dead letters of the asking principal by error fingerprint, largest group first."""

    capability: Token | None = None
    fingerprint: str | None = None
    v: Literal[1] = 1


class DeadGroup(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dead tasks of one cause."""

    fingerprint: str
    capability: Token
    count: int
    first: Time
    last: Time
    newest: Token
    """Id of the newest of them."""
    error: Failure
    redriven: int = 0
    """How many of them were tried again."""


class DeadGroups(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All groups, and how far behind the ledger the read model is."""

    groups: tuple[DeadGroup, ...]
    lag: int
    more: bool = False
    """There are smaller ones that did not fit."""
