"""The digest of what a recorded key was given: work that has changed is not mistaken for what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from switchgear import ids
from switchgear.agent.resource import Resource
from switchgear.contract import codec


class Ambient:
    """What is given to every run anew, and so is no part of what a key stands for."""

    __slots__ = ()


def of_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The digest of a call's arguments. Contexts and resources are left out.

    Of an argument that is no data, such as a client or a function, its type's name stands for it: two of them
    cannot be told apart, but swapping one for data can.
    """
    if not args and not kwargs:
        return _nothing()
    given = [_plain(one) for one in args if not isinstance(one, Ambient | Resource)]
    named = {
        name: _plain(one)
        for name, one in sorted(kwargs.items())
        if not isinstance(one, Ambient | Resource)
    }
    return of_values(given, named)


def of_values(*values: Any) -> str:
    """The digest of values that are JSON."""
    return ids.digest(codec.canonical(values))


@lru_cache(maxsize=1)
def _nothing() -> str:
    return of_values([], {})


def _plain(value: Any) -> Any:
    """The value, if it can be written as JSON, else what stands for it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, PurePath):
        return str(value)
    try:
        return codec.canonical(value).decode()
    except (TypeError, ValueError, RecursionError):
        return {"type": _type_name(value)}


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
