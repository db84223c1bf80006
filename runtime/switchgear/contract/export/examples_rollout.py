"""Examples of rollouts: a rule, what is asked about it, and a decision that a checkpoint carries."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from switchgear.contract import rollout
from switchgear.contract.export.scene import TASK, at

RULE = rollout.RolloutRule(
    mode="shadow", percent=20, since=at(0), by="ada", why="before we switch the linters"
)
ROLLOUT = rollout.Rollout(
    capability="python-lint",
    rules={
        "*": RULE,
        "ruff": rollout.RolloutRule(mode="percent", percent=5, since=at(9), by="ada"),
    },
    before={"ruff": rollout.RolloutRule(mode="process", since=at(3), by="ada")},
)
DECISION = rollout.Decision(
    mode="shadow",
    rule="*",
    executor="process",
    why="process serves, dagger runs beside it",
    comparison=rollout.Comparison(
        executor="dagger",
        differences=(rollout.Difference(what="exit-code", served="0", shadow="1"),),
        served=timedelta(seconds=1.25),
        shadow=timedelta(seconds=1.5),
    ),
)


def rollouts() -> dict[str, Struct]:
    """By name of the message."""
    return {
        "rollout": ROLLOUT,
        "rollout-command": rollout.RolloutCommand(
            verb="set", capability="python-lint", pattern="ruff", rule=RULE
        ),
        "rollout-command.back": rollout.RolloutCommand(verb="back", capability="python-lint"),
        "rollouts": rollout.Rollouts(rollouts=(ROLLOUT,)),
        "rollouts-query": rollout.RolloutsQuery(),
        "rollout-counts": rollout.RolloutCounts(
            lag=0,
            decisions=61,
            served={"process": 61},
            failed={"process": 2},
            compared=58,
            same=57,
            differences={"exit-code": 1},
            skipped={"the breaker of dagger was open": 3},
            ratio=1.2,
            examples=(TASK,),
            first=at(1),
            last=at(9),
        ),
        "rollout-counts-query": rollout.RolloutCountsQuery(capability="python-lint", since=at(0)),
    }
