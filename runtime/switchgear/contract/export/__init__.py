"""The published contract: `python -m switchgear.contract.export DIR [--check]`.

`schemas/` is generated from the types: one JSON Schema a message, examples, histories to test a
reader with, an AsyncAPI document, tables of error codes and limits. Another language needs these
and docs/reference/protocol.md. Pure but for reading sources and writing the files.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from switchgear.contract.export import asyncapi, catalog, codes, examples, histories, schema

INDEX = "index.json"
"""Lists every generated file, so that one that is no longer generated can be told and removed."""


def generate() -> dict[str, str]:
    """Path below `schemas/` -> content, of everything that is published."""
    schemas = {message.name: schema.schema(message) for message in catalog.messages()}
    shown = examples.examples()
    found = {f"{name}.json": _text(one) for name, one in schemas.items()}
    encode = msgspec.json.Encoder(order="deterministic").encode
    for name, example in shown.items():
        found[f"examples/{name}.json"] = _text(json.loads(encode(example)))
    descriptions = {name: one["description"] for name, one in schemas.items()}
    found["asyncapi.json"] = _text(asyncapi.document(shown, descriptions))
    found["errors.json"] = _text(codes.error_table())
    found["histories.json"] = _text(histories.histories())
    found["limits.json"] = _text(codes.limit_table())
    found[INDEX] = _text({"files": sorted([*found, INDEX])})
    return found


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
