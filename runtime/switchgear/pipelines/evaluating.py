"""What an expression gives, for the values of one run. Pure: no value's code is ever called."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

from switchgear.pipelines.expression import Call, Literal, Member, Name, Node, Operation, Several

MAX_JSON = 256 * 1024
"""Characters that `fromjson` reads."""


class CannotEvaluate(Exception):
    """An expression that has no value here; the text says why."""


Scope = Mapping[str, Any]
"""The names at the top: `params`, `matrix`, `steps`, and functions that ask for a status, by their names."""


def evaluate(node: Node, scope: Scope) -> Any:
    """The value. Raises CannotEvaluate."""
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Name):
        if node.name not in scope:
            raise CannotEvaluate(f"{node.name} is not known here")
        return scope[node.name]
    if isinstance(node, Several):
        return [evaluate(one, scope) for one in node.items]
    if isinstance(node, Member):
        return _member(evaluate(node.base, scope), evaluate(node.key, scope))
    if isinstance(node, Call):
        return _call(node, scope)
    return _operation(node, scope)


def truth(value: Any) -> bool:
    """The value of a condition. Raises CannotEvaluate for one that is neither true nor false."""
    if not isinstance(value, bool):
        raise CannotEvaluate(f"a condition is true or false, and this is {shown(value)}")
    return value


def text(value: Any) -> str:
    """A value as it stands in a text. Raises CannotEvaluate for a list or a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise CannotEvaluate(f"{shown(value)} cannot stand in a text")


def shown(value: Any) -> str:
    """A value for an error: short."""
    try:
        told = json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):
        told = type(value).__name__
    return told if len(told) <= 60 else told[:57] + "…"  # noqa: PLR2004 - a width


def _member(base: Any, key: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(key, str):
        table = cast("Mapping[str, Any]", base)
        if key not in table:
            raise CannotEvaluate(f"there is no {key!r} in it")
        return table[key]
    if isinstance(base, list) and isinstance(key, int) and not isinstance(key, bool):
        row = cast("list[Any]", base)
        if not -len(row) <= key < len(row):
            raise CannotEvaluate(f"there is no element {key} in a list of {len(row)}")
        return row[key]
    raise CannotEvaluate(f"{shown(base)} has no {shown(key)}")


def _call(node: Call, scope: Scope) -> Any:
    arguments = [evaluate(one, scope) for one in node.arguments]
    if node.function in scope and callable(scope[node.function]):
        return scope[node.function]()
    known = _FUNCTIONS.get(node.function)
    if known is None:
        raise CannotEvaluate(f"the function {node.function} is not known here")
    return known(*arguments)


def _operation(node: Operation, scope: Scope) -> Any:
    first = evaluate(node.operands[0], scope)
    if node.operator == "not":
        return not _filled(first)
    if node.operator == "and":
        return evaluate(node.operands[1], scope) if _filled(first) else first
    if node.operator == "or":
        return first if _filled(first) else evaluate(node.operands[1], scope)
    second = evaluate(node.operands[1], scope)
    if node.operator in {"==", "!="}:
        return _same(first, second) == (node.operator == "==")
    if node.operator == "in":
        return _within(first, second)
    return _ordered(node.operator, first, second)


def _filled(value: Any) -> bool:
    """Whether a value counts as true in `and`, `or` and `not`: nothing, zero and what is empty do not."""
    return bool(value)


def _same(first: Any, second: Any) -> bool:
    """Equal, and of one kind: 1 is neither "1" nor true."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    return bool(first == second)


def _within(first: Any, second: Any) -> bool:
    if isinstance(second, str):
        if not isinstance(first, str):
            raise CannotEvaluate(f"{shown(first)} is no text, and cannot be in one")
        return first in second
    if isinstance(second, list):
        return any(_same(first, one) for one in cast("list[Any]", second))
    if isinstance(second, Mapping) and isinstance(first, str):
        return first in second
    raise CannotEvaluate(f"nothing is in {shown(second)}")


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _ordered(sign: str, first: Any, second: Any) -> bool:
    both = (first, second)
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in both)
    if not numbers and not all(isinstance(one, str) for one in both):
        raise CannotEvaluate(f"{shown(first)} and {shown(second)} have no order")
    return _ORDER[sign](first, second)


def _from_json(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > MAX_JSON:
        raise CannotEvaluate(f"fromjson reads a text of at most {MAX_JSON} characters")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise CannotEvaluate(f"{shown(value)} is no JSON: {error}") from error


def _length(value: Any) -> int:
    if not isinstance(value, str | list | Mapping):
        raise CannotEvaluate(f"{shown(value)} has no length")
    return len(value)  # pyright: ignore[reportUnknownArgumentType] - any of the three has one


def _texts(*values: Any) -> tuple[str, str]:
    first, second = values
    if not isinstance(first, str) or not isinstance(second, str):
        raise CannotEvaluate(f"{shown(first)} and {shown(second)} are not two texts")
    return first, second


def _starts(*values: Any) -> bool:
    whole, part = _texts(*values)
    return whole.startswith(part)


def _ends(*values: Any) -> bool:
    whole, part = _texts(*values)
    return whole.endswith(part)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "endswith": _ends,
    "fromjson": _from_json,
    "len": _length,
    "startswith": _starts,
}
