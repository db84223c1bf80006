"""The GraphQL schema that the installed Dagger SDK speaks, read off its generated client.

No package ships the schema, but the client names each field, argument and type: so this follows the SDK's version,
and nothing foreign stands in this repository.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from graphql import GraphQLSchema, build_schema, introspection_from_schema

BUILT_IN = {"str": "String", "int": "Int", "bool": "Boolean", "float": "Float"}
INTERFACES = {"_ExportableClient": "Exportable", "_NodeClient": "Node", "_SyncerClient": "Syncer"}


class Argument(NamedTuple):
    name: str
    type: str


class Field(NamedTuple):
    name: str
    type: str
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        inside = ", ".join(f"{one.name}: {one.type}" for one in self.arguments)
        return f"  {self.name}{f'({inside})' if inside else ''}: {self.type}"


@cache
def schema() -> GraphQLSchema:
    """What the server serves, and queries are validated against."""
    return build_schema(sdl())


@cache
def introspection() -> dict[str, object]:
    return dict(introspection_from_schema(schema()))


def generated() -> ast.Module:
    """The client, parsed and not run."""
    found = importlib.util.find_spec("dagger")
    assert found is not None and found.origin is not None
    return ast.parse((Path(found.origin).parent / "client" / "gen.py").read_text("utf-8"))


@cache
def sdl() -> str:
    classes = [node for node in generated().body if isinstance(node, ast.ClassDef)]
    kinds = {node.name: _kind(node) for node in classes}
    parts: list[str] = []
    for node in classes:
        match kinds[node.name]:
            case "scalar":
                parts.append(f"scalar {node.name}")
            case "enum":
                members = [
                    target.id
                    for one in node.body
                    if isinstance(one, ast.Assign)
                    for target in one.targets
                    if isinstance(target, ast.Name)
                ]
                parts.append(f"enum {node.name} {{ {' '.join(members)} }}")
            case "input":
                fields = [
                    f"  {one.target.id}: {_type(one.annotation, kinds, '', arguments=True)}"
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                parts.append("\n".join([f"input {node.name} {{", *fields, "}"]))
            case "object" | "interface" as kind:
                parts.append(_object(node, kind, kinds))
            case _:
                pass
    return "\n".join(parts)


def _object(node: ast.ClassDef, kind: str, kinds: dict[str, str]) -> str:
    fields = list(_fields(node, kinds))
    if node.name == "Query":
        fields = [field for field in fields if field.name != "node"]
        fields.append(Field("node", "Node", (Argument("id", "ID!"),)))
    name = INTERFACES.get(node.name, node.name)
    head = f"interface {name}" if kind == "interface" else f"type {name}"
    if kind == "object" and any(field.name == "id" for field in fields):
        head += " implements Node"
    return "\n".join([f"{head} {{", *map(str, fields), "}"])


def _kind(node: ast.ClassDef) -> str:
    if node.name in INTERFACES:
        return "interface"
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    for base, kind in (
        ("Scalar", "scalar"),
        ("Enum", "enum"),
        ("Input", "input"),
        ("Type", "object"),
    ):
        if base in bases:
            return kind
    return "object" if "Root" in bases else ""


def _fields(node: ast.ClassDef, kinds: dict[str, str]) -> Iterator[Field]:
    for method in node.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        name, synced = _selected(method)
        if name and method.returns is not None:
            known = {one.arg: one for one in (*method.args.args, *method.args.kwonlyargs)}
            optional = {
                one.arg
                for one, default in zip(
                    method.args.kwonlyargs, method.args.kw_defaults, strict=True
                )
                if default is not None
            }
            arguments = tuple(
                Argument(
                    sent,
                    _type(known[given].annotation, kinds, node.name, arguments=True).rstrip("!")
                    + ("" if given in optional else "!"),
                )
                for sent, given in _sent(method, known)
            )
            type_ = "ID!" if synced or name == "id" else _type(method.returns, kinds, node.name)
            yield Field(name, type_, arguments)


def _selected(method: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, bool]:
    """The field that a method asks for, and whether its answer is an id to go on with."""
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
            if node.func.attr in {"_select", "execute_sync"} and texts:
                return str(texts[0]), node.func.attr == "execute_sync"
    return "", False


def _sent(
    method: ast.FunctionDef | ast.AsyncFunctionDef, known: dict[str, ast.arg]
) -> Iterator[tuple[str, str]]:
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Arg":
            name, value = node.args[0], node.args[1]
            assert isinstance(name, ast.Constant)
            names = [one.id for one in ast.walk(value) if isinstance(one, ast.Name)]
            yield str(name.value), next(one for one in names if one in known)


def _type(
    node: ast.expr | None, kinds: dict[str, str], own: str, *, arguments: bool = False
) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.BinOp):
        return _type(node.left, kinds, own, arguments=arguments).rstrip("!")
    if isinstance(node, ast.Subscript):
        return f"[{_type(node.slice, kinds, own, arguments=arguments)}]!"
    assert isinstance(node, ast.Name)
    name = own if node.id == "Self" else node.id
    name = next((client for client in INTERFACES if INTERFACES[client] == name), name)
    if arguments and kinds.get(name) in {"object", "interface"}:
        return "ID!"
    return f"{BUILT_IN.get(name, INTERFACES.get(name, name))}!"
