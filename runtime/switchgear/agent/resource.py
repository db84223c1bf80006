"""Something opened once per process, such as a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Resource(Generic[T]):
    """What `@agent.resource` returns; `ctx.use(resource)` gives a handler what it opened."""

    __slots__ = ("name", "opened")

    def __init__(self, opened: Callable[[], AsyncIterator[T]]) -> None:
        self.opened = opened
        self.name = getattr(opened, "__name__", "resource")

    def __repr__(self) -> str:
        return f"Resource({self.name})"
