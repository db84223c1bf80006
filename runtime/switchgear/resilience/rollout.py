"""Which executor a step runs on, and whether a capability is ready to switch. Pure.

The same task always falls on the same side of a percentage, and a higher percentage takes no task back: a task's
place is a number drawn from its id alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from msgspec.structs import replace

from switchgear import ids
from switchgear.contract.rollout import (
    MAX_RULES,
    Decision,
    ExecutorName,
    Rollout,
    RolloutCommand,
    RolloutCounts,
    RolloutRule,
)
from switchgear.contract.values import ErrorClass, Time

_DRAWS = 2**32
_DIGITS = 8
_OTHER: dict[ExecutorName, ExecutorName] = {"process": "dagger", "dagger": "process"}
_OWN: frozenset[ErrorClass] = frozenset({"step", "cancelled"})
"""Failures that are the step's own, or somebody's wish: another executor would do no better."""

MINIMUM_RUNS = 50
"""Compared runs before a capability counts as ready."""
MAX_SKIPPED = 0.1
"""Part of the shadow runs that could not be compared, up to which it counts as ready: those that were late or found no
engine would be late, or find none, when it serves."""
MAX_RATIO = 1.5
"""Dagger's duration by the process's, up to which it counts as ready."""


class Choice(NamedTuple):
    """What is to run for one step."""

    decision: Decision
    first: ExecutorName
    """Its outcome counts, unless it falls back."""
    shadow: ExecutorName | None = None
    """Runs beside it, to be compared."""
    fallback: ExecutorName | None = None
    """Runs after a failure of the first with a known outcome."""


class Readiness(NamedTuple):
    """Whether the steps of a pattern may be switched to dagger."""

    ready: bool
    missing: tuple[str, ...]
    """What stands against it, in words."""


def place(task: str) -> float:
    """Where the task stands among all, 0 to 100: the same for ever, and evenly spread."""
    return int(ids.short_digest(task.encode(), _DIGITS), 16) / _DRAWS * 100


def rule_of(rollout: Rollout | None, key: str) -> tuple[str, RolloutRule] | None:
    """The pattern and rule for a step's key: its own, else the longest beginning of it; None for none."""
    if rollout is None:
        return None
    own = rollout.rules.get(key)
    if own is not None:
        return key, own
    fitting = [one for one in rollout.rules if one.endswith("*") and key.startswith(one[:-1])]
    best = max(fitting, key=len, default=None)
    return None if best is None else (best, rollout.rules[best])


def choose(pattern: str, rule: RolloutRule, task: str, *, repeatable: bool) -> Choice:
    """What this rule means for a step of this task; `repeatable`: the step is marked idempotent."""

    def made(first: ExecutorName, why: str) -> Choice:
        return Choice(Decision(mode=rule.mode, rule=pattern, executor=first, why=why), first)

    if rule.mode in ("process", "dagger"):
        return made(rule.mode, f"all tasks run on {rule.mode}")
    at = place(task)
    if rule.mode == "percent":
        first: ExecutorName = "dagger" if at < rule.percent else "process"
        return made(
            first, f"{rule.percent:g} % of the tasks run on dagger, this one is at {at:.2f}"
        )
    if rule.mode == "fallback":
        return made("dagger", "dagger first, as a process if it cannot")._replace(
            fallback="process"
        )
    if at >= rule.percent:
        return made(
            rule.serve, f"{rule.percent:g} % of the tasks are shadowed, this one is at {at:.2f}"
        )
    if not repeatable and not rule.twice:
        return made(rule.serve, "not shadowed: the step is not marked idempotent")
    other = _OTHER[rule.serve]
    return made(rule.serve, f"{rule.serve} serves, {other} runs beside it")._replace(shadow=other)


def falls_back(error_class: ErrorClass, *, outcome_known: bool) -> bool:
    """Whether a step may run elsewhere after this failure: nothing of it took effect, and elsewhere it may pass."""
    return outcome_known and error_class not in _OWN


def ratio(served: ExecutorName | str, took: timedelta, beside: timedelta) -> float | None:
    """Dagger's duration by the process's; None where either took no time that could be measured."""
    dagger, process = (took, beside) if served == "dagger" else (beside, took)
    return dagger / process if process > timedelta(0) and dagger > timedelta(0) else None


def readiness(
    rule: RolloutRule,
    counts: RolloutCounts,
    *,
    runs: int = MINIMUM_RUNS,
    most: float = MAX_RATIO,
) -> Readiness:
    """Whether enough was compared, of nearly all, nothing differed, and dagger is fast enough."""
    missing: list[str] = []
    if rule.mode != "shadow":
        missing.append(f"the mode is {rule.mode}, not shadow: nothing is compared")
    if counts.compared < runs:
        missing.append(f"{counts.compared} of {runs} runs were compared")
    skipped = sum(counts.skipped.values())
    if skipped > MAX_SKIPPED * (skipped + counts.compared):
        missing.append(
            f"{skipped} of {skipped + counts.compared} shadow runs could not be compared, "
            f"{100 * MAX_SKIPPED:g} % are allowed"
        )
    differed = counts.compared - counts.same
    if differed:
        kinds = ", ".join(f"{what} {count}" for what, count in sorted(counts.differences.items()))
        missing.append(f"{differed} of {counts.compared} runs differed: {kinds}")
    if counts.ratio is not None and counts.ratio > most:
        missing.append(f"dagger takes {counts.ratio:.2f} times as long, {most:g} are allowed")
    if counts.ratio is None and counts.compared >= runs:
        missing.append("no duration could be compared")
    return Readiness(not missing, tuple(missing))


def changed(former: Rollout | None, command: RolloutCommand, by: str, now: Time) -> Rollout | str:
    """The rules after a command, or why it cannot be done."""
    rules = dict(former.rules) if former is not None else {}
    before = dict(former.before) if former is not None else {}
    pattern = command.pattern
    fault = _fault(pattern, command, rules, before)
    if fault:
        return fault
    standing = rules.pop(pattern, None)
    wanted = command.rule if command.verb == "set" else None
    if command.verb == "back":
        wanted = before.get(pattern)
    before.pop(pattern, None)
    if standing is not None:
        before[pattern] = standing
    if wanted is not None:
        why = command.why or (
            f"back from {standing.mode}" if standing and command.verb == "back" else ""
        )
        rules[pattern] = replace(wanted, since=now, by=by, why=why)
    while len(before) > MAX_RULES:
        before.pop(next(iter(before)))
    return Rollout(capability=command.capability, rules=rules, before=before)


def _fault(
    pattern: str,
    command: RolloutCommand,
    rules: dict[str, RolloutRule],
    before: dict[str, RolloutRule],
) -> str:
    if "*" in pattern[:-1]:
        return f"{pattern!r} has a * that is not at its end"
    if command.verb == "set":
        if command.rule is None:
            return "there is no rule to set"
        if pattern not in rules and len(rules) >= MAX_RULES:
            return f"there are {MAX_RULES} patterns already"
        return _useless(command.rule)
    if pattern not in rules and (command.verb == "remove" or pattern not in before):
        return f"there is no rule for {pattern!r}"
    return ""


def _useless(rule: RolloutRule) -> str:
    """Which field means nothing in the rule's mode, where whoever set it may think that it does; empty for none."""
    plain = RolloutRule(mode=rule.mode)
    if rule.mode not in ("percent", "shadow") and rule.percent != plain.percent:
        return (
            f"{rule.mode} is for all tasks: for {rule.percent:g} % of them, set percent or shadow"
        )
    if rule.mode != "shadow":
        for name in ("serve", "twice", "compare_stdout"):
            if getattr(rule, name) != getattr(plain, name):
                return f"{name} is for shadow, not {rule.mode}"
    return ""
