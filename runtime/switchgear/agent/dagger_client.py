"""`ctx.dagger()`: the SDK's client for a handler's own calls, on a session that nobody shares, behind the breaker.

Above: `context`. Below: `steps/executors/dagger/lone.py`. The handler's own queries are not steps: nothing of them is
recorded, so they belong into a step, which repeats them as a whole.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from switchgear.errors import ConfigError, ExtraMissing
from switchgear.resilience.dagger_failures import DAGGER, dagger_finding

if TYPE_CHECKING:
    from switchgear.steps.executors.dagger.link import Client
    from switchgear.steps.guard import Guards, Permit


@asynccontextmanager
async def dagger_client(guards: Guards | None) -> AsyncGenerator[Client]:
    """A client for the block. Raises ConfigError, ExtraMissing, BreakerOpen, StepFailed where no session can be had."""
    from importlib.util import find_spec

    from switchgear.steps.executors.dagger.settings import CLI, DaggerSettings

    settings = DaggerSettings.load(os.environ)
    if not settings.configured:
        raise ConfigError(
            "ctx.dagger() has no engine",
            why=f"neither {CLI} nor a session is given",
            fix=f"set {CLI} to the CLI, and _EXPERIMENTAL_DAGGER_RUNNER_HOST to the engine",
        )
    if find_spec("dagger") is None:
        raise ExtraMissing("ctx.dagger()", "dagger")
    from switchgear.steps.executors.dagger.lone import lone

    async with AsyncExitStack() as stack:
        permit = None
        if guards is not None:
            permit = await stack.enter_async_context(guards.guard(DAGGER))
        client = await stack.enter_async_context(lone(settings))
        try:
            yield client
        except Exception as error:
            if permit is not None:
                _judge(permit, error)
            raise


def _judge(permit: Permit, error: Exception) -> None:
    """Say what the block's failure says of the engine: one of the handler's own code says nothing."""
    from switchgear.steps.executors.dagger.errors import facts

    if not type(error).__module__.startswith(("dagger", "gql")):
        permit.release()
        return
    verdict = dagger_finding(facts(error)).verdict
    if verdict.dependency == DAGGER:
        permit.failure(verdict.error_class, type(error).__name__, verdict.retry_after)
    else:
        permit.success()
