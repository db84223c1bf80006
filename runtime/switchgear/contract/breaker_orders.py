"""What operators order breakers to do, and the record of it: who, when, which, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from switchgear.contract import limits
from switchgear.contract.values import Text, Time, Token

Action = Literal["reset", "open", "close"]
"""`open`: refuse all calls; `close`: let all calls through, whatever they meet; `reset`: closed, without a past, and
left to itself."""
MAX_ORDERS = 500
"""Orders that are kept; the oldest go first."""
Dependency = Annotated[str, Meta(min_length=1, max_length=limits.MAX_LABEL)]


class BreakerCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Order the breakers of one dependency: of all live instances that know it, of an agent's, or of one instance."""

    dependency: Dependency
    action: Action
    why: Annotated[str, Meta(min_length=1, max_length=limits.MAX_TEXT)]
    """For those who find the breaker so later."""
    agent: Token | None = None
    instance: Token | None = None
    v: Literal[1] = 1


class BreakerOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order, as it is kept: stored before the instances were told."""

    id: Token
    time: Time
    by: Token
    """The principal that gave it."""
    dependency: str
    action: Action
    why: Text
    instances: tuple[str, ...]
    """Who was told. Instances that started later were not."""
    v: Literal[1] = 1


class BreakerOrdersQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The orders so far, the newest first."""

    dependency: str = ""
    """Only of this one."""
    limit: Annotated[int, Meta(ge=1, le=MAX_ORDERS)] = 50
    v: Literal[1] = 1


class BreakerOrders(Struct, frozen=True, kw_only=True):
    """Orders, the newest first. The newest 500 are kept."""

    orders: tuple[BreakerOrder, ...]
