"""Runs a step where its capability's rollout says: on one executor, on both, or on the next after the first failed.

Above: `runner`, whose plan this is. Below: the pure rules (`resilience.rollout`) and the documents that hold them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from switchgear.contract.rollout import Comparison, Decision, Difference, Rollout
from switchgear.errors import BreakerOpen, StepFailed, SwitchgearError
from switchgear.resilience import rollout as rules
from switchgear.resilience.classify import verdict
from switchgear.resilience.rollout import Choice
from switchgear.steps.guard import MET

if TYPE_CHECKING:
    from switchgear.contract.rollout import ExecutorName, RolloutRule
    from switchgear.steps.executor import Asked, Plan, RunOn
    from switchgear.steps.result import Outcome

log = logging.getLogger(__name__)

DECIDED: ContextVar[list[Decision] | None] = ContextVar("switchgear_decided", default=None)
"""Where the decision of the step is put that runs here: it becomes part of its checkpoint."""

LEAST_PATIENCE = timedelta(seconds=5)
_TIMES = 3
"""A shadow run may go on for this many times as long as the run that serves took, and at least for the above."""
_TICK = timedelta(milliseconds=10)
"""What a container's clock can tell: shorter runs count as so long."""
_SHOWN = 200
"""Characters of what differs that are kept."""


class RolloutPlan:
    """The `Plan` of a capability that has a rollout; without one, `default` decides."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[Rollout | None]],
        default: Plan,
        executors: Collection[str],
        *,
        patience: timedelta = LEAST_PATIENCE,
    ) -> None:
        """`find`: the rules of a capability as they are now; `executors`: names of those that this agent has.

        `patience`: the least time that a shadow run has beyond the one that serves.
        """
        self._find = find
        self._default = default
        self._executors = executors
        self._patience = patience

    async def __call__(self, asked: Asked, run_on: RunOn) -> Outcome:
        """Run the step as its rule says. Raises what the run raises that counts."""
        found = await self.choose(asked)
        if found is None:
            return await self._default(asked, run_on)
        choice, rule = found
        if choice.shadow is not None:
            return await self._shadowed(choice, rule, choice.shadow, run_on)
        if choice.fallback is not None:
            return await self._falling_back(choice, choice.fallback, run_on)
        _tell(choice.decision)
        outcome = await run_on(choice.first)
        _tell(replace(choice.decision, executor=outcome.executor))
        return outcome

    async def choose(self, asked: Asked) -> tuple[Choice, RolloutRule] | None:
        """What is to run, and by which rule; None where the capability has no rule for this step."""
        if not asked.capability:
            return None
        found = rules.rule_of(await self._find(asked.capability), asked.key)
        if found is None:
            return None
        pattern, rule = found
        choice = rules.choose(pattern, rule, asked.task, repeatable=asked.spec.repeatable)
        if asked.spec.host_only and asked.spec.image is None:
            why = "the step needs this host: it only runs as a process"
            return Choice(replace(choice.decision, executor="process", why=why), "process"), rule
        if choice.shadow is not None and choice.shadow not in self._executors:
            why = f"not shadowed: this agent has no executor {choice.shadow}"
            choice = Choice(replace(choice.decision, why=why), choice.first)
        return choice, rule

    async def _falling_back(self, choice: Choice, fallback: ExecutorName, run_on: RunOn) -> Outcome:
        """On the first; after a failure of it that took no effect, on the other."""
        try:
            with _not_needed():
                outcome = await run_on(choice.first)
        except (StepFailed, BreakerOpen) as error:
            found = verdict(error)
            if not rules.falls_back(found.error_class, outcome_known=found.outcome_known):
                _tell(choice.decision)
                raise
            why = f"{error.code}: {error.what}"[: 10 * _SHOWN]
            _tell(replace(choice.decision, executor=fallback, fell_back=why))
            log.warning("rollout.fell-back to %s: %s", fallback, why)
            try:
                return await run_on(fallback)
            except StepFailed as second:
                if second.error_class != "invalid":
                    raise
                # It cannot run there at all, such as an image as a process: the first failure is the one to mend.
                _tell(replace(choice.decision, fell_back=f"{why}; {second.what}"[: 10 * _SHOWN]))
                raise error from second
        _tell(choice.decision)
        return outcome

    async def _shadowed(
        self, choice: Choice, rule: RolloutRule, shadow: ExecutorName, run_on: RunOn
    ) -> Outcome:
        """On both at the same time; the shadow's end, and its failure, only shows in the comparison."""
        beside = asyncio.ensure_future(_beside(run_on(shadow, quiet=True)))
        try:
            served = await _end(run_on(choice.first))
            took = timedelta(0) if isinstance(served, SwitchgearError) else served.duration
            await asyncio.wait({beside}, timeout=max(self._patience, _TIMES * took).total_seconds())
            found = _compared(shadow, rule, served, beside.result() if beside.done() else None)
        finally:
            beside.cancel()
            await asyncio.wait({beside})
        _tell(replace(choice.decision, comparison=found))
        if found.differences:
            differing = ", ".join(one.what for one in found.differences)
            log.warning("rollout.differs %s: %s", choice.decision.rule, differing)
        if isinstance(served, SwitchgearError):
            raise served
        return served


@contextmanager
def _not_needed() -> Generator[None]:
    """What is asked for here is no need of the capability: its tasks can do without, so they are pulled without."""
    token = MET.set(set())
    try:
        yield
    finally:
        MET.reset(token)


async def _end(running: Awaitable[Outcome]) -> Outcome | SwitchgearError:
    """How it ended, also where it failed as steps do."""
    try:
        return await running
    except (StepFailed, BreakerOpen) as error:
        return error


async def _beside(running: Awaitable[Outcome]) -> Outcome | SwitchgearError:
    """How a shadow run ended: whatever it raises is not the task's trouble."""
    try:
        with _not_needed():
            return await _end(running)
    except Exception as error:
        log.exception("rollout.shadow-failed")
        found = verdict(error)
        what = f"{type(error).__name__}: {error}"[:_SHOWN]
        return StepFailed(what, key="", error_class=found.error_class, dependency=found.dependency)


def _compared(
    shadow: ExecutorName,
    rule: RolloutRule,
    served: Outcome | SwitchgearError,
    beside: Outcome | SwitchgearError | None,
) -> Comparison:
    """What the two ends have in common. Pure."""
    if beside is None:
        return Comparison(executor=shadow, skipped="it took too long beside the run that served")
    skipped = _no_run(served) or _no_run(beside)
    if skipped:
        return Comparison(executor=shadow, skipped=skipped)
    if isinstance(served, SwitchgearError) or isinstance(beside, SwitchgearError):
        one, other = _failure(served), _failure(beside)
        differences = () if one == other else (_difference("failure", one, other),)
        return Comparison(executor=shadow, differences=differences)
    pairs: list[tuple[str, str, str]] = [
        ("exit-code", _code(served), _code(beside)),
        ("outputs", _outputs(served), _outputs(beside)),
    ]
    if rule.compare_stdout:
        pairs.append(("stdout", served.stdout.rstrip(), beside.stdout.rstrip()))
    if served.executor == beside.executor:
        return Comparison(executor=shadow, skipped=f"both ran on {served.executor}")
    # a cache hit is no measure of what the work takes
    timed = not served.cached and not beside.cached
    return Comparison(
        executor=shadow,
        differences=tuple(
            _difference(what, one, other) for what, one, other in pairs if one != other
        ),
        served=max(served.duration, _TICK) if timed else timedelta(0),
        shadow=max(beside.duration, _TICK) if timed else timedelta(0),
    )


def _no_run(end: Outcome | SwitchgearError) -> str:
    """Why this end says nothing of the step; empty where it does."""
    if isinstance(end, BreakerOpen):
        return f"the breaker of {end.dependency} was {end.state}"
    if isinstance(end, StepFailed):
        found = verdict(end)
        if found.error_class in ("transient", "rate-limited", "resource"):
            return f"{found.dependency or 'something'} failed: {found.error_class}"
        return ""
    return ""


def _code(end: Outcome) -> str:
    return "timed out" if end.timed_out else str(end.exit_code)


def _outputs(end: Outcome) -> str:
    return ", ".join(f"{name} {one.digest}" for name, one in sorted(end.outputs.items()))


def _failure(end: Outcome | SwitchgearError) -> str:
    if isinstance(end, SwitchgearError):
        return f"{verdict(end).error_class}: {end.what}"
    return f"exit code {_code(end)}"


def _difference(what: str, served: str, shadow: str) -> Difference:
    """The two texts from a little before where they part."""
    at = next(
        (at for at, (one, other) in enumerate(zip(served, shadow, strict=False)) if one != other),
        -1,
    )
    start = max(0, at - _SHOWN // 4)
    return Difference(
        what=what,  # type: ignore[arg-type]  # callers pass literals
        served=served[start:][:_SHOWN],
        shadow=shadow[start:][:_SHOWN],
    )


def _tell(decision: Decision) -> None:
    decided = DECIDED.get()
    if decided is not None:
        decided[:] = [decision]
