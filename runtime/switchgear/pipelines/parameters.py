"""Parameters: read from a file, and made into the type of the capability's input. Pure."""

from __future__ import annotations

import keyword
import re
from typing import Annotated, Any, Literal, cast

import msgspec

from switchgear.pipelines.document import Faults
from switchgear.pipelines.model import KINDS, Kind, Parameter, Pipeline
from switchgear.pipelines.table import LARGEST, STRUCTURE, Table, hint, said

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIELDS = (
    "type", "description", "required", "default", "choices", "items", "pattern", "minimum", "maximum",
)  # fmt: skip
_TYPES: dict[str, type[Any]] = {"string": str, "integer": int, "number": float, "boolean": bool}


def read(table: Table) -> Parameter:
    """One parameter; a string, where its type is not known."""
    name = str(table.path[-1])
    _check_name(table, name)
    table.allow("a parameter", _FIELDS)
    kind = _kind(table, "type", name)
    items = _kind(table, "items", name, "string")
    if kind is None or items is None:
        return Parameter(name=name, kind="string")
    pattern, choices = _pattern(table), _choices(table, kind, items)
    parameter = Parameter(
        name=name,
        kind=kind,
        description=table.text("description"),
        required=table.flag("required", default="default" not in table),
        default=table.raw("default"),
        choices=choices,
        items=items,
        pattern=pattern,
        minimum=table.number("minimum"),
        maximum=table.number("maximum"),
    )
    _check(table, parameter)
    return parameter


def input_type(pipeline: Pipeline) -> type[msgspec.Struct]:
    """The type of the capability's input: unknown fields are refused, by coordinators too."""
    words = re.split(r"[^A-Za-z0-9]+", pipeline.name)
    fields: list[Any] = []
    for one in pipeline.parameters:
        kind = field_type(one)
        if one.required:
            fields.append((one.name, kind))
        elif one.default is None:
            fields.append((one.name, kind | None, None))
        else:
            fields.append((one.name, kind, _default(one.default)))
    return msgspec.defstruct(
        "".join(word.capitalize() for word in words) + "Parameters",
        fields,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        module=__name__,
    )


def field_type(one: Parameter) -> Any:
    """The type of a parameter's value."""
    scalar = one.items if one.kind == "list" else one.kind
    kind: Any = Literal[one.choices] if one.choices else _TYPES[scalar]
    bounds: dict[str, Any] = {}
    if scalar == "string" and one.pattern:
        bounds["pattern"] = one.pattern
    if scalar in {"integer", "number"}:
        whole = int if scalar == "integer" else float
        bounds |= {} if one.minimum is None else {"ge": whole(one.minimum)}
        bounds |= {} if one.maximum is None else {"le": whole(one.maximum)}
    if bounds and not one.choices:
        kind = Annotated[kind, msgspec.Meta(**bounds)]
    if one.kind == "list":
        kind = list[kind]
    return Annotated[kind, msgspec.Meta(description=one.description)] if one.description else kind


def _default(value: Any) -> Any:
    if isinstance(value, list):
        kept = list(cast("list[Any]", value))
        return msgspec.field(default_factory=lambda: list(kept))
    return value


def _check_name(table: Table, name: str) -> None:
    if _NAME.fullmatch(name) and not keyword.iskeyword(name):
        return
    table.faults.key(
        table.path,
        STRUCTURE,
        f"{name!r} cannot name a parameter",
        why="it is a word of Python" if keyword.iskeyword(name) else "",
        fix="use a-z, digits and _, beginning with a letter",
    )


def _kind(table: Table, name: str, parameter: str, default: Kind | None = None) -> Kind | None:
    if name not in table:
        if default is None:
            what = f"the parameter {parameter} has no type"
            fix = f"add type = one of {', '.join(KINDS)}"
            table.faults.key(table.path, STRUCTURE, what, fix=fix)
        return default
    value = table.text(name)
    allowed = KINDS if name == "type" else KINDS[:-1]
    if value in allowed:
        return cast("Kind", value)
    if value:
        what = f"{value!r} is no type of a parameter"
        table.faults.value(table.at(name), STRUCTURE, what, fix=hint(value, allowed))
    return None


def _pattern(table: Table) -> str:
    text = table.text("pattern")
    try:
        re.compile(text)
    except re.error as error:
        why = str(error)
        table.faults.value(table.at("pattern"), STRUCTURE, "this is no regular expression", why=why)
        return ""
    return text


def _choices(table: Table, kind: Kind, items: Kind) -> tuple[Any, ...]:
    value = table.raw("choices")
    if value is None:
        return ()
    path, scalar = table.at("choices"), items if kind == "list" else kind
    if scalar not in {"string", "integer"}:
        what = f"a {scalar} has no choices"
        table.faults.value(path, STRUCTURE, what, fix="bound it by minimum and maximum")
        return ()
    if not isinstance(value, list) or not value:
        table.wrong(path, "a list of values", value)
        return ()
    found: list[Any] = []
    for index, one in enumerate(cast("list[Any]", value)):
        if type(one) is not _TYPES[scalar]:
            table.faults.value((*path, index), STRUCTURE, f"{said(one)} is no {scalar}")
        elif isinstance(one, int) and abs(one) >= LARGEST:
            table.faults.value((*path, index), STRUCTURE, "this is beyond all bounds")
        else:
            found.append(one)
    return tuple(dict.fromkeys(found))


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "integer" else f"a {kind}"


def _check(table: Table, one: Parameter) -> None:
    """What its fields say together."""
    faults: Faults = table.faults
    scalar = one.items if one.kind == "list" else one.kind
    for name, kinds in (("pattern", {"string"}), ("minimum", {"integer", "number"}),
                        ("maximum", {"integer", "number"})):  # fmt: skip
        if name in table and scalar not in kinds:
            faults.key(table.at(name), STRUCTURE, f"{_a(scalar)} has no {name}")
            return
    if "items" in table and one.kind != "list":
        faults.key(table.at("items"), STRUCTURE, f"{_a(one.kind)} has no items")
    for name, bound in (("minimum", one.minimum), ("maximum", one.maximum)):
        if scalar == "integer" and bound is not None and bound != int(bound):
            faults.value(table.at(name), STRUCTURE, f"the {name} of integers is a whole number")
    if one.minimum is not None and one.maximum is not None and one.minimum > one.maximum:
        what = "nothing is as large as the minimum and as small as the maximum"
        faults.value(table.at("minimum"), STRUCTURE, what)
    if one.default is None:
        return
    if one.required:
        what = f"the parameter {one.name} is required, and has a default"
        faults.key(table.at("required"), STRUCTURE, what, fix="leave one of them out")
    try:
        msgspec.convert(one.default, field_type(one), strict=True)
    except msgspec.ValidationError as error:
        what = f"the default of {one.name} does not fit its type"
        faults.value(table.at("default"), STRUCTURE, what, why=str(error))
