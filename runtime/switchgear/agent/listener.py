"""Functions of an agent that hear topics and answer requests, as they are declared."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from switchgear.contract.topic import Message, Topic
from switchgear.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


class Listener(NamedTuple, Generic[T]):
    """Hears a topic in every instance."""

    topic: Topic[T]
    handler: Callable[[T, Message], Awaitable[None]]


class Responder(NamedTuple, Generic[T, R]):
    """Answers direct requests in one of the instances."""

    question: Any
    """The type of what is asked."""
    answer: Any
    handler: Callable[[T, Message], Awaitable[R]]


def listener(topic: Topic[T], handler: Callable[[T, Message], Awaitable[None]]) -> Listener[T]:
    """The declared listener. Raises UsageError for a function of another shape."""
    given, _ = _shape(handler, "async def heard(value: T, message: Message)")
    if given != topic.type:
        raise UsageError(
            f"listener {handler.__qualname__} hears {topic!r}, and takes {given!r}",
            fix="annotate it with the topic's type",
        )
    return Listener(topic, handler)


def responder(handler: Callable[[T, Message], Awaitable[R]]) -> Responder[T, R]:
    """The declared responder. Raises UsageError for a function of another shape."""
    form = "async def answer(question: Q, message: Message) -> R"
    given, made = _shape(handler, form)
    if made is inspect.Parameter.empty:
        raise UsageError(f"{handler.__qualname__} has no return annotation", fix=f"write `{form}`")
    return Responder(given, made, handler)


def _shape(handler: Callable[..., Any], form: str) -> tuple[Any, Any]:
    """The types that it takes and gives. Raises UsageError."""
    shown = getattr(handler, "__qualname__", repr(handler))
    if not inspect.iscoroutinefunction(handler):
        raise UsageError(f"{shown} is not an `async def` function", fix=f"write `{form}`")
    try:
        hints = get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"the annotations of {shown} cannot be read",
            why=str(error),
            fix="define its types at module level, outside `if TYPE_CHECKING`",
        ) from error
    names = list(inspect.signature(handler).parameters)
    if len(names) != len(("value", "message")) or names[0] not in hints:
        raise UsageError(f"{shown} does not have the shape of one", fix=f"write `{form}`")
    return hints[names[0]], hints.get("return", inspect.Parameter.empty)
