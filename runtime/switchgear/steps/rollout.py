"""Runs a step where its capability's rollout says: on one executor, on both, or on the next after the first failed.

Above: `runner`, whose plan this is. Below: the pure rules (`resilience.rollout`) and the documents that hold them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from switchgear.contract.rollout import Comparison, Decision, Difference, Rollout
from switchgear.errors import BreakerOpen, StepFailed, SwitchgearError
from switchgear.resilience import rollout as rules
from switchgear.resilience.classify import verdict
from switchgear.resilience.rollout import Choice
from switchgear.steps.guard import MET

if TYPE_CHECKING:
    from switchgear.contract.rollout import ExecutorName, RolloutRule
    from switchgear.steps.executor import Asked, Executor, Plan, RunOn
    from switchgear.steps.result import Outcome
    from switchgear.steps.spec import StepSpec

log = logging.getLogger(__name__)


class Surroundings:
    """What a plan knows of the attempt that its step is of: nothing here, all where the attempt gives its own."""

    decision: Decision | None = None
    """The plan's: becomes part of the step's checkpoint."""

    @contextmanager
    def aside(self, wanted: timedelta) -> Generator[timedelta]:
        """For as long as it is only compared: no time of the attempt's passes. Gives how much of it there may be."""
        yield wanted


AROUND: ContextVar[Surroundings | None] = ContextVar("switchgear_around", default=None)
"""Of the step that runs here."""

LEAST_PATIENCE = timedelta(seconds=5)
"""A shadow run may go on for as long again as the run that serves took, and at least for this."""
_SHOWN = 200
"""Characters of what differs that are kept."""


class RolloutPlan:
    """The `Plan` of a capability that has a rollout; without one, `default` decides."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[Rollout | None]],
        default: Plan,
        executors: Mapping[str, Executor],
    ) -> None:
        """`find`: the rules of a capability as they are now; `executors`: those that this agent has, by name."""
        self._find = find
        self._default = default
        self._executors = executors

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
        only = self._only(asked.spec)
        if only is not None:
            name, why = only
            return Choice(replace(choice.decision, executor=name, why=why), name), rule
        if choice.shadow is not None and choice.shadow not in self._executors:
            why = f"not shadowed: this agent has no executor {choice.shadow}"
            choice = Choice(replace(choice.decision, why=why), choice.first)
        return choice, rule

    def _only(self, spec: StepSpec) -> tuple[ExecutorName, str] | None:
        """The executor that alone can run the step, and why; None where a rule may choose."""
        if spec.needs_host:
            return "process", "the step needs this host: it only runs as a process"
        if (not spec.image and not spec.services) or not {"process", "dagger"} <= set(
            self._executors
        ):
            return None
        lacking = self._executors["process"].unsupported(spec)
        if lacking is None:
            return None
        return "dagger", f"the step needs {lacking.feature}: it only runs on dagger"

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
                if second.error_class != "invalid" or not second.outcome_known:
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
        beside = asyncio.ensure_future(_beside(lambda: run_on(shadow, quiet=True)))
        try:
            served = await _run(lambda: run_on(choice.first))
            if not _no_run(served.end):
                await _patient(beside, served.took)
            found = _compared(shadow, rule, served, beside.result() if beside.done() else None)
        finally:
            beside.cancel()
            await asyncio.wait({beside})
        _tell(replace(choice.decision, comparison=found))
        if found.differences:
            differing = ", ".join(one.what for one in found.differences)
            log.warning("rollout.differs %s: %s", choice.decision.rule, differing)
        if isinstance(served.end, SwitchgearError):
            raise served.end
        return served.end


class _Run(NamedTuple):
    """A run that is over."""

    end: Outcome | SwitchgearError
    """Also how it failed, where it did so as steps do."""
    took: timedelta
    """From asking for it on: what a task waits for, and more than a container's clock tells."""


@contextmanager
def _not_needed() -> Generator[None]:
    """What is asked for here is no need of the capability: its tasks can do without, so they are pulled without."""
    token = MET.set(set())
    try:
        yield
    finally:
        MET.reset(token)


async def _run(run: Callable[[], Awaitable[Outcome]]) -> _Run:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        end: Outcome | SwitchgearError = await run()
    except (StepFailed, BreakerOpen) as error:
        end = error
    return _Run(end, timedelta(seconds=loop.time() - began))


async def _patient(beside: asyncio.Future[Any], took: timedelta) -> None:
    """Wait for a shadow run, for a while."""
    with (AROUND.get() or Surroundings()).aside(max(LEAST_PATIENCE, took)) as most:
        await asyncio.wait({beside}, timeout=most.total_seconds())


async def _beside(run: Callable[[], Awaitable[Outcome]]) -> _Run:
    """A shadow run: whatever it raises is not the task's trouble."""
    try:
        with _not_needed():
            return await _run(run)
    except Exception as error:
        log.exception("rollout.shadow-failed")
        found = verdict(error)
        what = f"{type(error).__name__}: {error}"[:_SHOWN]
        failed = StepFailed(
            what, key="", error_class=found.error_class, dependency=found.dependency
        )
        return _Run(failed, timedelta(0))


def _compared(
    shadow: ExecutorName, rule: RolloutRule, served: _Run, beside: _Run | None
) -> Comparison:
    """What the two ends have in common. Pure."""
    late = "it took too long beside the run that served"
    skipped = _no_run(served.end) or (late if beside is None else _no_run(beside.end))
    if skipped or beside is None:
        return Comparison(executor=shadow, skipped=skipped)
    one, other = served.end, beside.end
    if isinstance(one, SwitchgearError) or isinstance(other, SwitchgearError):
        pairs = [("failure", _failure(one), _failure(other))]
        timed = False
    else:
        pairs = [
            ("exit-code", _code(one), _code(other)),
            ("outputs", _outputs(one), _outputs(other)),
        ]
        if rule.compare_stdout:
            pairs.append(("stdout", one.stdout.rstrip(), other.stdout.rstrip()))
        # a cache hit is no measure of what the work takes
        timed = not one.cached and not other.cached
    return Comparison(
        executor=shadow,
        differences=tuple(
            _difference(what, one, other) for what, one, other in pairs if one != other
        ),
        served=served.took if timed else timedelta(0),
        shadow=beside.took if timed else timedelta(0),
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
    around = AROUND.get()
    if around is not None:
        around.decision = decision
