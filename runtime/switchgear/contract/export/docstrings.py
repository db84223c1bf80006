"""Descriptions for the schemas: the string literals below fields and names, read from the source.

msgspec exports the docstring of a struct, but not the literals below its fields: Python forgets
them, so they are taken from the source with ast. Nothing is copied by hand, and a field that is
moved takes its words along.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from inspect import get_annotations
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct


class Described(NamedTuple):
    """What a module's source says of its names and of the fields of its classes."""

    names: dict[str, str]
    """Module-level name -> the literal below it."""
    fields: dict[str, dict[str, str]]
    """Class -> field -> the literal below it, or else the one below the alias that types it."""


@cache
def of_module(module: str) -> Described:
    """The descriptions in the source of an imported module."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8"))
    names = dict(_described(tree.body))
    aliases = dict(names)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("switchgear."):
            imported = of_module(str(node.module)).names
            aliases |= {one.name: imported[one.name] for one in node.names if one.name in imported}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return Described(names, {node.name: _fields(node, aliases) for node in classes})


def of_field(kind: type[Struct], field: str) -> str:
    """What is said of a struct's field, wherever it is declared; empty for nothing."""
    for base in kind.__mro__:
        if field in get_annotations(base):
            return of_module(base.__module__).fields[base.__name__].get(field, "")
    return ""


def _fields(node: ast.ClassDef, aliases: dict[str, str]) -> dict[str, str]:
    found = {
        one.target.id: text
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if (text := _alias(one.annotation, aliases))
    }
    return found | dict(_described(node.body))


def _alias(annotation: ast.expr, aliases: dict[str, str]) -> str:
    """The description of the alias that types a field, as in `Time` or `Time | None`."""
    if isinstance(annotation, ast.BinOp):
        return _alias(annotation.left, aliases)
    return aliases.get(annotation.id, "") if isinstance(annotation, ast.Name) else ""


def _described(body: list[ast.stmt]) -> list[tuple[str, str]]:
    """Every assigned name with a string literal as the next statement."""
    found: list[tuple[str, str]] = []
    for node, following in pairwise(body):
        if isinstance(node, ast.AnnAssign):
            target = node.target
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        else:
            continue
        if isinstance(target, ast.Name) and (text := _literal(following)):
            found.append((target.id, text))
    return found


def _literal(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(node.value.value.split()) if isinstance(node.value.value, str) else ""
    return ""
