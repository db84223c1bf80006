"""Steps: named parts of an attempt, in this process."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, get_type_hints

import msgspec

from switchgear.agent.classifying import Judge
from switchgear.contract import codec
from switchgear.contract.values import Failure, Retry, retry_fault
from switchgear.errors import BreakerOpen, NotRecordable, StepFailed, SwitchgearError, UsageError
from switchgear.resilience.backoff import delay
from switchgear.resilience.classes import repeatable
from switchgear.resilience.classify import classify

if TYPE_CHECKING:
    from switchgear.steps.guard import Guards

P = ParamSpec("P")
R = TypeVar("R")
_OPTIONS = "__switchgear_step__"
ONCE = Retry(max_attempts=1)


class StepOptions(NamedTuple):
    """How a step function is run."""

    retry: Retry = ONCE
    timeout: timedelta | None = None
    idempotent: bool = False
    breaker: str | None = None


def step(
    *,
    retry: Retry = ONCE,
    timeout: timedelta | None = None,
    idempotent: bool = False,
    breaker: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Options of a step function, on the function itself.

    `retry`: repeated in place, within the attempt. `timeout` bounds each try. `idempotent`: twice is no harm, so a
    try whose outcome is unknown (it timed out, its connection broke after the request) may be repeated, in place
    and by another attempt; without it such a failure is final. `breaker`: the dependency that it calls, such as
    "llm"; while this instance's breaker of it is open, tries are refused with BreakerOpen. Raises UsageError for a
    policy that cannot be used.
    """
    fault = retry_fault(retry)
    if fault:
        raise UsageError(f"the retry policy cannot be used: {fault}")

    def mark(fn: Callable[P, R]) -> Callable[P, R]:
        setattr(fn, _OPTIONS, StepOptions(retry, timeout, idempotent, breaker))
        return fn

    return mark


def is_idempotent(fn: Callable[..., Any]) -> bool:
    """Whether this step function may run twice."""
    options: StepOptions = getattr(fn, _OPTIONS, StepOptions())
    return options.idempotent


class Ran(NamedTuple):
    """What came of a step."""

    value: Any
    data: bytes
    """The value as JSON."""
    retries: int


async def run_step(
    key: str,
    fn: Callable[..., Any],
    args: Any,
    kwargs: Any,
    *,
    seed: str = "",
    judge: Judge = classify,
    guards: Guards | None = None,
    left: Callable[[], timedelta] = lambda: timedelta.max,
) -> Ran:
    """Run a step function, repeated by its own policy; its result as the codec gives it back.

    Raises as `perform`, and NotRecordable for a result that cannot be stored.
    """
    kind = returned(fn)
    value, retries = await perform(
        key, fn, args, kwargs, seed=seed, judge=judge, guards=guards, left=left
    )
    try:
        data = codec.encode(value)
        return Ran(msgspec.json.decode(data, type=kind), data, retries)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotRecordable(f"the result of step {key} cannot be recorded: {error}") from error


async def perform(
    key: str,
    fn: Callable[..., Any],
    args: Any,
    kwargs: Any,
    *,
    seed: str = "",
    judge: Judge = classify,
    guards: Guards | None = None,
    left: Callable[[], timedelta] = lambda: timedelta.max,
) -> tuple[Any, int]:
    """Call a step function, repeated by its own policy; returns what it returns, and the number of retries.

    A sync function runs in a thread; `seed` sets how long it waits between tries, at least as long as the failed side
    asks; `judge` says what its exceptions mean. Without `guards` no breaker is asked. `left`: the time until the task's
    deadline; no try is waited for that would come after it. Raises StepFailed for what the function raised,
    BreakerOpen where a try is refused.
    """
    options: StepOptions = getattr(fn, _OPTIONS, StepOptions())
    failures = 0
    while True:
        try:
            if guards is None or options.breaker is None:
                return await _once(fn, args, kwargs, options.timeout), failures
            async with guards.guard(options.breaker, partial(judge, step=key)):
                return await _once(fn, args, kwargs, options.timeout), failures
        except (asyncio.CancelledError, BreakerOpen):
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # the latter would end the loop from a gather's task
            failures += 1
            failure = judge(error, step=key)
            policy = options.retry.of(failure.error_class)
            pause = _pause(policy, failure, failures, f"{seed}/{failures}")
            again = repeatable(failure, idempotent=options.idempotent)
            again = again and pause is not None and pause < left().total_seconds()
            if not again or failure.error_class not in policy.on or failures >= policy.max_attempts:
                if isinstance(error, SwitchgearError):
                    raise
                raise _failed(key, failure, idempotent=options.idempotent) from error
        await asyncio.sleep(pause or 0.0)


def _pause(policy: Retry, failure: Failure, failures: int, seed: str) -> float | None:
    """Seconds until the next try, as the failed side asks; None for longer than the policy lets a step wait."""
    asked = failure.retry_after or 0.0
    if asked > policy.max_delay.total_seconds():
        return None  # the next attempt waits for it, and holds no slot meanwhile
    # jitter, not a secret: tasks differ, and a test of one task is repeatable
    drawn = random.Random(seed).random()  # noqa: S311
    return max(delay(policy, failures, drawn).total_seconds(), asked)


def _failed(key: str, failure: Failure, *, idempotent: bool) -> StepFailed:
    """A step's failure as its handler meets it, with all that is known of it."""
    return StepFailed(
        f"step {key} failed: {failure.message}",
        key=key,
        error_class=failure.error_class,
        outcome_known=failure.outcome_known,
        dependency=failure.dependency,
        idempotent=idempotent,
        retry_after=failure.retry_after,
        why=failure.why,
        fix=failure.fix,
    )


async def _once(fn: Callable[..., Any], args: Any, kwargs: Any, timeout: timedelta | None) -> Any:
    is_async = inspect.iscoroutinefunction(fn)
    work = fn(*args, **kwargs) if is_async else asyncio.to_thread(fn, *args, **kwargs)
    if timeout is None:
        return await work
    async with asyncio.timeout(timeout.total_seconds()):
        return await work


@lru_cache(maxsize=1024)
def returned(fn: Callable[..., Any]) -> Any:
    """The type of a step's result. Raises NotRecordable where it has none that can be read back."""
    name = getattr(fn, "__qualname__", repr(fn))
    try:
        hints = get_type_hints(fn, include_extras=True)
    except (NameError, TypeError) as error:
        raise NotRecordable(
            f"the annotations of step {name} cannot be read", why=str(error)
        ) from error
    if "return" not in hints:
        raise NotRecordable(
            f"step {name} has no return annotation",
            why="its recorded result could not be read back",
            fix="annotate what it returns, `-> None` for nothing",
        )
    kind = hints["return"]
    if inspect.isclass(kind) and issubclass(kind, PurePath):
        raise NotRecordable(
            f"step {name} returns a path",
            why="another host, or a later run, does not have that file",
            fix="return the file's content or a description of it",
        )
    return kind
