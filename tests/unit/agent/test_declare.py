"""Declaring agents: what is taken from types and docstrings, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from switchgear import Agent, Capability, Context, Retry, RetryRule, UsageError, step
from switchgear.agent.schemas import offer
from tests.unit.agent.stage import Number, Text

if TYPE_CHECKING:
    from decimal import Decimal

double = Capability("double", Number, Number)


async def handler(value: Number, ctx: Context) -> Number:
    """Double a number.

    Whatever it is.
    """
    return Number(value.n * 2)


def test_offer_is_taken_from_types_and_docstring() -> None:
    """Schema, description and options stand in what is announced."""
    agent = Agent("math", version="1.2.0", labels={"zone": "a"})
    declared = agent.capability(
        "double", timeout=timedelta(minutes=1), retry=Retry(max_attempts=7), concurrency=2
    )(handler)
    made = offer(agent, declared)
    assert made.description == "Double a number.\n\nWhatever it is."
    assert (made.timeout, made.retry.max_attempts, made.concurrency) == (timedelta(minutes=1), 7, 2)
    assert made.input_schema["$defs"]["Number"]["properties"] == {"n": {"type": "integer"}}
    assert made.pool.startswith("math-")


def test_instances_of_one_version_share_a_pool_and_others_do_not() -> None:
    """Version, labels and types tell pools apart; the options do not."""

    def pool(version: str = "1.0.0", concurrency: int = 4, **labels: str) -> str:
        agent = Agent("math", version=version, labels=labels)
        return offer(agent, agent.capability("double", concurrency=concurrency)(handler)).pool

    assert pool() == pool(concurrency=9)
    assert len({pool(), pool(version="1.0.1"), pool(zone="a"), pool(zone="b")}) == 4


def test_capability_as_contract_is_matched() -> None:
    """A handler for a typed reference must have its types."""
    agent = Agent("math", version="1.0.0")
    declared = agent.capability(double)(handler)
    assert (declared.name, declared.input, declared.output) == ("double", Number, Number)
    with pytest.raises(UsageError, match="other types"):
        Agent("other", version="1.0.0").capability(Capability("double", Text, Number))(
            handler  # type: ignore[arg-type]  # the fault under test
        )


async def no_input_type(value, ctx: Context) -> Number:  # type: ignore[no-untyped-def]  # noqa: ANN001  # the fault
    del value
    return Number(1)


async def no_output_type(value: Number, ctx: Context):  # noqa: ANN201  # the fault under test
    pass


async def no_context(value: Number) -> Number:
    return value


async def hidden_type(value: Decimal, ctx: Context) -> Number:
    return Number(int(value))


def not_async(value: Number, ctx: Context) -> Number:
    return value


WRONG: list[Any] = [no_input_type, no_output_type, no_context, hidden_type, not_async]


@pytest.mark.parametrize("wrong", WRONG)
def test_handler_of_another_shape_is_refused(wrong: Any) -> None:
    """The error says what a handler looks like, when it is declared."""
    with pytest.raises(UsageError) as caught:
        Agent("math", version="1.0.0").capability("double")(wrong)
    assert wrong.__name__ in caught.value.what


MISTYPED: Any = "transien"


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"timeout": timedelta()},
        {"stall_timeout": timedelta(seconds=-1)},
        {"cleanup": timedelta(seconds=-1)},
        {"retry": Retry(max_attempts=0)},
        {"retry": Retry(on=frozenset({MISTYPED}))},
        {"retry": Retry(rules={MISTYPED: RetryRule(max_attempts=5)})},
        {"retry": Retry(rules={"timeout": RetryRule(max_attempts=0)})},
    ],
)
def test_options_that_cannot_be_are_refused(options: Any) -> None:
    """When declared, not when the first task comes."""
    with pytest.raises(UsageError):
        Agent("math", version="1.0.0").capability("double", **options)(handler)
    if "retry" in options:
        with pytest.raises(UsageError):
            step(**options)


@pytest.mark.parametrize(
    ("name", "version", "labels"),
    [
        ("no dots.", "1.0.0", {}),
        ("", "1.0.0", {}),
        ("a", "1", {}),
        ("a", "newest", {}),
        ("a", "1.0.0", {"a b": "c"}),
        ("a", "1.0.0", {"a": "c" * 1000}),
    ],
)
def test_agent_that_cannot_be_announced_is_refused(
    name: str, version: str, labels: dict[str, str]
) -> None:
    """Names become parts of subjects, versions are compared."""
    with pytest.raises(UsageError):
        Agent(name, version=version, labels=labels)


def test_capability_offered_twice_is_refused() -> None:
    """One agent, one handler for each capability."""
    agent = Agent("math", version="1.0.0")
    agent.capability("double")(handler)
    with pytest.raises(UsageError, match="twice"):
        agent.capability("double")(handler)


def test_resource_must_be_an_async_generator_function() -> None:
    """The error shows how to write one."""

    async def opened() -> AsyncIterator[int]:
        yield 1

    agent = Agent("math", version="1.0.0")
    assert repr(agent.resource(opened)) == "Resource(opened)"
    with pytest.raises(UsageError, match="async generator"):
        agent.resource(lambda: 3)  # type: ignore[arg-type]  # the fault under test
