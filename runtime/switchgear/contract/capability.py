"""A capability as a typed value: what callers and declarations share."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

from switchgear.contract import subjects
from switchgear.errors import UsageError

In = TypeVar("In")
Out = TypeVar("Out")


class Capability(Generic[In, Out]):
    """A named, versioned, typed operation: `Capability("web-search", Query, Hits)`.

    `version` is the range of agent versions that callers accept: `*`, `1.2`, or `>=1.2,<2`.
    Raises UsageError for a name that is not one token of [A-Za-z0-9_-]{1,64}.
    """

    __slots__ = ("input", "name", "output", "version")

    def __init__(
        self, name: str, input: type[In], output: type[Out], *, version: str = "*"
    ) -> None:
        if not subjects.is_token(name):
            raise UsageError(
                f"{name!r} cannot name a capability",
                why="it becomes part of a subject",
                fix="use 1 to 64 letters, digits, - and _",
            )
        self.name = name
        self.input = input
        self.output = output
        self.version = version

    def __repr__(self) -> str:
        return f"Capability({self.name!r}, {type_name(self.input)}, {type_name(self.output)})"


AnyCapability = Capability[Any, Any]


def type_name(kind: Any) -> str:
    """A type as people write it, such as `Query` or `list[int]`."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def reference(capability: Capability[In, Out] | str) -> Capability[In, Out] | AnyCapability:
    """The capability itself, or an untyped one of this name."""
    if isinstance(capability, str):
        return Capability(capability, object, object)
    return capability
