"""Hypothesis strategies built from message types, by what msgspec itself reads out of them."""

from __future__ import annotations

import json
import types
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from switchgear.contract import (
    announcement,
    crash_report,
    dead_letters,
    entries,
    queries,
    trigger,
    values,
)

_TOKEN = st.text("abcXYZ019_-", min_size=1, max_size=64)
_DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=5,
)
"""Any JSON value."""
_RAW = JSON.map(lambda value: msgspec.Raw(json.dumps(value).encode()))


def _text(kind: inspect.StrType) -> st.SearchStrategy[str]:
    if kind.pattern is None:
        return st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 40, 40))
    return _DIGEST if "64}" in kind.pattern and "0-9a-f" in kind.pattern else _TOKEN


def _number(kind: inspect.IntType) -> st.SearchStrategy[int]:
    return st.integers(min_value=kind.ge, max_value=kind.le if kind.le is not None else 2**63)


def _struct(kind: inspect.StructType) -> st.SearchStrategy[Any]:
    needed = {one.name: _of(one.type) for one in kind.fields if one.required}
    others = {one.name: _of(one.type) for one in kind.fields if not one.required}
    return st.fixed_dictionaries(needed, optional=others).map(lambda given: kind.cls(**given))


_PLAIN: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.BoolType: st.booleans(),
    inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    inspect.DateTimeType: st.datetimes(
        min_value=datetime(1970, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
        timezones=st.just(UTC),
    ),
    inspect.TimeDeltaType: st.timedeltas(timedelta(days=-1000), timedelta(days=100_000)),
    inspect.NoneType: st.none(),
    inspect.AnyType: JSON,
    inspect.RawType: _RAW,
}


def _container(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.DictType():
            return st.dictionaries(_of(kind.key_type), _of(kind.value_type), max_size=3)
        case inspect.VarTupleType():
            return st.lists(_of(kind.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*[_of(one) for one in kind.item_types])
        case inspect.FrozenSetType():
            return st.frozensets(_of(kind.item_type), max_size=3)
        case _:
            return _PLAIN[type(kind)]


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata():
            return _of(kind.type)
        case inspect.IntType():
            return _number(kind)
        case inspect.StrType():
            return _text(kind)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.UnionType():
            return st.one_of([_of(one) for one in kind.types])
        case inspect.StructType():
            return _struct(kind)
        case _:
            return _container(kind)


@cache
def messages_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Instances of this struct with any values that its types allow."""
    return _of(inspect.type_info(kind))


def _structs(module: types.ModuleType) -> list[type[msgspec.Struct]]:
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and one is not msgspec.Struct
    ]


_MODULES = (announcement, crash_report, dead_letters, entries, queries, trigger, values)
STRUCTS: list[type[msgspec.Struct]] = sorted(
    {one for module in _MODULES for one in _structs(module)},
    key=lambda one: one.__name__,
)
"""Every type that crosses the wire."""
