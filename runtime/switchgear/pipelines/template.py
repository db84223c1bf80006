"""Texts with `${{ expression }}` in them. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from switchgear.pipelines import evaluating, expression
from switchgear.pipelines.evaluating import Scope
from switchgear.pipelines.expression import Node, SyntaxFault

# No character can be taken in two ways: the search is linear.
_HOLE = re.compile(
    r"""\$\{\{((?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"}]|\}(?!\}))*)\}\}""", re.DOTALL
)
_OPEN = "${{"


class Hole(NamedTuple):
    """One `${{ expression }}` of a text."""

    start: int
    end: int
    node: Node
    offset: int
    """Where the expression begins in the text."""


@lru_cache(maxsize=4096)
def holes(text: str) -> tuple[Hole, ...]:
    """The expressions of a text. Raises SyntaxFault, with the character of the whole text."""
    found: list[Hole] = []
    at = text.find(_OPEN)
    while at >= 0:  # once through the text: the first that is not closed ends it
        match = _HOLE.match(text, at)
        if match is None:
            raise SyntaxFault("'${{' is never closed", at, "close it by `}}`")
        try:
            node = expression.parse(match[1])
        except SyntaxFault as fault:
            raise SyntaxFault(fault.what, match.start(1) + fault.offset, fault.fix) from None
        found.append(Hole(at, match.end(), node, match.start(1)))
        at = text.find(_OPEN, match.end())
    return tuple(found)


def is_plain(text: str) -> bool:
    """Whether nothing is filled in."""
    return _OPEN not in text


def whole(text: str) -> Node | None:
    """The expression of a text that is nothing else: it may give more than a text."""
    found = holes(text)
    if len(found) == 1 and (found[0].start, found[0].end) == (0, len(text)):
        return found[0].node
    return None


def fill(text: str, scope: Scope) -> str:
    """The text with the values filled in. Raises CannotEvaluate."""
    found = holes(text)
    if not found:
        return text
    values = [evaluating.text(evaluating.evaluate(hole.node, scope)) for hole in found]
    parts = _parts(text, found)
    return parts[0] + "".join(value + part for value, part in zip(values, parts[1:], strict=True))


def value(text: str, scope: Scope) -> Any:
    """The value of a text that is one expression, else the text with the values filled in."""
    node = whole(text)
    return fill(text, scope) if node is None else evaluating.evaluate(node, scope)


def _parts(text: str, found: tuple[Hole, ...]) -> list[str]:
    """What stands between the expressions."""
    ends = [0, *(hole.end for hole in found)]
    starts = [*(hole.start for hole in found), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]
