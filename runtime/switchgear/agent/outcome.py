"""How one of many children ended."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from switchgear.errors import Overloaded, TaskFailed

Out = TypeVar("Out")


class Outcome(NamedTuple, Generic[Out]):
    """A child's result, or the error that it ended with, in the order of `ctx.map`'s inputs."""

    ok: bool
    value: Out | None
    """The result; None for a child that failed."""
    error: TaskFailed | Overloaded | None
    task_id: str
