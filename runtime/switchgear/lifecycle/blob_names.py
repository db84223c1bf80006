"""Which blobs the ledger's entries name: pure, and found in the entries' own types.

It reads less strictly than `codec`: an entry that only a newer release can read keeps its blobs all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from switchgear.contract.entries import ENTRIES
from switchgear.contract.values import Blob


class _Named(msgspec.Struct):
    digest: str


_ENTRY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BLOB = msgspec.json.Decoder(_Named | None)


def _holds_blob(field: inspect.Type) -> bool:
    members = field.types if isinstance(field, inspect.UnionType) else (field,)
    return any(isinstance(one, inspect.StructType) and one.cls is Blob for one in members)


def _blob_fields(entry: type[Any]) -> tuple[str, ...]:
    found = inspect.type_info(entry)
    assert isinstance(found, inspect.StructType)
    return tuple(one.encode_name for one in found.fields if _holds_blob(one.type))


FIELDS = {event: fields for event, kind in ENTRIES.items() if (fields := _blob_fields(kind))}
"""Event -> its fields that hold a blob, for the events that have any."""
_ALL = frozenset(field for fields in FIELDS.values() for field in fields)
FILTERS = tuple(
    f"sg.task.*.*.*.{event}" + (".*.*" if event == "dispatched" else "") for event in FIELDS
)
"""Subjects of the entries that may name blobs."""


def named(body: bytes) -> Iterator[str]:
    """Digests of the blobs that the body of an entry names; nothing where nobody could read it."""
    try:
        fields = _ENTRY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for name in _ALL & fields.keys():
        try:
            blob = _BLOB.decode(fields[name])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if blob is not None:
            yield blob.digest
