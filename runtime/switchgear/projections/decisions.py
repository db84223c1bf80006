"""Decisions of rollouts, as the read model keeps and counts them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from switchgear.contract import entries
from switchgear.contract.rollout import RolloutCounts
from switchgear.contract.stored import Stored
from switchgear.lifecycle.history import History
from switchgear.resilience.rollout import ratio

MOST = 20_000
"""Decisions that are counted: the newest ones."""
FIND = (
    "SELECT time_ns, executor, ok, fell_back, skipped, differences, ratio,"
    " (SELECT id FROM tasks WHERE tasks.number = decisions.number AND owner = ?)"
    " FROM decisions WHERE capability = ? AND rule = ? AND time_ns >= ?"
    " ORDER BY sequence DESC LIMIT ?"
)
_EXAMPLES = 10
_REASONS = 16
_MAX_WORD = 128


def row(
    stored: Stored, number: int, history: History, entry: entries.Entry
) -> Iterable[tuple[object, ...]]:
    """The row of an entry that records a decision; none for any other entry."""
    decision = entry.decision if isinstance(entry, entries.Checkpoint) else None
    if decision is None or not isinstance(entry, entries.Checkpoint):
        return
    beside = decision.comparison
    skipped = differences = measured = None
    if beside is not None:
        skipped = beside.skipped[:_MAX_WORD]
        if not skipped:
            differences = ",".join(one.what for one in beside.differences)
            measured = ratio(decision.executor, beside.served, beside.shadow)
    yield (
        stored.sequence,
        number,
        history.capability,
        decision.rule[:_MAX_WORD],
        stored.time_ns,
        decision.executor[:_MAX_WORD],
        int(entry.ok),
        int(bool(decision.fell_back)),
        skipped,
        differences,
        measured,
    )


def counted(found: list[tuple[Any, ...]]) -> RolloutCounts:
    """The counts of rows that `FIND` gives, newest first."""
    served: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    ratios: list[float] = []
    examples: list[str] = []
    compared = same = fallen = 0
    for _, executor, ok, fell_back, why, differences, measured, task in found:
        served[executor] += 1
        failed[executor] += not ok
        fallen += fell_back
        if why:
            skipped[why] += 1
        if differences is None:
            continue
        compared += 1
        same += not differences
        differing.update(filter(None, differences.split(",")))
        if measured is not None:
            ratios.append(measured)
        if differences and task and len(examples) < _EXAMPLES and task not in examples:
            examples.append(task)
    return RolloutCounts(
        lag=0,
        decisions=len(found),
        served=dict(served),
        failed={executor: count for executor, count in failed.items() if count},
        fell_back=fallen,
        compared=compared,
        same=same,
        differences=dict(differing),
        skipped=dict(skipped.most_common(_REASONS)),
        ratio=median(ratios) if ratios else None,
        examples=tuple(examples),
        first=_time(found[-1][0]) if found else None,
        last=_time(found[0][0]) if found else None,
    )


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)
