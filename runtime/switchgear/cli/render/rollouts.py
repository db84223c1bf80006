"""Rollouts: the rules, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.tables import pairs, table, word

if TYPE_CHECKING:
    from switchgear.client.rollouts import Report
    from switchgear.contract.rollout import Rollout, RolloutRule

NONE = "no rollouts: set one with `switchgear rollout set CAPABILITY MODE`"


def rules(found: Sequence[Rollout], now: datetime) -> RenderableType:
    """The rules in force, and what each would go back to."""
    rows = [
        (
            one.capability,
            pattern,
            _mode(rule),
            words.ago(rule.since, now) if rule.since else "-",
            rule.by,
            one.before[pattern].mode if pattern in one.before else "no rule",
            words.one_line(rule.why),
        )
        for one in found
        for pattern, rule in sorted(one.rules.items())
    ]
    if not rows:
        return Text(NONE)
    return table(("CAPABILITY", "STEPS", "MODE", "SET", "BY", "BEFORE", "WHY"), rows)


def reports(found: Sequence[Report]) -> RenderableType:
    """Each rule with its counts, and what stands against a switch."""
    if not found:
        return Text(NONE)
    parts: list[RenderableType] = []
    for one in found:
        parts += [_report(one), Text()]
    return Group(*parts[:-1])


def _report(one: Report) -> RenderableType:
    counts = one.counts
    verdict = word("ready", "completed") if one.ready else word("not ready", "waiting")
    lag = f"the newest {counts.lag} ledger entries are not counted yet" if counts.lag else ""
    return Group(
        Text.assemble((one.capability, "bold"), f" {one.pattern}: ", verdict),
        pairs(
            [
                ("mode", _mode(one.rule)),
                ("missing", "; ".join(one.missing)),
                ("steps", _counted(counts.served)),
                ("failed", _counted(counts.failed)),
                ("fell back", str(counts.fell_back) if counts.fell_back else ""),
                (
                    "compared",
                    f"{counts.compared}, {counts.same} the same" if counts.compared else "",
                ),
                ("differences", _counted(counts.differences)),
                ("not compared", _counted(counts.skipped)),
                (
                    "duration",
                    f"dagger takes {counts.ratio:.2f} times as long" if counts.ratio else "",
                ),
                ("look at", " ".join(counts.examples)),
                ("note", lag),
            ]
        ),
    )


def _mode(rule: RolloutRule) -> str:
    if rule.mode == "percent":
        return f"{rule.percent:g} % on dagger"
    if rule.mode == "shadow":
        part = "" if rule.percent == 100 else f" {rule.percent:g} %"  # noqa: PLR2004 - per cent
        return f"shadow{part}, {rule.serve} serves"
    return rule.mode


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
