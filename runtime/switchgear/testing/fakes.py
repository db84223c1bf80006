"""Stand-ins for what an agent under test uses: capabilities of others, commands, resources."""

from __future__ import annotations

import copy
import inspect
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear.agent.declare import Agent, Declared
from switchgear.contract import codec
from switchgear.errors import StepFailed, UsageError
from switchgear.lifecycle import routing
from switchgear.resilience.process_failures import process_end, process_verdict
from switchgear.steps import runner
from switchgear.steps.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from switchgear.agent.context import Context
    from switchgear.bus.port import Blobs
    from switchgear.contract.capability import AnyCapability
    from switchgear.steps.executor import Asked

_SLOTS = 1000
"""Tasks that a fake capability runs at a time: it must never be what a test waits for."""


def own_copy(agent: Agent) -> Agent:
    """A copy whose handlers may be replaced without touching the declared agent."""
    own = copy.copy(agent)
    own.capabilities = {name: copy.copy(one) for name, one in agent.capabilities.items()}
    return own


def fake_agent(capability: AnyCapability, returns: Any) -> Agent:
    """An agent that offers this one capability, in a version that the capability's range accepts."""
    agent = Agent(f"fake-{capability.name}"[:64], version=_version(capability.version))
    given, made = (Any if one is object else one for one in (capability.input, capability.output))
    declared: Declared[Any, Any] = Declared(capability.name, given, made)
    declared.concurrency = _SLOTS
    declared.description = "A fake, set by a test."
    declared.handler = handler(capability, returns)
    agent.capabilities[capability.name] = declared
    return agent


def handler(capability: AnyCapability, returns: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    """A handler that gives `returns`, or what it returns for the input where it is a function.

    Raises UsageError for a value that does not fit the capability's output.
    """
    if callable(returns):

        async def answer(value: Any, ctx: Context) -> Any:
            del ctx
            made = returns(value)
            return await made if inspect.isawaitable(made) else made

        return answer
    _check(capability, returns)

    async def give(value: Any, ctx: Context) -> Any:
        del value, ctx
        return returns

    return give


def _check(capability: AnyCapability, value: Any) -> None:
    output = Any if capability.output is object else capability.output
    try:
        msgspec.json.decode(codec.encode(value), type=output)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"the fake of {capability.name} returns what {capability!r} does not",
            why=str(error),
            fix="give `returns=` a value of the capability's output type, or a function",
        ) from error


def _version(wanted: str) -> str:
    """A version inside the range: one that it names, or the next ones after that."""
    accepted = routing.version_range(wanted)
    for named in re.findall(r"\d+(?:\.\d+)*", wanted) or ["1.0.0"]:
        major, minor, patch = ([int(part) for part in named.split(".")] + [0, 0])[:3]
        for near in (
            f"{major}.{minor}.{patch}",
            f"{major}.{minor}.{patch + 1}",
            f"{major}.{minor + 1}.0",
            f"{major + 1}.0.0",
            f"{max(major - 1, 0)}.0.0",
            f"{major}.{max(minor - 1, 0)}.0",
        ):
            if accepted.contains(near):
                return near
    raise UsageError(f"no version was found inside the range {wanted!r}")


class Runs:
    """What `ctx.run` does in a test: a fake by key where there is one, else the real command."""

    def __init__(self) -> None:
        self._fakes: dict[str, tuple[str, int, str]] = {}

    def fake(self, key: str, stdout: str, exit_code: int, stderr: str) -> None:
        """Let every run of this key end so, whatever its command."""
        self._fakes[key] = (stdout, exit_code, stderr)

    async def __call__(
        self, asked: Asked, on_line: Callable[[str, str], None], blobs: Blobs
    ) -> RunResult:
        """Run the step. Raises StepFailed for an unexpected exit code, as the real runner does."""
        key, spec = asked.key, asked.spec
        if key not in self._fakes:
            return await runner.run(spec, key=key, on_line=on_line, blobs=blobs)
        stdout, exit_code, stderr = self._fakes[key]
        if exit_code in spec.exit_codes:
            return RunResult(
                exit_code=exit_code, stdout=stdout, stderr=stderr, duration=timedelta()
            )
        verdict = process_verdict(exit_code)
        raise StepFailed(
            f"step {key} {process_end(exit_code)}",
            key=key,
            exit_code=exit_code,
            stdout=stdout,
            stderr=stderr,
            error_class=verdict.error_class,
            outcome_known=verdict.outcome_known,
            dependency=verdict.dependency,
            idempotent=spec.repeatable,
            why=stderr.strip(),
            fix=verdict.fix,
        )
