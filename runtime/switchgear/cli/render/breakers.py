"""Breakers and the orders that operators gave them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import table, word

if TYPE_CHECKING:
    from switchgear.contract.announcement import BreakerState
    from switchgear.contract.breaker_orders import BreakerOrder

_MAX_WHY = 300
"""Characters of a reason in a table; `--json` has all of it."""
_STYLES = {
    "closed": "ok",
    "open": "fail",
    "forced-open": "fail",
    "half-open": "warn",
    "disabled": "warn",
}


def breakers(
    rows: Sequence[tuple[str, BreakerState]],
    now: datetime,
    none: str = "no breakers: an instance has one for each dependency that it called",
) -> RenderableType:
    """One breaker of one instance a line; `none` where there is none."""
    if not rows:
        return Text(none)
    return table(
        (
            *("DEPENDENCY", "INSTANCE", "STATE", "FOR", "FAILED", "SLOW", "CALLS", "BUSY"),
            *("OPENED", "WHY"),
        ),
        [
            (
                state.dependency,
                instance,
                word(state.state, _STYLES[state.state]),
                words.span(now - state.since),
                _share(state.failure_rate, state.calls),
                _share(state.slow_rate, state.calls),
                str(state.calls),
                f"{state.busy} +{state.waiting}" if state.waiting else str(state.busy),
                str(state.opened),
                _why(state, now),
            )
            for instance, state in rows
        ],
    )


def orders(found: Sequence[BreakerOrder]) -> RenderableType:
    """One order a line."""
    if not found:
        return Text("nobody has given breakers an order")
    return table(
        ("TIME", "BY", "ORDER", "DEPENDENCY", "INSTANCES", "WHY"),
        [
            (
                f"{one.time:%Y-%m-%d %H:%M:%S}",
                one.by,
                one.action,
                one.dependency,
                str(len(one.instances)),
                words.one_line(one.why, _MAX_WHY),
            )
            for one in found
        ],
    )


def _share(rate: float, calls: int) -> str:
    return f"{rate:.0%}" if calls else "-"


def _why(state: BreakerState, now: datetime) -> str:
    if state.forced_by and state.forced_at is not None:
        since = words.ago(state.forced_at, now)
        return words.one_line(f"held by {state.forced_by} {since}: {state.forced_why}")
    if state.until is not None:
        probes = words.span(state.until - now)
        return words.one_line(f"{state.why} (probes in {probes})")
    return words.one_line(state.why) or "-"
