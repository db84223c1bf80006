"""How a capability's steps move from one executor to another: policy, decisions, comparisons, questions."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from switchgear.contract import limits
from switchgear.contract.values import Text, Time, Token

Mode = Literal["process", "dagger", "percent", "shadow", "fallback"]
"""`process`, `dagger`: all there; `percent`: a stable part of the tasks on dagger, the rest as processes; `shadow`: on
both, one of them serves; `fallback`: on dagger, and as a process where that failed with a known outcome."""
ExecutorName = Literal["process", "dagger"]
Percent = Annotated[float, Meta(ge=0, le=100)]
Pattern = Annotated[str, Meta(min_length=1, max_length=limits.MAX_LABEL)]
"""A step's key, the beginning of keys with a `*` behind it, or `*` for all that no other pattern names."""
MAX_RULES = 64
"""Patterns of one capability."""


class RolloutRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the steps of one pattern run."""

    mode: Mode
    percent: Percent = 100.0
    """Of the tasks: those that run on dagger (`percent`), those that are shadowed (`shadow`)."""
    serve: ExecutorName = "process"
    """`shadow`: whose outcome counts."""
    twice: bool = False
    """`shadow`: also steps that are not marked idempotent are run twice."""
    compare_stdout: bool = True
    """`shadow`: whether another standard output is a difference."""
    since: Time | None = None
    """When it was set: shadow runs from before do not count."""
    by: str = ""
    """The principal that set it."""
    why: Text = ""


class Rollout(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rules of one capability, kept under `sg.config.rollout.<capability>`."""

    capability: Token
    rules: Annotated[dict[Pattern, RolloutRule], Meta(max_length=MAX_RULES)]
    before: Annotated[dict[Pattern, RolloutRule], Meta(max_length=MAX_RULES)] = {}
    """What stood before the newest change of each pattern; without one, it had no rule."""
    v: Literal[1] = 1


class Difference(Struct, frozen=True, kw_only=True):
    """One thing in which two runs of a step differ."""

    what: Literal["exit-code", "outputs", "stdout", "failure"]
    served: Text
    shadow: Text


class Comparison(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of the shadow run of a step."""

    executor: ExecutorName
    """That ran beside the one that served."""
    differences: tuple[Difference, ...] = ()
    served: timedelta = timedelta(0)
    """How long the step waited for the run that served; nothing where one of the two came from a cache, or failed."""
    shadow: timedelta = timedelta(0)
    skipped: Text = ""
    """Why there is nothing to compare; empty where there is."""


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a step ran, and why: part of its checkpoint."""

    mode: Mode
    rule: str
    """The pattern that was in force."""
    executor: str
    """Whose outcome counts."""
    why: Text
    comparison: Comparison | None = None
    fell_back: Text = ""
    """The failure of dagger after which it ran as a process; empty where it did not."""


class RolloutsQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rules in force, of one capability or of all."""

    capability: Token | None = None
    v: Literal[1] = 1


class Rollouts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By capability."""

    rollouts: tuple[Rollout, ...]


class RolloutCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Set a rule, take it back to what stood before, or take it away."""

    verb: Literal["set", "back", "remove"]
    capability: Token
    pattern: Pattern = "*"
    rule: RolloutRule | None = None
    """Of `set`; who and when are filled in by the coordinator."""
    why: Text = ""
    v: Literal[1] = 1


class RolloutCountsQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of the decisions under one pattern. Answered by the read model."""

    capability: Token
    pattern: Pattern = "*"
    since: Time | None = None
    v: Literal[1] = 1


class RolloutCounts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts over all owners' tasks; the newest 20,000 decisions at most."""

    lag: int
    """Ledger entries that the read model has not read yet."""
    decisions: int = 0
    served: dict[str, int] = {}
    """By executor: how many it served."""
    failed: dict[str, int] = {}
    """By executor: how many of these failed."""
    fell_back: int = 0
    compared: int = 0
    same: int = 0
    differences: dict[str, int] = {}
    """By what differed."""
    skipped: dict[str, int] = {}
    """Shadow runs that could not be compared, by why; the 16 most frequent."""
    ratio: float | None = None
    """Median of dagger's duration by the process's, over what was compared."""
    examples: tuple[Token, ...] = ()
    """The asking principal's newest tasks with a difference."""
    first: Time | None = None
    last: Time | None = None
