"""The published contract says what the types say: no drift, nothing left out, the same verdicts."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest

from switchgear.contract import (
    announcement,
    codec,
    crash_report,
    dead_letters,
    entries,
    limits,
    queries,
    subjects,
    trigger,
    values,
)
from switchgear.contract.codes import FAILURES, PROTOCOL_CODES, REJECTIONS
from switchgear.contract.export import __main__ as command
from switchgear.contract.export import catalog, examples, generate, schema
from switchgear.errors import ProtocolError

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
MODULES = (announcement, crash_report, dead_letters, entries, queries, trigger, values)
MESSAGES = {message.name: message for message in catalog.messages()}
EXAMPLES = sorted(path.stem for path in (SCHEMAS / "examples").glob("*.json"))


def load(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def validator(message: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(load(f"{message}.json"), validate_formats=True)


def structs() -> set[type[msgspec.Struct]]:
    """Every struct that the contract's modules declare."""
    return {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    } - {msgspec.Struct}


def test_the_published_files_are_what_the_types_generate() -> None:
    assert command.drift(SCHEMAS) == []


def test_the_check_names_what_differs_is_missing_or_is_left_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "schemas"
    shutil.copytree(SCHEMAS, copied)
    (copied / "submitted.json").write_text("{}", encoding="utf-8")
    (copied / "examples" / "lanes.json").unlink()
    (copied / "old.json").write_text("{}", encoding="utf-8")
    assert command.main([str(copied), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "examples/lanes.json: missing",
        "old.json: not generated",
        "submitted.json: differs from the types",
        "Fix: make schemas",
    ]


def test_writing_again_repairs_and_removes_only_what_was_generated(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"files": ["gone.json"]}', encoding="utf-8")
    (tmp_path / "gone.json").write_text("{}", encoding="utf-8")
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    assert command.main([str(tmp_path)]) == 0
    assert not (tmp_path / "gone.json").exists()
    assert command.drift(tmp_path) == ["mine.json: not generated"]


def test_the_output_does_not_depend_on_the_run() -> None:
    source = (
        "import hashlib; from switchgear.contract.export import generate;"
        "print(hashlib.sha256(repr(sorted(generate().items())).encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", source],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


def test_every_struct_of_the_contract_is_published() -> None:
    published = {kind for message in MESSAGES.values() for kind in schema.reachable(message.kind)}
    assert structs() - published == {entries.Entry, entries.AgentEntry}


def test_every_struct_of_the_contract_is_shown_in_an_example() -> None:
    shown: set[type] = set()
    todo: list[Any] = list(examples.examples().values())
    while todo:
        one = todo.pop()
        if isinstance(one, msgspec.Struct):
            shown.add(type(one))
            todo += [getattr(one, name) for name in one.__struct_fields__]
        elif isinstance(one, tuple):
            todo += cast("tuple[Any, ...]", one)
        elif isinstance(one, dict):
            todo += cast("dict[str, Any]", one).values()
    assert structs() - shown == {entries.Entry, entries.AgentEntry}


def test_every_event_and_message_has_schema_and_example() -> None:
    assert set(entries.ENTRIES) <= set(MESSAGES)
    assert {name.split(".")[0] for name in EXAMPLES} == set(MESSAGES)
    assert all((SCHEMAS / f"{name}.json").is_file() for name in MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_schema_is_valid_self_contained_and_described(name: str) -> None:
    published = load(f"{name}.json")
    assert jsonschema_rs.meta.is_valid(published)
    assert published["description"]
    assert all(ref.startswith("#/$defs/") for ref in references(published))


def references(one: Any) -> Iterator[str]:
    if isinstance(one, dict):
        for name, value in cast("dict[str, Any]", one).items():
            if name == "$ref" and isinstance(value, str):
                yield value
            yield from references(value)
    elif isinstance(one, list):
        for item in cast("list[Any]", one):
            yield from references(item)


def test_descriptions_come_from_docstrings_and_the_literals_below_fields() -> None:
    submitted = load("submitted.json")
    assert submitted["description"] == entries.Submitted.__doc__
    fields = submitted["properties"]
    assert fields["detached"]["description"] == "Outlives its parent."
    assert fields["prev"]["description"].startswith("Sequence of the last valid entry")
    assert fields["deadline"]["description"].startswith("A moment in UTC")
    assert fields["input"] == {"description": fields["input"]["description"]}


def test_size_limits_stand_in_the_schemas() -> None:
    assert load("completed.json")["x-max-bytes"] == limits.MAX_ENTRY
    assert load("progress.json")["x-max-bytes"] == limits.MAX_PROGRESS
    assert load("limits.json")["limits"]["max_inline"]["value"] == limits.MAX_INLINE


def test_every_code_is_listed_with_meaning_and_disposition() -> None:
    codes = load("errors.json")["codes"]
    assert codes.keys() >= PROTOCOL_CODES.keys() | REJECTIONS.keys() | FAILURES.keys()
    assert all(row["meaning"] and row["disposition"] for row in codes.values())
    assert codes["SG1205"]["kind"] == "rejection"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_by_the_codec_and_fits_its_schema(name: str) -> None:
    message = MESSAGES[name.split(".", maxsplit=1)[0]]
    data = json.dumps(load(f"examples/{name}.json")).encode()
    decoded = codec.decode(data, message.kind, limit=message.limit or 2**20)
    assert json.loads(msgspec.json.encode(decoded)) == json.loads(data)
    assert validator(message.name).is_valid(json.loads(data))


@pytest.mark.parametrize("name", entries.ENTRIES)
def test_an_entry_is_read_under_its_subject_only(name: str) -> None:
    path = next(one for one in EXAMPLES if one.split(".")[0] == name)
    example = load(f"examples/{path}.json")
    pool = ("p", "normal") if name == "dispatched" else ("", "")
    here = subjects.TaskSubject("check-repo", "ana", example["task"], name, *pool)
    assert type(codec.decode_entry(here, json.dumps(example).encode())) is entries.ENTRIES[name]
    with pytest.raises(ProtocolError, match="SG1108"):
        codec.decode_entry(here._replace(task="other"), json.dumps(example).encode())


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**6,
    "",
    "bad token!",
    "x" * 20_000,
    [],
    [[[]]],
    {},
)
"""Values that are right in few places."""


def steps(one: Any) -> list[Any]:
    """Keys of an object, indexes of an array."""
    if isinstance(one, dict):
        return list(cast("dict[str, Any]", one))
    return list(range(len(cast("list[Any]", one)))) if isinstance(one, list) else []


def variants(one: Any) -> Iterator[Any]:
    """The document with one part left out, or one replaced, for every part at any depth."""
    for step in steps(one):
        left_out: Any = copy.copy(one)
        del left_out[step]
        yield left_out
        for value in (*WRONG, *variants(one[step])):
            changed: Any = copy.copy(one)
            changed[step] = value
            yield changed


def accepted(kind: type[msgspec.Struct], variant: Any) -> bool:
    try:
        codec.decode(json.dumps(variant).encode(), kind, limit=2**20)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("name", EXAMPLES)
def test_codec_and_schema_agree_on_every_damaged_example(name: str) -> None:
    message = MESSAGES[name.split(".", maxsplit=1)[0]]
    checked = validator(message.name)
    verdicts: set[bool] = set()
    for variant in variants(load(f"examples/{name}.json")):
        by_codec, by_schema = accepted(message.kind, variant), checked.is_valid(variant)
        assert by_codec == by_schema, variant
        verdicts.add(by_codec)
    if load(f"{message.name}.json")["properties"] and load(f"examples/{name}.json"):
        assert False in verdicts, "no variant was refused"


@pytest.mark.parametrize("name", sorted(name for name in MESSAGES if name in entries.ENTRIES))
def test_another_version_is_refused_by_both(name: str) -> None:
    example = load(f"examples/{next(one for one in EXAMPLES if one.split('.')[0] == name)}.json")
    newer = example | {"v": 2}
    with pytest.raises(ProtocolError, match="SG1101"):
        codec.decode(json.dumps(newer).encode(), MESSAGES[name].kind, limit=limits.MAX_ENTRY)
    assert not validator(name).is_valid(newer)


@pytest.mark.parametrize("wrong", ["abc\n", "\nabc", "abc\r\n", "abc\x00", "a.b", "a b", "*", ">"])
def test_a_text_that_would_break_a_subject_is_no_token(wrong: str) -> None:
    """A newline at the end slips through Python's `$`, and ends the line that a client sends."""
    assert not accepted(queries.ExplainQuery, {"task": wrong})
    assert not validator("explain-query").is_valid({"task": wrong})


@pytest.mark.parametrize("text", ["PT1.5S", "PT0.000001S", "P0D", "P3D", "P1DT3661.25S", "-PT5S"])
def test_durations_as_written_fit_their_pattern(text: str) -> None:
    retry = load("dispatched.json")["$defs"]["Retry"]["properties"]["initial"]
    assert jsonschema_rs.validator_for(retry).is_valid(text)
    decoded = msgspec.json.decode(f'"{text}"', type=timedelta)
    assert msgspec.json.encode(decoded).decode() == f'"{text}"'


def test_generating_knows_every_published_file() -> None:
    assert set(load("index.json")["files"]) == set(generate())
