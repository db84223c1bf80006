"""One self-contained JSON Schema (2020-12) for each message, made from its struct.

Beside what msgspec exports stand the descriptions from the source, and the size limit as
`x-max-bytes`, since JSON Schema cannot bound bytes. Only keywords that mean the same in draft 7 are
used: AsyncAPI tools read them as that.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from switchgear.contract.export import docstrings
from switchgear.contract.export.catalog import Message

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"

DURATION: dict[str, Any] = {
    "type": "string",
    "pattern": r"^-?P([0-9]+DT[0-9]+(\.[0-9]{1,6})?S|[0-9]+D|T[0-9]+(\.[0-9]{1,6})?S)$",
}
"""A duration as our writers put it; `format: duration` allows no fractions of seconds."""
DURATION_TEXT = "An ISO 8601 duration in days and seconds, such as `PT1.5S`."
TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})$"
)
"""A moment as writers put it; validators need not check `format`, so the pattern says it too."""

Schema = dict[str, Any]


def schema(message: Message) -> Schema:
    """The message's schema, with all that it refers to below `$defs`."""
    kind = message.kind
    components = msgspec.json.schema(kind, schema_hook=_hook)["$defs"]
    kinds = {one.__name__: one for one in reachable(kind)}
    finished = {
        name: _finished(kinds[name], component) for name, component in sorted(components.items())
    }
    body = finished.pop(kind.__name__)
    head: Schema = {
        "$schema": DIALECT,
        "$id": f"urn:switchgear:v1:{message.name}",
        "title": message.name,
        "description": body.pop("description", ""),
    }
    if message.limit is not None:
        head["x-max-bytes"] = message.limit
    del body["title"]
    return head | body | ({"$defs": finished} if finished else {})


def reachable(kind: type[Struct]) -> list[type[Struct]]:
    """This struct and all that its fields hold, at any depth, each once."""
    found: dict[type[Struct], None] = {}
    todo: list[object] = [msgspec.inspect.type_info(kind)]
    while todo:
        one = todo.pop()
        if isinstance(one, msgspec.inspect.StructType):
            if one.cls in found:
                continue
            found[one.cls] = None
        if isinstance(one, msgspec.inspect.Type | msgspec.inspect.Field):
            todo += [getattr(one, name) for name in one.__struct_fields__]
        elif isinstance(one, tuple):
            todo += cast("tuple[object, ...]", one)
    return list(found)


def _hook(kind: type) -> Schema:
    """Raw fields hold any JSON."""
    if kind is Raw:
        return {}
    raise NotImplementedError(kind)


def _finished(kind: type[Struct], component: Schema) -> Schema:
    """The schema of one struct with descriptions, and with nothing left to chance."""
    for field in msgspec.structs.fields(kind):
        found: Schema = _portable(component["properties"][field.encode_name])
        default: object = field.default
        if isinstance(default, frozenset):
            found["default"] = sorted(cast("frozenset[str]", default))
        texts = (docstrings.of_field(kind, field.name), found.pop("description", ""))
        text = " ".join(filter(None, texts))
        component["properties"][field.encode_name] = (
            {"description": text} | found if text else found
        )
    if not component["required"]:
        del component["required"]
    return component


def _portable(one: Any) -> Any:
    """The same schema in keywords that draft 7 reads alike."""
    if isinstance(one, list):
        return [_portable(item) for item in cast("list[Any]", one)]
    if not isinstance(one, dict):
        return one
    found: Schema = {name: _portable(value) for name, value in cast("Schema", one).items()}
    if found.get("format") == "duration":
        extra = {"default": found["default"]} if "default" in found else {}
        return {"description": DURATION_TEXT, **DURATION, **extra}
    if found.get("format") == "date-time":
        found["pattern"] = TIME_PATTERN
    elif isinstance(found.get("pattern"), str):
        # Python's `$` also matches before a last newline; the `$` of JSON Schema does not.
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if isinstance(found.get("enum"), list) and len(found["enum"]) == 1:
        found["const"] = found.pop("enum")[0]
    items = found.pop("prefixItems", None)
    if items is not None:
        if any(item != items[0] for item in items):
            raise NotImplementedError("a tuple of different types has no schema in draft 7")
        found["items"] = items[0]
    return found
