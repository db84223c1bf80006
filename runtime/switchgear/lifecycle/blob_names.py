"""Which blobs the ledger's entries name: pure, and found in the entries' own types.

It reads less strictly than `codec`: an entry that only a newer release can read keeps its blobs all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from switchgear.contract.entries import ENTRIES
from switchgear.contract.values import Blob


class _Named(msgspec.Struct):
    digest: str


_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ARTIFACT = re.compile(rb'type\\*"\s*:\s*\\*"artifact')
"""An artifact, also in JSON within JSON."""
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
    f"sg.task.*.*.*.{event}" + (".*.*" if event == "dispatched" else "")
    for event in (*FIELDS, "signalled")
)
"""Subjects of the entries that may name blobs; a signal may name artifacts."""


def named(body: bytes) -> Iterator[str]:
    """Digests of the blobs that the body of an entry names; nothing where nobody could read it.

    Artifacts may stand anywhere in an input or output, whoever wrote it: beside one, whatever looks like a digest is
    taken for its. A payload that is a blob itself tells the artifacts in it.
    """
    yield from dict.fromkeys((*_fields(body), *_artifacts(body)))


def _artifacts(body: bytes) -> Iterator[str]:
    if _ARTIFACT.search(body) is not None or b'"names"' in body:
        for digest in _DIGEST.findall(body):
            yield digest.decode()


def _fields(body: bytes) -> Iterator[str]:
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
