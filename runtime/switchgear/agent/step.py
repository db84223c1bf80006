"""Steps: named parts of an attempt, in this process."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_type_hints

import msgspec

from switchgear.contract import codec
from switchgear.contract.values import Retry
from switchgear.errors import NotRecordable, StepFailed, SwitchgearError
from switchgear.resilience.backoff import delay
from switchgear.resilience.classify import classify

P = ParamSpec("P")
R = TypeVar("R")
_OPTIONS = "__switchgear_step__"
ONCE = Retry(max_attempts=1)


class StepOptions(NamedTuple):
    """How a step function is run."""

    retry: Retry = ONCE
    timeout: timedelta | None = None
    idempotent: bool = False


def step(
    *, retry: Retry = ONCE, timeout: timedelta | None = None, idempotent: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Options of a step function, on the function itself.

    `retry`: repeated in place, within the attempt. `timeout` bounds each try. `idempotent`: a try that timed
    out may be repeated, though its effect is unknown.
    """

    def mark(fn: Callable[P, R]) -> Callable[P, R]:
        setattr(fn, _OPTIONS, StepOptions(retry, timeout, idempotent))
        return fn

    return mark


async def run_step(
    key: str, fn: Callable[..., Any], args: Any, kwargs: Any, *, seed: str = ""
) -> Any:
    """Run a step function, repeated by its own policy; its result as the codec gives it back.

    A sync function runs in a thread; `seed` sets how long it waits between tries. Raises StepFailed for what the
    function raised, NotRecordable for a result that cannot be stored.
    """
    options: StepOptions = getattr(fn, _OPTIONS, StepOptions())
    returned = _returned(fn)
    failures = 0
    while True:
        try:
            return _through_codec(key, await _once(fn, args, kwargs, options.timeout), returned)
        except (NotRecordable, asyncio.CancelledError):
            raise
        except Exception as error:
            failures += 1
            failure = classify(error, step=key)
            known = options.idempotent or not isinstance(error, TimeoutError)
            again = failure.retryable and known and failure.error_class in options.retry.on
            if not again or failures >= options.retry.max_attempts:
                if isinstance(error, SwitchgearError):
                    raise
                raise StepFailed(
                    f"step {key} failed: {failure.message}",
                    key=key,
                    error_class=failure.error_class,
                ) from error
        # jitter, not a secret: tasks differ, and a test of one task is repeatable
        drawn = random.Random(f"{seed}/{failures}").random()  # noqa: S311
        await asyncio.sleep(delay(options.retry, failures, drawn).total_seconds())


async def _once(fn: Callable[..., Any], args: Any, kwargs: Any, timeout: timedelta | None) -> Any:
    async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
        if inspect.iscoroutinefunction(fn):
            return await fn(*args, **kwargs)
        return await asyncio.to_thread(fn, *args, **kwargs)


@lru_cache(maxsize=1024)
def _returned(fn: Callable[..., Any]) -> Any:
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
    returned = hints["return"]
    if inspect.isclass(returned) and issubclass(returned, PurePath):
        raise NotRecordable(
            f"step {name} returns a path",
            why="another host, or a later run, does not have that file",
            fix="return the file's content or a description of it",
        )
    return returned


def _through_codec(key: str, value: Any, returned: Any) -> Any:
    """The value as a later run would read it, so that first runs and re-runs see equal ones."""
    try:
        return msgspec.json.decode(codec.encode(value), type=returned)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotRecordable(f"the result of step {key} cannot be recorded: {error}") from error
