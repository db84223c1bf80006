"""Which blobs entries name."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import inspect

from switchgear.contract import codec
from switchgear.contract.entries import ENTRIES
from switchgear.contract.values import Blob
from switchgear.lifecycle import blob_names
from tests.unit.lifecycle import script

DIGEST = "ab" * 32
PLACES = [(event, field) for event, fields in blob_names.FIELDS.items() for field in fields]


def blobs_in(kind: inspect.Type) -> int:
    """How often a blob stands in a type, at any depth."""
    if isinstance(kind, inspect.StructType):
        if kind.cls is Blob:
            return 1
        return sum(blobs_in(field.type) for field in kind.fields)
    parts: list[inspect.Type] = [*getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    parts += [
        part
        for name in ("item_type", "key_type", "value_type", "type")
        if isinstance(part := getattr(kind, name, None), inspect.Type)
    ]
    return sum(map(blobs_in, parts))


@pytest.mark.parametrize("event", ENTRIES)
def test_no_blob_of_an_entry_is_overlooked(event: str) -> None:
    """Each stands in a field of the entry itself, where it is looked for."""
    everywhere = blobs_in(inspect.type_info(ENTRIES[event]))
    assert everywhere == len(blob_names.FIELDS.get(event, ()))


def test_entries_that_name_blobs_are_known() -> None:
    assert set(PLACES) == {
        ("submitted", "input_blob"),
        ("dispatched", "input_blob"),
        ("checkpoint", "result_blob"),
        ("waiting", "waits_blob"),
        ("completed", "output_blob"),
    }
    assert "sg.task.*.*.*.dispatched.*.*" in blob_names.FILTERS
    assert "sg.task.*.*.*.waiting" in blob_names.FILTERS
    assert len(blob_names.FILTERS) == 6


@pytest.mark.parametrize(("event", "field"), PLACES)
def test_named_blob_is_found(event: str, field: str) -> None:
    entry = script.entry(event, **{field: Blob(digest=DIGEST, size=5)})
    assert list(blob_names.named(codec.encode(entry))) == [DIGEST]
    assert list(blob_names.named(codec.encode(script.entry(event)))) == []


def test_entry_of_a_newer_release_keeps_its_blob() -> None:
    """It may say what this release refuses."""
    body = msgspec.json.encode({"v": 2, "kind": "new", "result_blob": {"digest": DIGEST, "x": 1}})
    assert list(blob_names.named(body)) == [DIGEST]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'{"a":',
        b'{"\xff":1}',
        b'{"input_blob":"\xff"}',
        b'{"input_blob":null}',
        b'{"input_blob":5}',
        b'{"input_blob":{"digest":5}}',
        b'{"input_blob":' + b"[" * 100_000,
        b'{"input":{"input_blob":{"digest":"%s"}}}' % DIGEST.encode(),
        b'{"input":{"commit":"%s"}}' % DIGEST.encode(),
    ],
)
def test_body_that_names_nothing_readable_is_passed_over(body: bytes) -> None:
    assert list(blob_names.named(body)) == []


def test_damaged_field_hides_no_other() -> None:
    body = b'{"input_blob":5,"output_blob":{"digest":"%s","size":1}}' % DIGEST.encode()
    assert list(blob_names.named(body)) == [DIGEST]


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":{"files":[{"type":"artifact","digest":"%s","size":1}]}}',
        b'{"input":{"digest" : "%s", "type" : "artifact"}}',
        b'{"payload":"{\\"type\\":\\"artifact\\",\\"digest\\":\\"%s\\"}"}',
    ],
)
def test_an_artifact_anywhere_in_a_body_keeps_its_bytes(body: bytes) -> None:
    assert list(blob_names.named(body % DIGEST.encode())) == [DIGEST]


def test_the_artifacts_in_a_payload_that_is_a_blob_keep_their_bytes() -> None:
    blob = Blob(digest=DIGEST, size=5, names=("cd" * 32,))
    body = codec.encode(script.entry("completed", output_blob=blob))
    assert list(blob_names.named(body)) == [DIGEST, "cd" * 32]
